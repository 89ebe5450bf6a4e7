"""Which files of two folders belong together: those of one stem."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segzoo.data.files import letters, walk
from segzoo.data.folder_names import filled, matching_folders
from segzoo.data.references import IMAGE_TYPES
from segzoo.errors import DataError

LOSSY_TYPES = (".jpg", ".jpeg", ".webp")
"""Endings of files that do not keep the ids of a mask."""
UNMASKED = (
    "; photographs to train on without masks: name their folder, which may be that of the training images itself, as "
    "`data.target.unlabelled`"
)


@dataclass(frozen=True)
class Affixes:
    """What stems have beside the name that an image shares with its mask.

    Attributes:
        suffix: their end, e.g. ``_leftImg8bit``.
        prefix: their beginning, e.g. ``rgb_``.
    """

    suffix: str = ""
    prefix: str = ""

    def fits(self, stem: str) -> bool:
        """Whether a stem begins and ends so, with something in between."""
        return (
            stem.startswith(self.prefix)
            and stem.endswith(self.suffix)
            and len(stem) > len(self.prefix) + len(self.suffix)
        )

    def removed(self, stem: str) -> str:
        """What a stem that fits has in between."""
        return stem.removesuffix(self.suffix).removeprefix(self.prefix)


NONE = Affixes()
"""Of images and masks whose stems are the same."""


def files_by_stem(folder: Path, what: str, types: Sequence[str], affixes: Affixes) -> dict[str, Path]:
    """Files of a folder and its sub-folders by relative stem without suffix and prefix, in one form of Unicode (`letters`).

    In a folder whose path has ``*``, names begin with what these stand for: ``rgb/fog/train/7.png`` is ``fog/7`` in
    ``rgb/*/train``. The stem of ``7.jpg.json`` is that of the image which it describes, 7.

    Args:
        folder: where they lie.
        what: they are called in errors, ``image`` or ``mask``.
        types: endings, in small letters.
        affixes: what every stem has in addition; other files are skipped.

    Raises:
        DataError: no such folder, no such file, or two files of one stem.
    """
    files: dict[str, Path] = {}
    others: list[str] = []
    affixes = Affixes(letters(affixes.suffix), letters(affixes.prefix))
    if not matching_folders(folder):
        raise DataError(f"the {what} folder {folder} does not exist")
    for path, name in _with_names(folder, affixes):
        if path.suffix.lower() not in types or name is None:
            others.append(path.name)
            continue
        if name in files:
            first, second = sorted((files[name], path))
            forms = (
                " (the same letters, in two forms of Unicode)" if letters(str(first)) == letters(str(second)) else ""
            )
            raise DataError(f"two {what} files have the same stem: {first} and {second}{forms}; remove or rename one")
        files[name] = path
    if not files:
        ending = f" whose stem ends in '{affixes.suffix}'" if affixes.suffix else ""
        ending += f"{' and' if ending else ' whose stem'} begins with '{affixes.prefix}'" if affixes.prefix else ""
        found = f"; found {len(others)} others, such as {min(others)}" if others else "; it is empty"
        remedy = (
            f": set {what}_suffix and {what}_prefix to what all stems have in addition" if ending and others else ""
        )
        raise DataError(f"no {what}s in {folder}: expected files of type {', '.join(types)}{ending}{found}{remedy}")
    return files


def _with_names(folder: Path, affixes: Affixes) -> Iterator[tuple[Path, str | None]]:
    """The files of a folder, each with the name that it shares with its partner; None where its stem has other affixes."""
    for above, place in matching_folders(folder):
        # Without hidden files, which are leftovers of file managers ("._0001.png" is no image).
        for path in walk(place):
            stem = letters(path.stem)
            if path.suffix.lower() == ".json" and Path(stem).suffix.lower() in IMAGE_TYPES:
                stem = Path(stem).stem
            if not affixes.fits(stem):
                yield path, None
                continue
            yield path, letters((above / path.relative_to(place)).with_name(affixes.removed(stem)).as_posix())


def of_other_endings(folder: Path, affixes: Affixes, known: Container[Path]) -> dict[str, Path]:
    """Files that have a stem as partners have, and an ending that is not read, such as a mask that is a JPEG file.

    Args:
        folder: where they lie.
        affixes: what the stems have in addition.
        known: the files that are read.

    Returns:
        A file by name, as `files_by_stem` gives them.
    """
    affixes = Affixes(letters(affixes.suffix), letters(affixes.prefix))
    return {name: path for path, name in _with_names(folder, affixes) if name is not None and path not in known}


def without_partner(names: Sequence[str], folder: Path, affixes: Affixes) -> list[int]:
    """Positions of the names of which a folder has no file, not even one of an ending that is not read."""
    there = of_other_endings(folder, affixes, ())
    return [position for position, name in enumerate(names) if name not in there]


def said_of_ending(path: Path, what: str) -> str:
    """What is wrong with a file that was meant as an ``image`` or ``mask``, and is not read for its ending."""
    if what == "mask" and path.suffix.lower() in LOSSY_TYPES:
        kind = "WebP" if path.suffix.lower() == ".webp" else "JPEG"
        return f"found {path}: {kind} changes ids, export it as PNG"
    return f"found {path}, and no {what} is read from {path.suffix or 'such'} files: export it as PNG"


def apart(
    images: Mapping[str, Path], masks: Mapping[str, Path], of_images: Affixes, of_masks: Affixes
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks of one folder: a file that could be both is what has more in addition to the name.

    Args:
        images: by name, where the masks may be among them (``7.jpg`` and ``7_mask.png`` are of the images' suffix "").
        masks: by name, where the images may be.
        of_images: what stems of images have in addition.
        of_masks: the same of masks.
    """
    marked = len(of_masks.suffix + of_masks.prefix) >= len(of_images.suffix + of_images.prefix)
    others = set((masks if marked else images).values())
    rest = {name: path for name, path in (images if marked else masks).items() if path not in others}
    return (rest, dict(masks)) if marked else (dict(images), rest)


def check_partners(
    files: dict[str, Path],
    partners: Mapping[str, Path],
    what: str,
    folder: Path,
    affixes: Affixes,
    unpaired: list[str] | None = None,
    may_lack: bool = False,
) -> None:
    """Refuses files that have no partner, or takes them out.

    Args:
        files: by stem.
        partners: the files that they should have, by stem.
        what: the first ones are, ``image`` or ``mask``.
        folder: where the partners lie.
        affixes: what their stems have in addition.
        unpaired: gets a line for each of them when given, and ``files`` loses them; none is refused unless all would be.
        may_lack: a file without a partner is none of these, and no mistake, unless there is one of another ending.

    Raises:
        DataError: the message names the first one, and the option that is missing where all partners have another ending.
    """
    alone = sorted(files.keys() - partners.keys(), key=natural_order)
    if not alone:
        return
    other = "mask" if what == "image" else "image"
    unread = of_other_endings(folder, affixes, {*files.values(), *partners.values()})
    if may_lack and len(alone) < len(files):
        for name in [name for name in alone if name not in unread]:
            del files[name]
        if not (alone := [name for name in alone if name in unread]):
            return

    def found(name: str) -> str:
        if name in unread:
            return said_of_ending(unread[name], other)
        return f"expected {_expected(folder, name, affixes)}"

    if unpaired is not None and len(alone) < len(files):
        lines = {name: f"the {what} {files[name]} has no {other}: {found(name)}" for name in alone}
        if what == "image" and (missing := [name for name in alone if name not in unread]):
            lines[missing[0]] += f"; add it or remove the image{UNMASKED}"  # once for all of them
        unpaired += lines.values()
        for name in alone:
            del files[name]
        return
    first = alone[0]
    more = f" (and {len(alone) - 1} more {what}s without one)" if len(alone) > 1 else ""
    remedy = ""
    if first not in unread:
        remedy = f"; add it or remove the {what}{UNMASKED if what == 'image' else ''}"
        more += _other_ending(first, partners, what, other)
        if not files.keys() & partners.keys():
            more += _two_endings(first, partners, what, other)
    raise DataError(f"the {what} {files[first]} has no {other}{more}: {found(first)}{remedy}")


def _expected(folder: Path, stem: str, affixes: Affixes) -> str:
    """Where the partner of a stem should be."""
    name = PurePosixPath(stem)
    if "*" in str(folder) and not folder.is_dir():  # the first parts of the name are in the folder's
        folder, name = filled(folder, name)
    return f"{folder / name.with_name(f'{affixes.prefix}{name.name}{affixes.suffix}')}.*"


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
