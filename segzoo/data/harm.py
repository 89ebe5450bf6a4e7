"""A source in which a known part of the labels is wrong: does a method find it, and what does it cost?

source:
  class_path: segzoo.data.Harmed
  init_args:
    domain: {class_path: segzoo.data.MiniCity, init_args: {domain: source, flaws: 0}}
    share: 0.25
    kind: shifted
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from segzoo.checks import check_range
from segzoo.data.class_maps import RawIds
from segzoo.data.domains import Domain, ImageSet, Pixels, Split
from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.data.permutation import permutation
from segzoo.data.several import SeveralDomains
from segzoo.errors import ConfigError

Kind = Literal["shifted", "exchanged"]
Mask = npt.NDArray[np.bool_]


class Harmed(Domain):
    """A domain in which a share of the training images has wrong labels.

    Which images these are depends on their number alone: every seed has the same, and a smaller share is a part of a larger
    one.

    Args:
        domain: Gives the images, whose labels are otherwise left alone.
        share: Sets the share of the training images, from 0 to 1, whose labels are harmed.
        kind: Chooses the harm: shifted moves the labels of an image to the right and down, exchanged gives the pixels of two
            classes the other's name.
        amount: Sets how far labels are shifted, as a share of the image's height; what comes in from outside has no label.
        classes: Names the two classes that are exchanged, which every kind but shifted needs.

    Raises:
        ConfigError: a number outside its range, several domains at once, or classes that the label space lacks.
    """

    def __init__(
        self,
        domain: Domain,
        share: float = 0.25,
        kind: Kind = "shifted",
        amount: float = 0.1,
        classes: tuple[str, str] | None = None,
    ) -> None:
        check_range("`data.source.share`", share, 0, 1)
        check_range("`data.source.amount`", amount, 0, 1)
        if isinstance(domain, SeveralDomains):
            raise ConfigError("`data.source.domain` lists several domains; harm the entries of the list one by one")
        self.domain, self.label_space = domain, domain.label_space
        self.share, self.kind, self.amount = share, kind, amount
        self.name = f"{domain.name}-{kind}-{share:g}"
        self.pair = (0, 0) if kind == "shifted" else self._pair(classes)

    def has_split(self, split: Split, root: Path) -> bool:
        """See `Domain.has_split`."""
        return self.domain.has_split(split, root)

    def unlabelled(self, root: Path) -> ImageSet | None:
        """See `Domain.unlabelled`."""
        return self.domain.unlabelled(root)

    def images(self, split: Split, root: Path) -> ImageSet:
        """The images of one split; only those of train are harmed."""
        found = self.domain.images(split, root)
        return HarmedImages(found, self) if split == "train" else found

    def harm(self, label: Pixels) -> Pixels:
        """Label ids (H, W) with the harm done to them."""
        if self.kind == "exchanged":
            table = np.arange(256, dtype=np.uint8)
            table[list(self.pair)] = self.pair[::-1]
            return table[label]
        by = round(self.amount * label.shape[0])
        moved = np.full_like(label, IGNORE_INDEX)
        height, width = (max(side - by, 0) for side in label.shape)
        moved[by:, by:] = label[:height, :width]
        return moved

    def _pair(self, classes: tuple[str, str] | None) -> tuple[int, int]:
        known = self.label_space.classes
        if classes is None or len(classes) != 2 or classes[0] == classes[1] or not set(classes) <= set(known):
            given = "nothing" if classes is None else ", ".join(classes)
            raise ConfigError(f"`data.source.classes` is {given}: expected two different ones of {', '.join(known)}")
        first, second = classes
        return known.index(first), known.index(second)


class HarmedImages(ImageSet):
    """Images some of whose labels are harmed, and which pixels these are.

    Args:
        images: as they were.
        domain: says what is done, and to how many.
    """

    def __init__(self, images: ImageSet, domain: Harmed) -> None:
        self._images, self._domain = images, domain
        self.names, self.class_map = images.names, images.class_map
        self.has_labels, self.has_references = images.has_labels, images.has_references
        order = permutation(len(images), len(images))
        self.harmed = frozenset(int(i) for i in order[: round(domain.share * len(images))])
        """The positions of the harmed ones."""

    def image(self, index: int) -> Pixels:
        """See `ImageSet.image`."""
        return self._images.image(index)

    def label(self, index: int) -> Pixels:
        """The label ids (H, W), right or harmed."""
        return self.label_and_ids(index)[0]

    def label_and_ids(self, index: int) -> tuple[Pixels, RawIds | None]:
        """See `ImageSet.label_and_ids`; the ids are those of the file."""
        label, ids = self._images.label_and_ids(index)
        return (self._domain.harm(label) if index in self.harmed else label), ids

    def wrong(self, index: int) -> Mask:
        """Pixels (H, W) that have another label than before, and those that the set itself knows to be wrong.

        For analysis only; training never sees it.
        """
        before, after = self._images.label(index), self.label(index)
        own = getattr(self._images, "wrong", None)
        changed: Mask = (before != after) & (after != IGNORE_INDEX)
        return changed if own is None else changed | own(index)

    def reference(self, index: int) -> Pixels:
        """See `ImageSet.reference`."""
        return self._images.reference(index)

    @property
    def files(self) -> Sequence[Path]:
        """See `ImageSet.files`."""
        return self._images.files

    @property
    def mask_files(self) -> Sequence[Path]:
        """See `ImageSet.mask_files`."""
        return self._images.mask_files

    def check(self) -> None:
        """See `ImageSet.check`."""
        self._images.check()

    def fingerprint(self) -> str | None:
        """See `ImageSet.fingerprint`; with what was done."""
        found, domain = self._images.fingerprint(), self._domain
        if found is None:
            return None
        done = f"{found} {domain.share} {domain.kind} {domain.amount} {domain.pair}"
        return hashlib.sha256(done.encode()).hexdigest()
