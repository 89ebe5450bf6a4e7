"""The files of a folder, each once."""

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from segzoo.errors import DataError

LEFTOVERS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
"""Folders that systems and file servers add by themselves: previews, what was deleted, what a repair found."""


def walk(folder: Path, special: list[Path] | None = None) -> Iterator[Path]:
    """The files of a folder and of its sub-folders, in order of their names; hidden ones and `LEFTOVERS` are left out.

    Links are followed, but every folder is visited once, by its own name where it has one here, and never one that holds
    ``folder``: a link to its own folder, or to one above, repeats nothing. What is no regular file (a named pipe, a socket,
    a device) would hang or never end when opened and is left out. A link to nowhere is given: who reads it says so.

    Args:
        folder: where to look.
        special: gets what is no regular file, when given.

    Raises:
        DataError: a folder that cannot be read; its files would be missing without a word.
    """
    seen = {_identity(parent) for parent in (folder.resolve(), *folder.resolve().parents)}
    linked = [folder]
    while linked:
        start, found = linked.pop(0), []
        if start != folder:
            if _identity(start) in seen:
                continue
            seen.add(_identity(start))
        for parent, folders, names in os.walk(start, onerror=_refuse):
            kept = sorted(name for name in folders if not name.startswith(".") and name not in LEFTOVERS)
            found += [Path(parent, name) for name in kept if Path(parent, name).is_symlink()]
            folders[:] = []
            for name in kept:
                path = Path(parent, name)
                if not path.is_symlink() and _identity(path) not in seen:
                    seen.add(_identity(path))
                    folders.append(name)
            for name in sorted(names):
                path = Path(parent, name)
                if name.startswith("."):
                    continue
                if os.path.isfile(path) or not os.path.exists(path):
                    yield path
                elif special is not None:
                    special.append(path)
        linked += found


def fingerprint_of(files: Sequence[Path], head: str) -> str | None:
    """A hash of the files' paths, sizes and times, after a text; None where one of them is missing."""
    digest = hashlib.sha256(head.encode())
    for path in map(Path.absolute, files):
        try:
            status = path.stat()
        except OSError:  # a link to nowhere: reading the file says what is wrong with it
            return None
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def letters(text: str) -> str:
    """A name in Unicode's form NFC: macOS writes ``ü`` as a ``u`` and two dots, most other systems as one letter."""
    return unicodedata.normalize("NFC", text)


def spelled(path: Path) -> Path:
    """A path as it is written on the disk, where its letters are there in another form; else the path itself."""
    if path.is_absolute() or path.parts:
        there = Path(path.anchor)
        for part in path.parts[bool(path.anchor) :]:
            if part.isascii() or os.path.lexists(there / part) or not there.is_dir():
                there /= part
                continue
            try:
                same = [name for name in os.listdir(there) if letters(name) == letters(part)]
            except OSError:
                return path
            there /= same[0] if len(same) == 1 else part
        return there
    return path


def kind_of(path: Path) -> str:
    """What a file is that is no regular one."""
    mode = path.stat().st_mode
    kinds = {stat.S_ISFIFO: "a named pipe", stat.S_ISSOCK: "a socket"}
    return next((name for check, name in kinds.items() if check(mode)), "a device")


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        _refuse(error)
    return status.st_dev, status.st_ino


def _refuse(error: OSError) -> NoReturn:
    raise DataError(
        f"cannot read the folder {error.filename}: {error.strerror}; its files would be left out"
    ) from error
