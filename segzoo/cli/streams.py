"""Standard streams that may be closed, full or gone: what a command prints is worth less than what it does. Free of torch."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class Tolerant:
    """A text stream that drops what cannot be written, after the first failure silently.

    Args:
        stream: the stream itself.

    Attributes:
        error: the first failure.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Writes, or does nothing."""
        if self.error is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flushes, or does nothing."""
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        self.error = error
        # What is still in the stream's buffer must not fail again when Python ends.
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


@contextmanager
def tolerant_streams() -> Iterator[Tolerant]:
    """Makes standard output and error tolerant, and opens those that are closed to nothing.

    Without that a file that is opened later would get the number of a closed stream, and with it all that others print.

    Yields:
        Standard output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one
    before = sys.stdout, sys.stderr
    out = Tolerant(before[0] or open(os.devnull, "w"))  # noqa: SIM115
    sys.stdout = out
    sys.stderr = Tolerant(before[1] or open(os.devnull, "w"))  # noqa: SIM115
    try:
        yield out
        out.flush()
    finally:
        sys.stdout, sys.stderr = before
