"""Data with the mask of its wrong source pixels beside the labels of every training batch.

The mask takes part in the augmentation as a bit of the label; methods of this study take it out again before anything is
computed. No method of segzoo sees it.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segzoo.data.class_counts import class_counts
from segzoo.data.datamodule import DomainDataModule
from segzoo.data.domains import Domain, ImageSet, Pixels, Split
from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.data.streams import Batch

WRONG = 64
"""The bit of a label that says that it, or the texture below it, is wrong; class ids are smaller."""


class MarkedImages(ImageSet):
    """Images whose labels carry the mask of what is wrong.

    Args:
        images: a set with a method ``wrong(index)``, (H, W) bool.
    """

    def __init__(self, images: Any) -> None:
        self.images, self.names = images, images.names

    def image(self, index: int) -> Pixels:
        """See `ImageSet`."""
        image: Pixels = self.images.image(index)
        return image

    def label(self, index: int) -> Pixels:
        """Class ids, with the bit `WRONG` where they are wrong; 255 as ever."""
        label: Pixels = self.images.label(index).copy()
        label[self.images.wrong(index) & (label != IGNORE_INDEX)] |= WRONG
        return label


class Marked(Domain):
    """A source whose training images are `MarkedImages`.

    Args:
        domain: whose sets know what is wrong with them.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain, self.name, self.label_space = domain, domain.name, domain.label_space

    def images(self, split: Split, root: Path) -> ImageSet:
        """See `Domain`."""
        return MarkedImages(self.domain.images(split, root))


class MarkedData(DomainDataModule):
    """A data module that does not look at the marked labels."""

    def setup(self, stage: str) -> None:
        """Nothing to check: the marks would look like classes that there are not."""

    def class_shares(self, domain: Literal["source", "target"]) -> npt.NDArray[np.float64]:
        """See `DomainImages.class_shares`; of the labels as a method sees them, wrong ones too."""
        if domain == "target":
            return super().class_shares(domain)
        images: MarkedImages = self.images(domain, "train")  # type: ignore[assignment]
        counted = class_counts(images.images, range(len(images)), self.label_space.num_classes)
        return counted.frequencies

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Takes the mask out of the labels of a training batch: ``wrong`` (B, H, W) bool."""
        if isinstance(batch, dict) and "source" in batch:
            batch["source"] |= unmark(batch["source"])
        return batch


def unmark(source: Batch) -> Batch:
    """The labels of a source batch and, apart from them, the mask of what is wrong."""
    label = source["label"]
    wrong = (label != IGNORE_INDEX) & (label & WRONG > 0)
    return {"label": label.masked_fill(wrong, 0) + wrong * (label & (WRONG - 1)), "wrong": wrong}
