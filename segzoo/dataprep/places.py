"""Where the images and masks of a domain are, and which belong together: guessed from folders and names."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath

from segzoo.data.domains import Split
from segzoo.data.files import letters, spelled, walk
from segzoo.data.layouts import SPLITS, Layout, find_layout
from segzoo.data.mask_files import MASK_TYPES
from segzoo.data.pairing import LOSSY_TYPES, Affixes, apart, natural_order, of_other_endings
from segzoo.data.references import IMAGE_TYPES
from segzoo.data.splits import evenly
from segzoo.errors import DataError
from segzoo.suggest import did_you_mean_folder

MASK_WORD = re.compile("mask|label|seg|gt|ids|annot", re.IGNORECASE)
MASK_END = re.compile(rf"(.+?)([_. -](?:{MASK_WORD.pattern})[^/]*)", re.IGNORECASE)
SAMPLE = 32
"""Images whose masks are looked for by the beginnings of their names."""


@dataclass(frozen=True)
class Pairs:
    """What was found in a domain's folders.

    Attributes:
        layout: where images and masks are.
        image_suffix: what the stems of images have in addition.
        mask_suffix: the same of masks.
        files: the image and mask files that belong together, by split; the mask is None where there is none.
        unpaired: images and masks without their partner.
        unmasked: those of them that are images, by split.
        unread: the file that was meant as the mask of one of these, and has an ending that is not read.
    """

    layout: Layout
    image_suffix: str
    mask_suffix: str
    files: Mapping[str, Sequence[tuple[Path, Path | None]]]
    unpaired: Sequence[Path]
    unmasked: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    unread: Mapping[Path, Path] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of images."""
        return sum(map(len, self.files.values()))

    @property
    def unmasked_files(self) -> list[Path]:
        """The images without a mask, of all splits."""
        return [path for paths in self.unmasked.values() for path in paths]

    @property
    def masks(self) -> list[Path]:
        """The masks that have an image."""
        return [mask for files in self.files.values() for _, mask in files if mask is not None]


def find_places(images: Path, masks: Path | None) -> Layout:
    """The folders of a domain.

    Args:
        images: the folder of the images, or the folder of all, in which images, masks and splits are looked for by the names in
            `segzoo.data.layouts`.
        masks: the folder of the masks; None: beside the images, or there are none.

    Returns:
        A folder per split where there are such: below both folders (``images/train``), or beside them where the folders are
        those of the training split (``train/images``).

    Raises:
        DataError: a folder that is not there, or one that holds nothing of it.
    """
    images, masks = spelled(images), masks and spelled(masks)
    for folder, what in ((images, "images"), (masks, "masks")):
        if folder is not None and not folder.is_dir():
            found = "is not a folder" if folder.exists() else "does not exist"
            raise DataError(f"the folder of the {what}, {folder}, {found}{did_you_mean_folder(folder)}")
    images = images.absolute()
    if masks is None:
        layout = find_layout(images)
        return layout if layout.splits or layout.masks else _by_name(layout)
    masks = masks.absolute()
    if images.samefile(masks):
        return Layout(str(images), str(images))
    splits = {split: name for split, names in SPLITS.items() for name in _folders(images) if name.lower() in names}
    if "train" in splits and any((masks / name).is_dir() for name in splits.values()):
        without = tuple(split for split, name in splits.items() if not (masks / name).is_dir())
        return Layout(f"{images}/{{split}}", f"{masks}/{{split}}", splits, without)
    return _by_name(Layout(str(images), str(masks)))


