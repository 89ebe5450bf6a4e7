"""Photographs that nobody labelled: where they lie, and which files among them look like masks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from segzoo.data.class_maps import packed
from segzoo.data.files import letters, spelled
from segzoo.data.image_files import opened
from segzoo.data.layouts import MASKS, UNLABELLED, photographs_in
from segzoo.data.pairing import NONE, files_by_stem
from segzoo.data.references import IMAGE_TYPES
from segzoo.data.splits import evenly
from segzoo.dataprep.places import MASK_END, MASK_WORD, Pairs
from segzoo.errors import DataError

SAMPLE, SIDE = 4, 512
"""Files of a folder whose colours are counted, and rows and columns of each."""
FEW = 64
"""Colours of a mask; photographs have thousands, or nearly all grey values."""


@dataclass(frozen=True)
class Photographs:
    """A folder of photographs that nobody labelled.

    Attributes:
        folder: where they lie; ``*`` in it stands for any folder.
        count: how many there are.
        without_masks: they are those images of a labelled folder that have no mask, and not the whole folder.
        warning: on files that look like masks; empty where there are none.
    """

    folder: Path
    count: int
    without_masks: bool = False
    warning: str = ""


def find_photographs(folder: Path) -> Photographs:
    """The photographs in a folder, without masks that lie beside them in a folder of their own.

    Args:
        folder: see `segzoo.data.layouts.photographs_in`.

    Raises:
        DataError: there are none.
    """
    place = photographs_in(spelled(folder).absolute())
    files = files_by_stem(place, "image", IMAGE_TYPES, NONE)
    return Photographs(place, len(files), warning=said_of_masks(files))


def photographs_of(pairs: Pairs, given: Path | None) -> Photographs | None:
    """The photographs without labels of a domain; None where there are none.

    Args:
        pairs: its files. Where no folder was found beside them, training images without a mask are the photographs.
        given: their folder, where it was named.

    Raises:
        DataError: the folder holds none.
    """
    layout = pairs.layout
    images = Path(layout.images.replace("{split}", layout.splits.get("train", "")))
    unmasked = [path for path in pairs.unmasked.get("train", ()) if path not in pairs.unread]
    apart = layout.masks is not None and layout.masks != layout.images and "train" not in layout.without_masks
    if folder := given or layout.unlabelled:
        found = find_photographs(Path(folder))
        if not (apart and found.folder.is_dir() and images.is_dir() and found.folder.samefile(images)):
            return found
        if not unmasked:
            raise DataError(f"{images}: every image in it has a mask, and none is left as a photograph without labels")
    return Photographs(images, len(unmasked), without_masks=True) if unmasked and apart else None


def said_of_masks(files: Mapping[str, Path], labelled: bool = False) -> str:
    """A sentence on files that were given as photographs and look like masks; empty where there are none.

    Args:
        files: by their names below the folder of the photographs.
        labelled: they are the images of a split, which could have these masks, and not further photographs.
    """
    masks = look_like_masks(files)
    if not masks:
        return ""
    folders = sorted({files[name].parent for name in masks})
    more = f" and {len(folders) - 1} more folders" if len(folders) > 1 else ""
    where = f"{folders[0]}{more}"
    remedy = f"set `data.target.unlabelled` to a folder that holds photographs alone, or move the masks out of {where}"
    if labelled:
        remedy = f"set `data.target.masks` to the folder of the masks, also where they lie among the images ({where})"
    return (
        f"{len(masks)} of the {len(files)} photographs without masks look like masks, e.g. {files[masks[0]]}, and would be "
        f"trained on as photographs: {remedy}"
    )


def look_like_masks(files: Mapping[str, Path]) -> list[str]:
    """The names of files that look like masks.

    Those of a folder, or with an end of their stems, that is named as masks are, and which hold few colours; and those of a
    folder of masks by its name (`segzoo.data.layouts.MASKS`) beside files of the same stems.

    Args:
        files: by their names below the folder of the photographs.
    """
    groups: dict[tuple[Path, bool], list[str]] = {}
    stems = Counter(letters(path.stem) for path in files.values())
    for name, path in files.items():
        match = MASK_END.fullmatch(name)
        groups.setdefault((path.parent, match is not None and match[1] in files), []).append(name)
    found: list[str] = []
    for (folder, beside_its_image), names in groups.items():
        parts = [part.lower() for part in (*PurePosixPath(names[0]).parent.parts, folder.name)]
        paired = any(stems[letters(files[name].stem)] > 1 for name in names)
        named = any(MASK_WORD.search(part) and part not in UNLABELLED for part in parts)
        if (paired and any(part in MASKS for part in parts)) or (
            (named or beside_its_image) and _hold_few_colours([files[name] for name in names])
        ):
            found += names
    return found


def _hold_few_colours(files: Sequence[Path]) -> bool:
    counts = []
    for i in evenly(len(files), SAMPLE):
        try:
            with opened(files[i], "image") as file:
                pixels = np.asarray(file)
        except DataError:  # a survey names it
            continue
        if pixels.ndim > 2:
            pixels = packed(pixels[..., :3].astype(np.uint8)) if pixels.shape[2] >= 3 else pixels[..., 0]
        rows, columns = (1 + side // SIDE for side in pixels.shape)
        counts.append(np.unique(pixels[::rows, ::columns]).size)
    return bool(counts) and max(counts) <= FEW
