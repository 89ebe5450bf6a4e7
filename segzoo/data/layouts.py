"""How the images and masks of a domain lie in a folder, found by looking."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segzoo.data.domains import Split
from segzoo.data.files import LEFTOVERS
from segzoo.data.references import IMAGE_TYPES
from segzoo.errors import DataError
from segzoo.suggest import did_you_mean_folder

IMAGES = ("images", "image", "imgs", "img", "rgb")
MASKS = ("masks", "mask", "labels", "label", "annotations", "gt", "seg", "segmentation", "semantic")
UNLABELLED = ("unlabelled", "unlabeled")
SPLITS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training", "labelled", "labeled"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
EXPECTED = "expected images/ and masks/; or train/, val/ and test/ with these two in each; or image files alone"
LISTED = 8


@dataclass(frozen=True)
class Layout:
    """Where the images and masks of a domain are.

    Attributes:
        images: their folder; ``{split}`` in it stands for the folder of a split.
        masks: the same for the masks; None where there are none.
        splits: the folder of every split that there is; empty where all images are in one folder.
        without_masks: splits that have none.
        unlabelled: the folder of photographs that nobody labelled; None where there is none.
        unused: folders beside those of the splits that hold images, too, under names that say nothing.
    """

    images: str
    masks: str | None
    splits: dict[Split, str] = field(default_factory=dict)
    without_masks: tuple[Split, ...] = ()
    unlabelled: str | None = None
    unused: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """A sentence on what is not used; empty where everything is."""
        if not self.unused:
            return ""
        names = [name for split in SPLITS.values() for name in split[::2]] + [UNLABELLED[0]]
        return (
            f"not used, as the name says no split: {', '.join(self.unused)}; the names of splits are {', '.join(names)}: "
            "rename the folder, or leave it out on purpose"
        )


def find_layout(folder: Path) -> Layout:
    """The layout of a domain's folder.

    Known are one folder for all images (``images/`` and ``masks/``, or the image files themselves), and a folder per split, in
    either order (``train/images/`` or ``images/train/``), by the names in `IMAGES`, `MASKS` and `SPLITS`. Beside them may lie
    ``unlabelled/`` (or ``unlabeled/``, and ``images/`` in it): photographs without masks for training, beside a train split or
    instead of one.

    Raises:
        DataError: no such folder, or none of this in it; the message says what was looked for and what is there.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"the folder {folder} {what}; {EXPECTED}{did_you_mean_folder(folder)}")
    if splits := _splits(folder):  # train/images
        train = folder / next(iter(splits.values()))
        images = _named(train, IMAGES)
        masks = next((name for part in splits.values() if (name := _named(folder / part, MASKS))), None)
        if images is None:
            if not _holds_images(train):
                raise DataError(f"{train} holds {_listed(train)}; expected images/ and masks/, or image files alone")
            return _by_split(folder, "{split}", None, splits)
        return _by_split(folder, f"{{split}}/{images}", masks and f"{{split}}/{masks}", splits)
    images, masks = _named(folder, IMAGES), _named(folder, MASKS)
    if images is None:
        if not _holds_images(folder):
            raise DataError(f"{folder} holds {_listed(folder)}; {EXPECTED}")
        return Layout(str(folder), None)
    if splits := _splits(folder / images):  # images/train
        return _by_split(folder, f"{images}/{{split}}", masks and f"{masks}/{{split}}", splits)
    return Layout(str(folder / images), str(folder / masks) if masks else None, unlabelled=_unlabelled(folder))


def photographs_in(folder: Path) -> Path:
    """The folder of the images alone, in one of photographs that nobody labelled, where masks or splits may lie in it, too.

    Args:
        folder: holds image files, or ``images/``, or folders of splits with ``images/`` in each, by the names in `IMAGES` and
            `SPLITS`.

    Returns:
        ``images/`` in it; of splits ``*/images``; else the folder itself.
    """
    if images := _named(folder, IMAGES):
        return folder / images
    splits = [name for names in SPLITS.values() if (name := _named(folder, names))]
    inner = {_named(folder / name, IMAGES) for name in splits}
    images = inner.pop() if len(inner) == 1 else None
    return folder / "*" / images if images else folder


def _by_split(folder: Path, images: str, masks: str | None, splits: dict[Split, str]) -> Layout:
    unlabelled, unused = _unlabelled(folder, images), _unused(folder / images.partition("{split}")[0], splits)
    if masks is None:
        return Layout(f"{folder}/{images}", None, splits, (), unlabelled, unused)
    without = tuple(split for split, name in splits.items() if not (folder / masks.replace("{split}", name)).is_dir())
    return Layout(f"{folder}/{images}", f"{folder}/{masks}", splits, without, unlabelled, unused)


def _unused(folder: Path, splits: dict[Split, str]) -> tuple[str, ...]:
    """The folders beside those of the splits in which there are images as there are in these."""
    known = {*splits.values(), *(name for name in (_named(folder, (one,)) for one in (*UNLABELLED, *MASKS)) if name)}
    others = sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in (*known, *LEFTOVERS))
    inner = [path / (_named(path, IMAGES) or "") for path in others if not path.name.startswith(".")]
    return tuple(str(path) for path in inner if _holds_images(path))


def _unlabelled(folder: Path, images: str = "") -> str | None:
    """The folder beside those of the splits, or else beside that of all images."""
    beside = folder / images.partition("{split}")[0]
    for place in dict.fromkeys((beside, folder)):
        if name := _named(place, UNLABELLED):
            return str(photographs_in(place / name))
    return None


def _splits(folder: Path) -> dict[Split, str]:
    """The folders of the splits, by split.

    Raises:
        DataError: there are some, and none for training, nor photographs without labels.
    """
    found = {split: name for split, names in SPLITS.items() if (name := _named(folder, names))}
    if found and "train" not in found and not _named(folder, UNLABELLED):
        raise DataError(f"{folder} holds {_listed(folder)}, and no train/ beside {'/ and '.join(found.values())}/")
    return found


def _named(folder: Path, names: Sequence[str]) -> str | None:
    """The folder below a folder that has the first of these names, whatever its capitals."""
    there = {path.name.lower(): path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else {}
    return next((there[name] for name in names if name in there), None)


def _holds_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_TYPES for path in folder.iterdir() if not path.name.startswith("."))


def _listed(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith("."))
    more = f", ... and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (", ".join(names[:LISTED]) or "nothing") + more
