"""Progress of a command that makes one file after another."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS = 10.0
"""Between two lines in a log file."""


@contextmanager
def counting(total: int, unit: str = "image") -> Iterator[Callable[[int], None]]:
    """Shows on stderr how many are done: a bar on a terminal, else a line every `SECONDS`.

    Args:
        total: how many there are to do.
        unit: what they are.

    Yields:
        to be called with how many more are done.
    """
    from tqdm import tqdm

    started = printed = time.monotonic()
    done = 0
    with tqdm(total=total, unit=unit, disable=not sys.stderr.isatty()) as bar:

        def update(count: int) -> None:
            nonlocal done, printed
            done += count
            bar.update(count)
            now = time.monotonic()
            if bar.disable and now - printed >= SECONDS and done < total:
                printed, rate = now, done / (now - started)
                left = tqdm.format_interval((total - done) / rate) if rate else "?"
                print(f"{done} of {total} {unit}s, {rate:.2f} {unit}s/s, {left} left", file=sys.stderr, flush=True)

        yield update
