"""Every file of a data set, read once: what can be said of it, and what is wrong with it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segzoo.data.class_maps import LARGEST_ID, RawIds
from segzoo.data.domains import ImageSet
from segzoo.data.image_files import opened, raw_mode
from segzoo.data.label_check import check_labels
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.turning import turned_images
from segzoo.dataprep.duplicates import Look, Twins, look_at, near_duplicates
from segzoo.dataprep.photographs import said_of_masks
from segzoo.dataprep.sets import UNLABELLED, Sets, in_threads
from segzoo.errors import DataError

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Item:
    """What one image and its mask hold.

    Attributes:
        image: the file; None where images are made and not read.
        mask: the file of the mask; None where there is none.
        size: (width, height) as it is trained on; None for an image that cannot be read.
        modes: how image and mask are stored, e.g. ``JPEG RGB`` and ``PNG L``; empty for what is no file.
        counts: (256,) pixels per label id; None without a mask that can be read.
        raw: pixels per id, or packed colour, that the mask stores; empty where there are no files.
        look: to compare the image with others; None for an image that cannot be read.
        problems: what is wrong, a line each.
    """

    image: Path | None
    mask: Path | None
    size: tuple[int, int] | None
    modes: tuple[str, str]
    counts: Counts | None
    raw: Mapping[int, int]
    look: Look | None
    problems: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SurveyedSet:
    """What a set holds.

    Attributes:
        images: the set itself.
        items: one for each of its images.
    """

    images: ImageSet
    items: Sequence[Item]

    @property
    def counts(self) -> Counts:
        """(256,) pixels per label id, of all masks that can be read."""
        return sum((item.counts for item in self.items if item.counts is not None), np.zeros(256, np.int64))

    @property
    def good(self) -> list[int]:
        """Positions of the images with which nothing is wrong."""
        return [position for position, item in enumerate(self.items) if not item.problems]

    def raw(self) -> dict[int, int]:
        """Pixels per id, or packed colour, that the masks store, of all masks that can be read."""
        total: dict[int, int] = {}
        for item in self.items:
            for number, pixels in item.raw.items():
                total[number] = total.get(number, 0) + pixels
        return total


@dataclass(frozen=True, eq=False)
class Survey:
    """What a DataModule's sets hold.

    Attributes:
        space: the classes.
        sets: by name, e.g. ``target/test``.
        problems: all that is wrong, a line each, with the set's name first.
        warnings: what need not be wrong.
        twins: images of two sets that look alike.
    """

    space: LabelSpace
    sets: Mapping[str, SurveyedSet]
    problems: Sequence[str]
    warnings: Sequence[str]
    twins: Sequence[Twins]


def survey(found: Sets, space: LabelSpace, threads: int, done: Callable[[int], None]) -> Survey:
    """Reads every image and mask of some sets.

    Args:
        found: the sets.
        space: the classes.
        threads: how many files are read at once.
        done: is told how many more images are done.
    """
    sets = {name: _read(images, threads, done) for name, images in found.images.items()}
    problems = [f"{name}: {line}" for name, lines in found.problems.items() for line in lines]
    problems += [
        f"{name}: {line}" for name, surveyed in sets.items() for item in surveyed.items for line in item.problems
    ]
    warnings: list[str] = []
    labelled = {name: (one.images, one.good) for name, one in sets.items() if one.images.has_labels and one.good}
    try:
        warnings += check_labels(labelled, space)
    except DataError as error:
        problems.append(str(error))
    warnings += turned_images(labelled)
    warnings += _said_of_masks(sets)
    looks = {
        name: [(i, item.look) for i, item in enumerate(one.items) if item.look is not None]
        for name, one in sets.items()
    }
    twins = near_duplicates(looks)
    return Survey(space, sets, problems, [*warnings, *_said_of(twins, sets)], twins)


def _read(images: ImageSet, threads: int, done: Callable[[int], None]) -> SurveyedSet:
    files, masks = images.files, images.mask_files
    items: dict[int, Item] = {}

    def read(position: int) -> Item:
        return _item(images, position, files[position] if files else None, masks[position] if masks else None)

    for position, item in in_threads(read, range(len(images)), threads):
        items[position] = item
        done(1)
    return SurveyedSet(images, [items[position] for position in range(len(images))])


def _item(images: ImageSet, position: int, image: Path | None, mask: Path | None) -> Item:
    problems: list[str] = []
    size, look, counts, raw = None, None, None, dict[int, int]()
    try:
        pixels = images.image(position)
        size, look = (pixels.shape[1], pixels.shape[0]), look_at(pixels)
    except DataError as error:
        problems.append(str(error))
    if images.has_labels:
        try:
            labels, ids = images.label_and_ids(position)
            counts = np.bincount(labels.ravel(), minlength=256)
            if ids is not None:
                raw = _pixels_per_id(ids)
            if size is not None and labels.shape != size[::-1]:
                height, width = labels.shape
                problems.append(
                    f"the mask of '{images.names[position]}' is {width}x{height}, its image {size[0]}x{size[1]}"
                )
        except DataError as error:
            # What is wrong with an image is found a second time when the size of its mask is compared with it.
            if str(error) not in problems:
                problems.append(str(error))
    return Item(image, mask, size, (_mode(image), _mode(mask)), counts, raw, look, tuple(problems))


def _pixels_per_id(ids: RawIds) -> dict[int, int]:
    if ids.size and ids.max() > LARGEST_ID:  # colours, which would make a long table
        values, pixels = np.unique(ids, return_counts=True)
        return dict(zip(values.tolist(), pixels.tolist(), strict=True))
    counts = np.bincount(ids.ravel())  # none is negative: no class map would define it
    return {int(number): int(counts[number]) for number in np.flatnonzero(counts)}


def _mode(path: Path | None) -> str:
    """How a file stores its pixels: its format, and what PIL calls the kind of pixel."""
    with suppress(DataError):
        if path is not None:
            with opened(path, "file") as file:
                return f"{file.format} {raw_mode(file) if file.mode.startswith(('I', 'RGB')) else file.mode}"
    return ""


def _said_of_masks(sets: Mapping[str, SurveyedSet]) -> list[str]:
    """A line for each of the target's sets without masks that holds files which look like masks."""
    lines = []
    for name, images in ((name, one.images) for name, one in sets.items() if name.startswith("target")):
        if images.files and not images.has_labels:
            files = dict(zip(images.names, images.files, strict=True))
            lines.append((name, said_of_masks(files, labelled=name != UNLABELLED)))
    return [f"{name}: {said}" for name, said in lines if said]


def _said_of(twins: Sequence[Twins], sets: Mapping[str, SurveyedSet]) -> list[str]:
    """A line for each two sets that share images, and for each with images that are nearly the same."""
    lines = []
    for first, second, same in dict.fromkeys((one.first[0], one.second[0], one.same) for one in twins):
        those = [one for one in twins if (one.first[0], one.second[0], one.same) == (first, second, same)]
        nearest = min(those, key=lambda one: one.difference)
        names = [sets[name].images.names[position] for name, position in (nearest.first, nearest.second)]
        shared = "are also" if same else "have a near duplicate"
        lines.append(
            f"{len(those)} of the {len(sets[second].items)} images of {second} {shared} in {first} "
            f"('{names[1]}' is {'the same image as' if same else 'like'} '{names[0]}'){_consequence(first, second)}"
        )
    return lines


def _consequence(first: str, second: str) -> str:
    """What it means that two sets share images."""
    scored = ("target/val", "target/test")
    if second == UNLABELLED and first in scored:
        return (
            ": methods of unlabelled images train the network on photographs that it is scored on, without their labels, and "
            "scores say little of new ones; take them out of the unlabelled folder"
        )
    return ": scores on them say little of new images" if second in scored else ""
