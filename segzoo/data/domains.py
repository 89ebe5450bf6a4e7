"""What a data set has to provide: a `Domain` per data set, an `ImageSet` per split."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from segzoo.data.class_maps import ClassMap, RawIds
from segzoo.data.label_spaces import LabelSpace

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Pixels = npt.NDArray[np.uint8]


class ImageSet(ABC):
    """An ordered list of images with or without labels.

    Attributes:
        names: a stable, unique name per image.
        has_labels: whether :meth:`label` may be called.
        class_map: what turned the ids or colours of files into label ids; None where there are no files.
        has_references: whether :meth:`reference` may be called.
        parts: the sets of several domains by the domain's name, in the order of their images; empty where there is one domain.
    """

    names: Sequence[str]
    has_labels: bool = True
    has_references: bool = False
    class_map: ClassMap | None = None
    parts: Mapping[str, "ImageSet"] = MappingProxyType({})

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def image(self, index: int) -> Pixels:
        """The image as (H, W, 3) uint8 RGB."""

    @abstractmethod
    def label(self, index: int) -> Pixels:
        """The label ids of the domain's label space as (H, W) uint8; 255 is ignored. Several threads may call it at once."""

    def reference(self, index: int) -> Pixels:
        """Another image of the same place as image ``index``, e.g. by day, of the same size (H, W, 3) uint8 RGB."""
        raise NotImplementedError(f"{type(self).__name__} has no reference images")

    def label_and_ids(self, index: int) -> tuple[Pixels, RawIds | None]:
        """The label ids, and the (H, W) ids or packed colours that a file stores for them where there is one."""
        return self.label(index), None

    def origin(self, index: int) -> int:
        """The position among `parts` of the set that an image is of; 0 where there are none."""
        return 0

    def drawn_upright(self, index: int) -> bool | None:
        """Of an image that a camera says is to be turned: whether its mask fits it only so (or only as it is stored: False)."""
        return None

    @property
    def files(self) -> Sequence[Path]:
        """The files of the images; empty where there are none."""
        return ()

    @property
    def mask_files(self) -> Sequence[Path]:
        """The files of the masks; empty where there are none."""
        return ()

    def check(self) -> None:  # noqa: B027 - most sets have no files
        """Looks at all files without decoding them, where there are some: their evaluation may be hours away.

        Raises:
            DataError: a file that `image` or `label` would refuse.
        """

    def fingerprint(self) -> str | None:
        """A text that changes whenever a label may have, or None: what is counted in the labels is not kept on disk."""
        return None


class JoinedImages(ImageSet):
    """Images of several sets as one set.

    Args:
        parts: sets, each with the positions of the images that are taken from it.
        labelled: whether the set has the labels of the parts, if all of them have some; else it has none.
    """

    def __init__(self, parts: Sequence[tuple[ImageSet, Sequence[int]]], labelled: bool = False) -> None:
        self._sets = list(parts)
        self._places = [(images, index) for images, indices in parts for index in indices]
        self.names = [images.names[index] for images, index in self._places]
        self.has_labels = labelled and all(images.has_labels for images, _ in parts)
        self.has_references = bool(self._places) and all(images.has_references for images, _ in self._places)

    def image(self, index: int) -> Pixels:
        """The image as (H, W, 3) uint8 RGB."""
        images, position = self._places[index]
        return images.image(position)

    def label(self, index: int) -> Pixels:
        """The label of the image in its own set, where this set has labels."""
        return self.label_and_ids(index)[0]

    def label_and_ids(self, index: int) -> tuple[Pixels, RawIds | None]:
        """The label ids, and the ids that the file of its own set stores."""
        if not self.has_labels:
            raise NotImplementedError("unlabelled images have no labels")
        images, position = self._places[index]
        return images.label_and_ids(position)

    def reference(self, index: int) -> Pixels:
        """The reference of the image in its own set."""
        images, position = self._places[index]
        return images.reference(position)

    @property
    def files(self) -> Sequence[Path]:
        """The files of the images that have one."""
        files = [(images.files, indices) for images, indices in self._sets]
        return [those[index] for those, indices in files if those for index in indices]

    def check(self) -> None:
        """See `ImageSet.check`, set by set."""
        for images, _ in self._sets:
            images.check()

    def fingerprint(self) -> str | None:
        """A hash of those of the sets and of which images are taken; None where one of them has none."""
        if not self.has_labels:
            return None
        digest = hashlib.sha256()
        for images, indices in self._sets:
            found = images.fingerprint()
            if found is None:
                return None
            digest.update(f"{found} {list(indices)}\0".encode())
        return digest.hexdigest()


class Domain(ABC):
    """A data set, e.g. the images of one simulator or of one camera.

    Attributes:
        name: short name for run folders and tables.
        label_space: the classes of its labels.
    """

    name: str
    label_space: LabelSpace

    def has_split(self, split: Split, root: Path) -> bool:
        """Whether there is such a split; what there is none of is not scored, and no error."""
        return True

    def unlabelled(self, root: Path) -> ImageSet | None:
        """Further training images that nobody labelled, beside those of the train split; None where there are none."""
        return None

    @abstractmethod
    def images(self, split: Split, root: Path) -> ImageSet:
        """The images of one split; relative paths are below ``root``.

        Raises:
            DataError: the split is missing, empty or inconsistent; the message names the folder or file.
        """