def pair_files(layout: Layout) -> Pairs:
    """Pairs the files of a layout by their names.

    Raises:
        DataError: no images or masks, masks that are JPEG files, or names that have nothing in common.
    """
    names: Mapping[Split, str] = layout.splits or {"train": ""}
    if layout.masks is None and all(
        _among_images(Path(layout.images.replace("{split}", name))) for name in names.values()
    ):
        layout = replace(layout, masks=layout.images)
    by_split: dict[Split, tuple[dict[str, Path], dict[str, Path]]] = {}
    for split, name in names.items():
        images = _stems(Path(layout.images.replace("{split}", name)), IMAGE_TYPES, "images", name)
        masks: dict[str, Path] = {}
        if layout.masks is not None and split not in layout.without_masks:
            folder = Path(layout.masks.replace("{split}", name))
            masks = _stems(folder, MASK_TYPES, "masks", name)
        by_split[split] = images, masks
    image_suffix, mask_suffix = "", ""
    with_masks = [both for both in by_split.values() if both[1]]
    if with_masks:
        most = max(with_masks, key=lambda both: len(both[1]))
        image_suffix, mask_suffix = guess_suffixes(list(most[0]), list(most[1]), layout.images == layout.masks)
    files: dict[str, list[tuple[Path, Path | None]]] = {}
    unpaired: list[Path] = []
    unmasked: dict[str, list[Path]] = {}
    unread: dict[Path, Path] = {}
    for which, (images, masks) in by_split.items():
        own = {stem.removesuffix(image_suffix): path for stem, path in images.items() if stem.endswith(image_suffix)}
        theirs = {stem.removesuffix(mask_suffix): path for stem, path in masks.items() if stem.endswith(mask_suffix)}
        if layout.images == layout.masks:
            own, theirs = apart(own, theirs, Affixes(image_suffix), Affixes(mask_suffix))
        stems = sorted(own, key=natural_order)
        files[which] = [(own[stem], theirs.get(stem)) for stem in stems if stem in theirs or not masks]
        alone = {stem: own[stem] for stem in stems if masks and stem not in theirs}
        unpaired += alone.values()
        unpaired += [path for stem, path in theirs.items() if stem not in own]
        if alone:
            unmasked[which] = list(alone.values())
            folder = Path(str(layout.masks).replace("{split}", names[which]))
            others = of_other_endings(folder, Affixes(mask_suffix), {*own.values(), *theirs.values()})
            unread |= {path: others[stem] for stem, path in alone.items() if stem in others}
    return Pairs(layout, image_suffix, mask_suffix, files, unpaired, unmasked, unread)


def _among_images(folder: Path) -> bool:
    """Whether each second image of a folder is the mask of another one, by an end of its name that says so."""
    if not folder.is_dir():
        return False
    stems = [letters(path.relative_to(folder).with_suffix("").as_posix()) for path in walk(folder)]
    known = set(stems)
    ends = Counter(match[2] for stem in stems if (match := MASK_END.fullmatch(stem)) and match[1] in known)
    return bool(ends) and 2 * max(ends.values()) == len(stems)


def guess_suffixes(images: Sequence[str], masks: Sequence[str], one_folder: bool = False) -> tuple[str, str]:
    """What the stems of images and of masks have in addition to what they have in common.

    Args:
        images: relative stems.
        masks: relative stems.
        one_folder: both are stems of one folder, and no file is its own mask.

    Raises:
        DataError: they have nothing in common, or nothing but their folder.
    """
    candidates = Counter[tuple[str, str]]() if one_folder else Counter({("", ""): 0})
    for stem in (images[i] for i in evenly(len(images), SAMPLE)):
        for other in _longest_common(stem, [mask for mask in masks if not one_folder or mask != stem]):
            shared = _common(stem, other)
            candidates[stem[shared:], other[shared:]] += 1
    for other in (masks[i] for i in evenly(len(masks), SAMPLE)):  # of a few masks, most images have none
        for stem in _longest_common(other, [image for image in images if not one_folder or image != other]):
            shared = _common(stem, other)
            candidates[stem[shared:], other[shared:]] += 1

    def matches(ends: tuple[str, str]) -> int:
        own = {stem.removesuffix(ends[0]) for stem in images if stem.endswith(ends[0])}
        return len(own & {stem.removesuffix(ends[1]) for stem in masks if stem.endswith(ends[1])})

    # Of the masks of Cityscapes, which come as colours, instances and labels, those of labels.
    ranked = sorted(candidates, key=lambda ends: ("label" not in ends[1].lower(), len(ends[0] + ends[1]), ends))
    if one_folder:  # which of the two are the masks says a word, or that their end is the longer one: 7.jpg and 7_b.png
        said = [ends for ends in ranked if MASK_WORD.search(ends[1]) and not MASK_WORD.search(ends[0])]
        ranked = said or [ends for ends in ranked if len(ends[0]) < len(ends[1])] or ranked
    best = max(ranked, key=matches, default=("", ""))
    if all(PurePosixPath(stem).name in best for stem in (*images, *masks)):
        raise DataError(
            f"every image has a folder of its own, in which it is called '{best[0]}' and its mask '{best[1]}': expected a name "
            "that tells it from others, and the same for its mask; rename them, e.g. after their folders"
        )
    if one_folder and (not ranked or not matches(best)):
        raise DataError(
            f"images and masks are in one folder, and no two names differ by an end alone, such as 7.jpg and 7_mask.png; found "
            f"'{images[0]}'; name the folder of the masks"
        )
    if not matches(best):
        raise DataError(
            f"the names of images and masks have nothing in common, e.g. '{images[0]}' and '{masks[0]}': expected the same "
            "stem, or one end that all images have and one that all masks have; rename one of them"
        )
    return best


