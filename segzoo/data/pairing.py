"""Which files of two folders belong together: those of one stem."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from segzoo.data.files import walk
from segzoo.errors import DataError


def files_by_stem(folder: Path, what: str, types: Sequence[str], suffix: str) -> dict[str, Path]:
    """Files of a folder and its sub-folders by relative stem without the suffix.

    Args:
        folder: where they lie.
        what: they are called in errors, ``image`` or ``mask``.
        types: endings, in small letters.
        suffix: end of every stem; other files are skipped.

    Raises:
        DataError: no such folder, no such file, or two files of one stem.
    """
    files: dict[str, Path] = {}
    if not folder.is_dir():
        raise DataError(f"the {what} folder {folder} does not exist")
    # Without hidden files, which are leftovers of file managers ("._0001.png" is no image).
    for path in walk(folder):
        if path.suffix.lower() not in types or not path.stem.endswith(suffix) or path.stem == suffix:
            continue
        stem = path.relative_to(folder).with_name(path.stem.removesuffix(suffix)).as_posix()
        if stem in files:
            first, second = sorted((files[stem], path))
            raise DataError(f"two {what} files have the same stem: {first} and {second}; remove or rename one")
        files[stem] = path
    if not files:
        ending = f" whose stem ends in '{suffix}'" if suffix else ""
        raise DataError(f"no {what}s in {folder}: expected files of type {', '.join(types)}{ending}")
    return files


def check_partners(
    files: dict[str, Path],
    partners: Mapping[str, Path],
    what: str,
    folder: Path,
    suffix: str,
    unpaired: list[str] | None = None,
) -> None:
    """Refuses files that have no partner, or takes them out.

    Args:
        files: by stem.
        partners: the files that they should have, by stem.
        what: the first ones are, ``image`` or ``mask``.
        folder: where the partners lie.
        suffix: what their stems end in.
        unpaired: gets a line for each of them when given, and ``files`` loses them; none is refused unless all would be.

    Raises:
        DataError: the message names the first one, and the option that is missing where all partners have another ending.
    """
    alone = sorted(files.keys() - partners.keys(), key=natural_order)
    if not alone:
        return
    other = "mask" if what == "image" else "image"
    if unpaired is not None and len(alone) < len(files):
        unpaired += [f"the {what} {files[name]} has no {other}: expected {folder / name}{suffix}.*" for name in alone]
        for name in alone:
            del files[name]
        return
    more = f" (and {len(alone) - 1} more {what}s without one)" if len(alone) > 1 else ""
    more += _other_ending(alone[0], partners, what, other)
    if not files.keys() & partners.keys():
        more += _two_endings(alone[0], partners, what, other)
    raise DataError(
        f"the {what} {files[alone[0]]} has no {other}{more}: expected "
        f"{folder / alone[0]}{suffix}.*; add it or remove the {what}"
    )


def _other_ending(stem: str, partners: Iterable[str], what: str, other: str) -> str:
    """0001_label.png beside 0001.png: nothing is missing but the option that says so."""
    for name in partners:
        for longer, shorter, kind in ((name, stem, other), (stem, name, what)):
            end = longer.removeprefix(shorter)
            if end != longer and end and not end[0].isdecimal():
                return f"; {kind}s that end in '{end}' need `data.DOMAIN.{kind}_suffix` {end}"
    return ""


def _two_endings(stem: str, partners: Iterable[str], what: str, other: str) -> str:
    """Cityscapes: a_leftImg8bit.png, and a_gtFine_labelIds.png beside masks of other kinds."""
    for name in sorted(partners, key=lambda name: ("label" not in name.lower(), name)):
        if match := re.fullmatch(r"(.+)([_.-]\D.*)\n\1([_.-]\D.*)", f"{stem}\n{name}"):
            _, own, their = match.groups()
            return (
                f"; where {what}s end in '{own}' and {other}s in '{their}', set `data.DOMAIN.{what}_suffix` {own} and "
                f"`data.DOMAIN.{other}_suffix` {their}"
            )
    return ""


def natural_order(stem: str) -> list[tuple[int, int, str]]:
    """Sort key that puts frame 9 before frame 10."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", stem) if part]
