"""MiniFaces as images and as a `Domain`. Drawing is fast enough to need no cache: some thousand images in seconds."""

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from segzoo.checks import check_range
from segzoo.data.domains import Domain, ImageSet, Split
from segzoo.data.label_spaces import load_label_space
from segzoo.data.minifaces.drawing import draw

GENERATOR_VERSION = 1
"""Raised whenever a pixel changes: weights trained on an older version no longer fit."""
CLASSES = ("background", "skin", "hair", "eyes", "brows", "nose", "mouth")
FIRST_INDEX: dict[Split, int] = {"train": 0, "val": 1_000_000, "test": 2_000_000}

Pixels = npt.NDArray[np.uint8]


class MiniFacesImages(ImageSet):
    """Images and labels, drawn when they are asked for and then kept.

    Args:
        seed: of all faces.
        first: index of the first image.
        count: number of images.
        size: (height, width).
    """

    def __init__(self, seed: int, first: int, count: int, size: tuple[int, int]) -> None:
        self.names = [f"face-{seed}-{first + i:07d}" for i in range(count)]
        self._draw = lru_cache(maxsize=None)(lambda index: draw(seed, first + index, size))

    def image(self, index: int) -> Pixels:
        return self._draw(index)[0]

    def label(self, index: int) -> Pixels:
        return self._draw(index)[1]


def generate(seed: int, count: int, size: tuple[int, int] = (64, 64), *, first: int = 0) -> MiniFacesImages:
    """``count`` faces; face ``i`` depends on (seed, first + i, size) and not on the count.

    Raises:
        ConfigError: a negative seed or count, or a side below 32 pixels.
    """
    check_range("MiniFaces seed", seed, 0)
    check_range("MiniFaces count", count, 0)
    check_range("MiniFaces size", min(size), 32)
    cv2.setNumThreads(0)  # the images are small: threads cost more than they save
    return MiniFacesImages(seed, first, count, size)


class MiniFaces(Domain):
    """Procedural faces with part labels.

    Args:
        train: Sets the number of training images; each split has faces of its own.
        val: Sets the number of validation images, on which a run is scored while it trains.
        test: Sets the number of test images, on which a run is scored at its end.
        seed: Sets the seed of the faces that are drawn; the training has a seed of its own.
        size: Sets height and width of the images in pixels, both at least 32.

    Raises:
        ConfigError: see `generate`.
    """

    def __init__(
        self, train: int = 400, val: int = 100, test: int = 200, seed: int = 0, size: tuple[int, int] = (64, 64)
    ) -> None:
        self.counts: dict[Split, int] = {"train": train, "val": val, "test": test}
        self.seed, self.size = seed, (int(size[0]), int(size[1]))
        for count in self.counts.values():
            generate(seed, count, self.size)  # refuses what cannot work before it is needed
        self.name = "minifaces"
        self.label_space = load_label_space("minifaces")

    def images(self, split: Split, root: Path) -> MiniFacesImages:
        """The images of one split; ``root`` is not used."""
        return generate(self.seed, self.counts[split], self.size, first=FIRST_INDEX[split])
