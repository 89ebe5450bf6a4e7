"""Standard streams that may be closed, full or gone: what a command prints is worth less than what it does. Free of torch."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class Tolerant:
    """A text stream that drops what cannot be written, after the first failure silently, and writes a line at once.

    `print` hands over a line and its end one after the other; an unbuffered stream writes both by themselves, and the
    lines of several processes would run into each other.

    Args:
        stream: the stream itself.

    Attributes:
        error: the first failure.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None
        self._begun = ""

    def write(self, text: str) -> int:
        """Writes, or does nothing. A line that has no end yet waits for it, or for `flush`."""
        self._begun += text
        if "\n" in text:
            self._send()
        return len(text)

    def flush(self) -> None:
        """Flushes, or does nothing."""
        self._send()
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def _send(self) -> None:
        text, self._begun = self._begun, ""
        if text and self.error is None:
            try:
                self._stream.write(self._encodable(text))
            except OSError as error:
                self._give_up(error)

    def _encodable(self, text: str) -> str:
        """What the stream's encoding can hold; letters that it lacks, or bytes in a file's name, as Python writes them."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            text.encode(encoding, getattr(self._stream, "errors", None) or "strict")
        except UnicodeEncodeError:
            return text.encode(encoding, "backslashreplace").decode(encoding)
        return text

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
    out, err = (Tolerant(stream or open(os.devnull, "w")) for stream in before)  # noqa: SIM115
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
