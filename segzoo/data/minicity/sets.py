"""MiniCity as images, as a cached set and as a `Domain`."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from segzoo.data.cache import cache_dir, read_arrays, write_arrays
from segzoo.data.domains import Domain, ImageSet, Split
from segzoo.data.label_spaces import load_label_space
from segzoo.data.minicity.flaws import Flaws, spoil
from segzoo.data.minicity.photo import paint_target, target_palette
from segzoo.data.minicity.render import SOURCE, colours, compose, paint_source
from segzoo.data.minicity.scene import source_scene, target_scene
from segzoo.errors import ConfigError

GENERATOR_VERSION = 2  # raise it whenever a pixel changes: sets cached by older versions are then left aside
DOMAINS = ("source", "target")
FIRST_INDEX: dict[Split, int] = {"train": 0, "val": 1_000_000, "test": 2_000_000}

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
DomainName = Literal["source", "target"]


def draw(domain: DomainName, seed: int, index: int, size: tuple[int, int], flaws: Flaws) -> tuple[Pixels, Pixels, Mask]:
    """One image: a function of its arguments alone.

    Returns:
        image (H, W, 3) uint8 RGB, label (H, W) uint8 ids with 255 = ignore, wrong (H, W) bool.
    """
    key = [seed, DOMAINS.index(domain), index]
    rng = np.random.default_rng(np.random.SeedSequence(key))
    if domain == "target":
        scene = target_scene(rng, size)
        canvas, label, wrong = compose(scene, colours(target_palette(rng), len(scene), rng))
        return paint_target(canvas, rng), label, wrong
    scene = source_scene(rng, size)
    tints = colours(SOURCE, len(scene), rng)
    # The flaws have their own stream: without them the rest of the image is the same.
    halo = spoil(scene, flaws, np.random.default_rng(np.random.SeedSequence([*key, 1])))
    canvas, label, wrong = compose(scene, tints, halo)
    return paint_source(canvas, rng), label, wrong


class MiniCityImages(ImageSet):
    """Images, labels and the mask of what is wrong with them, in memory.

    Args:
        images: (N, H, W, 3) uint8 RGB.
        labels: (N, H, W) uint8 ids, 255 = ignore; what the data set claims.
        wrong: (N, H, W) bool.
        names: one per image.
    """

    def __init__(self, images: Pixels, labels: Pixels, wrong: Mask, names: list[str]) -> None:
        self._images, self._labels, self._wrong = images, labels, wrong
        self.names = names
        self.has_labels = True

    def image(self, index: int) -> Pixels:
        image: Pixels = self._images[index]
        return image

    def label(self, index: int) -> Pixels:
        label: Pixels = self._labels[index]
        return label

    def wrong(self, index: int) -> Mask:
        """Pixels (H, W) whose label or texture is wrong. For analysis only; training never sees it."""
        mask: Mask = self._wrong[index]
        return mask


def generate(
    domain: DomainName,
    seed: int,
    count: int,
    size: tuple[int, int] = (96, 160),
    *,
    first: int = 0,
    flaws: Flaws | None = None,
    progress: bool = False,
) -> MiniCityImages:
    """Draws ``count`` images of a domain.

    Args:
        domain: ``source`` (rendered, partly wrong) or ``target`` (photo-like, always right).
        seed: non-negative; image ``i`` depends on (domain, seed, first + i) and not on the count.
        count: number of images.
        size: (height, width) in pixels, both at least 32.
        first: index of the first image.
        flaws: how much of the source is wrong; the default of :class:`Flaws` when None.
        progress: show a progress bar.

    Raises:
        ConfigError: an unknown domain, a negative seed or count, or a size below 32.
    """
    check(domain, seed, {"count": count}, size)
    height, width = size
    images = np.empty((count, height, width, 3), np.uint8)
    labels = np.empty((count, height, width), np.uint8)
    wrong = np.empty((count, height, width), np.bool_)
    rules = Flaws() if flaws is None else flaws
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # the images are small: threads cost more than they save
    try:
        for i in tqdm(
            range(count),
            desc=f"drawing MiniCity {domain}",
            unit="image",
            disable=None if progress else True,
            leave=False,
        ):
            images[i], labels[i], wrong[i] = draw(domain, seed, first + i, size, rules)
    finally:
        cv2.setNumThreads(threads)
    return MiniCityImages(images, labels, wrong, [f"{domain}-{first + i:07d}" for i in range(count)])


def check(domain: str, seed: int, counts: dict[str, int], size: tuple[int, int]) -> None:
    """Refuses parameters that cannot work."""
    if domain not in DOMAINS:
        raise ConfigError(f"unknown MiniCity domain '{domain}': expected source or target")
    if seed < 0:
        raise ConfigError(f"MiniCity seed is {seed}: expected 0 or more")
    if min(size) < 32:
        raise ConfigError(f"MiniCity size is {tuple(size)}: expected a height and a width of at least 32 pixels")
    for name, count in counts.items():
        if count < 0:
            raise ConfigError(f"MiniCity {name} is {count}: expected 0 or more images")


class MiniCity(Domain):
    """One of the two domains of MiniCity; drawn at first use and cached.

    Args:
        domain: Chooses the look of the images: ``source`` is rendered and partly labelled wrong, ``target`` looks like
            photographs and is always right.
        train: Sets the number of training images; each split has images of its own, and more of them take longer to draw once.
        val: Sets the number of validation images, on which a run is scored while it trains.
        test: Sets the number of test images, on which a run is scored at its end.
        seed: Sets the seed of the scenes that are drawn; the training has a seed of its own.
        size: Sets height and width of the images in pixels, both at least 32.
        flaws: Multiplies the probabilities of what is wrong with the source (`Flaws`); 0 makes all of it right, and the target
            has none.

    Raises:
        ConfigError: a parameter that cannot work.
    """

    def __init__(
        self,
        domain: DomainName,
        train: int = 400,
        val: int = 100,
        test: int = 200,
        seed: int = 0,
        size: tuple[int, int] = (96, 160),
        flaws: float = 1.0,
    ) -> None:
        self.counts: dict[Split, int] = {"train": train, "val": val, "test": test}
        check(domain, seed, {str(split): count for split, count in self.counts.items()}, size)
        if flaws < 0:
            raise ConfigError(f"MiniCity flaws is {flaws}: expected a factor of 0 or more")
        self.domain: DomainName = domain
        self.seed = seed
        self.size = (int(size[0]), int(size[1]))
        self.flaws = Flaws().scaled(flaws)
        self.name = f"minicity-{domain}"
        self.label_space = load_label_space("minicity")

    def images(self, split: Split, root: Path) -> MiniCityImages:
        """The images of one split, from the cache or drawn now; ``root`` is not used."""
        path = self.cache_path(split)
        found = read(path, self.counts[split], self.size)
        if found is None:
            drawn = generate(
                self.domain,
                self.seed,
                self.counts[split],
                self.size,
                first=FIRST_INDEX[split],
                flaws=self.flaws,
                progress=True,
            )
            write(path, drawn)
            return drawn
        return found

    def cache_path(self, split: Split) -> Path:
        """The file of a split; its name carries everything that its pixels depend on."""
        parameters = {
            "version": GENERATOR_VERSION,
            "domain": self.domain,
            "seed": self.seed,
            "first": FIRST_INDEX[split],
            "count": self.counts[split],
            "size": self.size,
            "flaws": asdict(self.flaws) if self.domain == "source" else None,
        }
        digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:16]
        return cache_dir() / "minicity" / f"{self.domain}-{split}-{digest}.npz"


def read(path: Path, count: int, size: tuple[int, int]) -> MiniCityImages | None:
    """A cached set, or None when there is none or it is damaged."""
    found = read_arrays(path, "images", "labels", "wrong", "names")
    if found is None:
        return None
    images, labels, packed, stored = found
    names = [str(name) for name in stored]
    wrong = np.unpackbits(packed, axis=-1, count=size[1]).astype(np.bool_)
    fits = images.shape == (count, *size, 3) and labels.shape == wrong.shape == (count, *size) and len(names) == count
    return MiniCityImages(images, labels, wrong, names) if fits else None


def write(path: Path, drawn: MiniCityImages) -> None:
    """Writes a set for the next run."""
    wrong, names = np.packbits(drawn._wrong, axis=-1), np.array(drawn.names)
    write_arrays(path, "MiniCity", images=drawn._images, labels=drawn._labels, wrong=wrong, names=names)