def _longest_common(stem: str, masks: Sequence[str]) -> list[str]:
    """The masks in the same sub-folder whose beginning is that of an image, up to where a number ends."""
    parent = PurePosixPath(stem).parent
    found: list[tuple[int, str]] = []
    for other in masks:
        if PurePosixPath(other).parent != parent:
            continue
        shared = _common(stem, other)
        if shared > len(str(parent)) * (str(parent) != ".") and not (
            other[shared : shared + 1].isdecimal() or stem[shared : shared + 1].isdecimal()
        ):
            found.append((shared, other))
    most = max((shared for shared, _ in found), default=0)
    return [other for shared, other in found if shared == most]


def _common(one: str, other: str) -> int:
    """How many characters at their beginnings two texts share."""
    return sum(1 for _ in takewhile(lambda letters: letters[0] == letters[1], zip(one, other, strict=False)))


def _stems(folder: Path, types: Sequence[str], what: str, split: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder}, and there is one of the {split or what} split; make it, or remove the other one"
        )
    paths = list(walk(folder))
    found = {
        letters(path.relative_to(folder).with_suffix("").as_posix()): path
        for path in paths
        if path.suffix.lower() in types
    }
    if found:
        return dict(sorted(found.items(), key=lambda item: natural_order(item[0])))
    if what == "masks" and any(path.suffix.lower() in LOSSY_TYPES for path in paths):
        raise DataError(
            f"the masks in {folder} are JPEG or WebP files, which change ids and colours: expected {', '.join(types)}; export "
            "them anew without loss"
        )
    there = (
        ", ".join(path.name for path in paths[:4])
        or f"no file; add some, or remove the folder{' of that split' * bool(split)}"
    )
    raise DataError(f"no {what} in {folder}: expected files of type {', '.join(types)}, found {there}")


def _by_name(layout: Layout) -> Layout:
    """A folder per split where the folders are those of the training split and its neighbours are there."""
    parts = Path(layout.images).parts
    for place in reversed(range(len(parts))):
        if parts[place].lower() not in SPLITS["train"]:
            continue
        parent = Path(*parts[:place])
        splits: dict[Split, str] = {
            split: name for split, names in SPLITS.items() for name in _folders(parent) if name.lower() in names
        }
        pattern = str(Path(*parts[:place], "{split}", *parts[place + 1 :]))
        masks = layout.masks
        if masks is not None:
            if Path(masks).parts[:place] != parts[:place] or Path(masks).parts[place] != parts[place]:
                return layout
            masks = str(Path(*parts[:place], "{split}", *Path(masks).parts[place + 1 :]))
        there = {split: name for split, name in splits.items() if Path(pattern.replace("{split}", name)).is_dir()}
        if len(there) < 2:
            return layout
        without = tuple(
            split for split, name in there.items() if masks and not Path(masks.replace("{split}", name)).is_dir()
        )
        return replace(layout, images=pattern, masks=masks, splits=there, without_masks=without)
    return layout


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())
