"""Arrays kept on disk between runs: written in one step, and drawn anew when a file is damaged."""

import os
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def cache_dir() -> Path:
    """``SEGZOO_CACHE``, else ``XDG_CACHE_HOME/segzoo``, else ``~/.cache/segzoo``."""
    own = os.environ.get("SEGZOO_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "segzoo"


def read_arrays(path: Path, *names: str) -> list[npt.NDArray[Any]] | None:
    """The arrays of these names, or None when there is no such file or it is damaged."""
    if not path.is_file():
        return None
    try:
        # Opened here: of a damaged file NumPy would leave it open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            return [data[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def write_arrays(path: Path, what: str, **arrays: npt.NDArray[Any]) -> None:
    """Writes arrays in one step, so that several processes may write the same file; a read-only cache only warns.

    Args:
        path: an ``.npz`` below :func:`cache_dir`; its name carries everything that the arrays depend on.
        what: what the warning calls them.
        arrays: the arrays by name.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # the names are never `allow_pickle`
        os.replace(temporary, path)
    except OSError as error:
        warnings.warn(
            f"could not cache {what} in {path.parent} ({error}); set SEGZOO_CACHE to a writable folder", stacklevel=3
        )
        if temporary and os.path.exists(temporary):
            os.remove(temporary)
