"""Which image shows the same place as another one: by the name of the file, or by lists of pairs."""

import csv
import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from segzoo.data.files import letters
from segzoo.errors import DataError

IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def match_references(
    images: Sequence[str], references: Iterable[str], folder: Path, pairs: Mapping[str, str] | None
) -> dict[str, str]:
    """The reference of every image.

    Args:
        images: names (relative stems without suffix) of the images.
        references: those of the reference images.
        folder: of the reference images, for messages.
        pairs: image to reference by the last part of the name, see `read_pairs`; None: both have the same name.

    Returns:
        image name to reference name.

    Raises:
        DataError: an image without a reference.
    """
    known = set(references)
    if pairs is not None:
        known_by_last = {PurePosixPath(name).name: name for name in known}
    found = {}
    for name in images:
        reference = name if pairs is None else known_by_last.get(pairs.get(PurePosixPath(name).name, ""), "")
        if reference not in known:
            listed = "" if pairs is None else " that the pairs list for it"
            raise DataError(f"there is no reference image in {folder} for the image {name}{listed}; add it")
        found[name] = reference
    return found


def find_pairs(root: Path, pattern: str, suffix: str) -> dict[str, str]:
    """Reads all lists of pairs below a data root that a pattern finds, see `read_pairs`.

    Raises:
        DataError: there is none, or one of them is wrong.
    """
    # The root is no part of the pattern: brackets in it mean themselves.
    base, wanted = root.expanduser(), str(Path(pattern).expanduser())
    files = sorted(base / file for file in glob.glob(wanted, root_dir=base, recursive=True))
    if not files:
        raise DataError(f"there is no file {base / wanted}: reference_pairs are lists of which images belong together")
    return read_pairs(files, suffix)


def read_pairs(files: Sequence[Path], suffix: str) -> dict[str, str]:
    """Reads lists of pairs: CSV files without header, an image and its reference per row; further columns are ignored, and so
    are rows that begin with ``#``.

    Entries may be paths and may end in the suffix of image files; what counts is the last part, as in Dark Zurich's
    ``corresp/train/night/*_ref_day.csv``.

    Raises:
        DataError: a row that is no pair, two references of one image, or a file that is no text in UTF-8.
    """
    pairs: dict[str, str] = {}
    for file in files:
        for number, row in enumerate(_rows(file), 1):
            if not "".join(row).strip() or row[0].lstrip().startswith("#"):
                continue
            if len(row) < 2 or not all(entry.strip() for entry in row[:2]):
                raise DataError(f"{file}, line {number}: expected an image and its reference, found '{','.join(row)}'")
            image, reference = (_last(entry, suffix) for entry in row[:2])
            if pairs.setdefault(image, reference) != reference:
                raise DataError(
                    f"{file}, line {number}: {image} has the reference {reference} here and {pairs[image]} before"
                )
    return pairs


def _rows(file: Path) -> list[list[str]]:
    try:
        # Spreadsheets begin UTF-8 with a mark, which is no letter of the first name.
        with file.open(newline="", encoding="utf-8-sig") as lines:
            return list(csv.reader(lines))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is not a text file with a pair per row ({error}): save it as CSV in UTF-8") from error


def _last(entry: str, suffix: str) -> str:
    """The last part of a path, without the ending of image files."""
    name = PurePosixPath(letters(entry).strip().replace("\\", "/")).name
    stem, dot, ending = name.rpartition(".")
    is_file = dot and f".{ending.lower()}" in IMAGE_TYPES  # else the dot is part of the name
    return (stem if is_file else name).removesuffix(suffix)
