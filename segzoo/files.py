"""Writing files: an error names its file, and what was begun and not finished does not stay. Free of torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def named_errors(path: str | Path) -> Iterator[None]:
    """A failed write says what it wrote: the system's own error (a full disk, a limit) does not.

    Args:
        path: the file or folder that is written inside.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def whole_file(path: Path, sync: bool = False) -> Iterator[Path]:
    """Where to write a file that takes its name only when it is whole; on an error nothing of it stays.

    Args:
        path: the file; its folder is created.
        sync: have it on the disk before it takes its name, or a power cut could leave the name without the content.

    Yields:
        The path to write, beside it.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with named_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            if sync:
                with partial.open("rb") as file:
                    os.fsync(file.fileno())
            partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Replaces a file by a new one.

    Args:
        path: the file; its folder is created.
        text: its content.
    """
    with whole_file(path, sync=True) as partial:
        # Whatever the system's encoding: YAML is read as UTF-8, and names of files may be no text at all.
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")
