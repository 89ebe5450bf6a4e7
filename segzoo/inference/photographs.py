"""What is labelled: the image files of a folder, and what there is to say of the others."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from segzoo.data.files import kind_of, walk
from segzoo.data.layouts import IMAGES, MASKS
from segzoo.data.references import IMAGE_TYPES
from segzoo.errors import DataError
from segzoo.inference.videos import VIDEO_TYPES

FURTHER_TYPES = (".gif", ".avif", ".jfif", ".heic", ".heif")
"""Labelled too where the installed Pillow has a reader."""
SEVERAL = (".gif", ".tif", ".tiff", ".png", ".webp", ".avif")
"""Files that may hold more than one picture. (A second one in a camera's JPEG is a preview or a depth map.)"""
NAMED = 5


def find_images(path: Path, videos: dict[str, Path] | None = None) -> tuple[dict[str, Path], list[str]]:
    """The images of a folder and its sub-folders, or the one image that ``path`` is.

    Args:
        path: the folder, or the image.
        videos: gets the videos by name, if it is given; then there need be no images.

    Returns:
        the files by name (the path below the folder, without ending), and what is no image, to be named.

    Raises:
        DataError: there are none, or two of one name: what is written for them would be one file.
    """
    types = readable_types()
    if path.is_file() and videos is not None and path.suffix.lower() in VIDEO_TYPES:
        videos[path.stem] = path
        return {}, []
    if path.is_file():
        if path.suffix.lower() not in types:
            raise DataError(f"{path}: expected a folder, or an image of type {', '.join(types)}")
        return {path.stem: path}, []
    if not path.is_dir():
        what = f"is {kind_of(path)}" if path.exists() else "does not exist"
        raise DataError(f"{path} {what}; expected an image, or a folder of images")
    special: list[Path] = []
    files: dict[str, Path] = {}
    others: list[str] = []
    twice: list[tuple[Path, Path, str]] = []
    for file in walk(path, special):
        name = file.relative_to(path).with_suffix("").as_posix()
        if videos is not None and file.suffix.lower() in VIDEO_TYPES:
            # Its frames lie in a folder of its name: of two videos of one name the second keeps its ending.
            videos[f"{name}{file.suffix}" if name in videos else name] = file
            continue
        if file.suffix.lower() not in types:
            others.append(str(file.relative_to(path)))
            continue
        if name in files:
            twice.append((files[name], file, name))
        files.setdefault(name, file)
    if twice:
        one, other, name = twice[0]
        more = f" (and {len(twice) - 1} more of the kind)" if len(twice) > 1 else ""
        raise DataError(
            f"{one} and {other} have the same name but for the ending{more}, and would both be written to "
            f"labels/{name}.png; rename one, or give them folders of their own"
        )
    others += [f"{file.relative_to(path)} ({kind_of(file)})" for file in special]
    if not files and not videos:
        raise DataError(f"no images in {path}: expected files of type {', '.join(types)}{_found(others)}")
    return files, others


def apart_from_masks(files: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, int]]:
    """Leaves out the masks of a data set that is labelled as a whole: folders named like masks, beside one named like images.

    Args:
        files: by name, the path below a folder.

    Returns:
        The others, and how many were left out by their folder.
    """
    folders = {folder for name in files for folder in PurePosixPath(name).parents}
    with_images = {folder.parent for folder in folders if folder.name.casefold() in IMAGES}
    of_masks = {folder for folder in folders if folder.name.casefold() in MASKS and folder.parent in with_images}
    kept, left = dict[str, Path](), Counter[str]()
    for name, path in files.items():
        around = [folder for folder in PurePosixPath(name).parents if folder in of_masks]
        if around:
            left[str(around[-1])] += 1
        else:
            kept[name] = path
    return kept, left


def readable_types() -> tuple[str, ...]:
    """Endings of the files that are labelled."""
    from PIL import Image

    known = Image.registered_extensions()
    return (*IMAGE_TYPES, *(ending for ending in FURTHER_TYPES if known.get(ending) in Image.OPEN))


def check_apart(names: Sequence[str], folder: Path) -> None:
    """Refuses names that are one on a file system which does not tell capitals from small letters.

    Args:
        names: of the images.
        folder: an existing one on that file system.

    Raises:
        DataError: two such names, and it is such a file system.
    """
    other_case = folder.with_name(folder.name.swapcase())
    if not other_case.exists() or not other_case.samefile(folder):
        return
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise DataError(f"{other} and {name} would be one file in {folder}, which ignores capitals; rename one")


def count_pictures(path: Path) -> int:
    """How many pictures a file holds: pages, or frames of an animation."""
    if path.suffix.lower() not in SEVERAL:
        return 1
    from PIL import Image

    try:
        with Image.open(path) as file:
            return int(getattr(file, "n_frames", 1))
    except Exception:  # its first picture was read: what a decoder says of the others does not matter
        return 1


def said_at_the_end(others: Sequence[str], masks: Mapping[str, int], several: Mapping[str, int]) -> list[str]:
    """A line each on masks, on other files that were not labelled, and on those of which only the first picture was."""
    lines = []
    if masks:
        folders = first_of([f"{folder} ({count} file{'s' * (count > 1)})" for folder, count in masks.items()])
        lines.append(f"not labelled, as masks that lie beside images: {folders}")
    if others:
        what = "1 file was" if len(others) == 1 else f"{len(others)} files were"
        lines.append(f"{what} not labelled: {first_of(others)}; convert images to PNG or JPEG")
    if several:
        of = [f"{path} (1 of {count})" for path, count in several.items()]
        what = "1 file" if len(of) == 1 else f"{len(of)} files"
        lines.append(f"only the first picture of {what} was labelled: {first_of(of)}; save the others as files")
    return lines


def first_of(names: Sequence[str]) -> str:
    """The first few, separated by commas."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f", ... and {more} more" if more > 0 else "")


def _found(others: Sequence[str]) -> str:
    return f"; found {first_of(others)}" if others else ""
