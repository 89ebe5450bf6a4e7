"""One writer per folder: a lock that dies with its process. Free of torch."""

import contextlib
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from segzoo.errors import ConfigError

try:
    import fcntl
except ImportError:  # no such locks there
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


class FolderLock:
    """Held from its creation until `release`, or until this process is gone, however it ends.

    The file says who holds it; the lock itself is the system's. Where the file system has no locks, nobody is refused.

    Args:
        folder: an existing folder.
        name: of the file in it.

    Raises:
        ConfigError: another process holds it.
    """

    def __init__(self, folder: Path, name: str = NAME) -> None:
        self.path = folder / name
        self._file = -1
        if fcntl is None:
            return
        while self._file < 0:
            try:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError:  # what cannot be written here is somebody else's to say
                return
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(file, 1000, 0).decode(errors="replace").strip()
                os.close(file)
                raise ConfigError(
                    f"{folder} is being written by another process ({holder or 'which has just begun'}); wait for its end, or "
                    "write to another folder"
                ) from None
            except OSError:  # a file system without locks
                os.close(file)
                return
            if not _is_at(file, self.path):  # its holder removed it in the meantime
                os.close(file)
                continue
            self._file = file
        with contextlib.suppress(OSError):  # the lock holds on a full disk too
            os.ftruncate(self._file, 0)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            os.pwrite(self._file, f"process {os.getpid()} on {platform.node()}, since {now}\n".encode(), 0)
        _HELD.add(self)

    def release(self) -> None:
        """Lets others write; nothing when it is not held."""
        if self._file < 0:
            return
        with contextlib.suppress(OSError):
            if _is_at(self._file, self.path):
                self.path.unlink()
        self._forget()

    def _forget(self) -> None:
        file, self._file = self._file, -1
        _HELD.discard(self)
        with contextlib.suppress(OSError):
            os.close(file)


_HELD: set[FolderLock] = set()


def _after_fork() -> None:
    # A loader's worker that outlives its parent must not hold the folder. Closing does not unlock: the parent's still counts.
    for lock in list(_HELD):
        lock._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def release_all() -> None:
    """Releases what this process holds."""
    for lock in list(_HELD):
        lock.release()


@contextlib.contextmanager
def locked(folder: Path, name: str = NAME) -> Iterator[None]:
    """Holds the lock of a folder for a while; see `FolderLock`.

    Raises:
        ConfigError: another process holds it.
    """
    lock = FolderLock(folder, name)
    try:
        yield
    finally:
        lock.release()


def _is_at(file: int, path: Path) -> bool:
    try:
        there = path.stat()
    except OSError:
        return False
    return os.path.samestat(os.fstat(file), there)
