"""What a terminal shows of a study while it runs: every training with its step, and the time that is left."""

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

STEP = re.compile(rb"^step (\d+)/(\d+) [^\n]*$", re.MULTILINE)
LEFT = re.compile(r", ([\d:]+) left")
TAIL = 4096
"""Bytes at the end of a log that hold its last line of progress."""


@dataclass
class Shown:
    """A training that runs.

    Attributes:
        log: file of what it prints.
        place: the device it was given; empty where none was.
        began: when it did, in seconds.
    """

    log: Path
    place: str
    began: float


class StudyDisplay:
    """A context that shows all trainings in a terminal; elsewhere only the lines that it is told.

    Args:
        pending: trainings that are not complete, by their names, and what each costs beside the others.
        jobs: of them at a time.
        console: where it is shown; None: standard output.
        clock: seconds that pass.
    """

    def __init__(
        self,
        pending: Mapping[str, float],
        jobs: int,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or Console()
        self._pending, self._jobs, self._clock = dict(pending), jobs, clock
        self._running: dict[str, Shown] = {}
        self._took: list[tuple[float, float]] = []
        """Seconds and cost of the trainings that have ended."""
        self._changing = threading.Lock()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(console=self.console, get_renderable=self.table, refresh_per_second=1, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, line: str) -> None:
        """Prints a line, above the table where there is one."""
        if self._live is not None:
            self.console.print(line, markup=False, highlight=False)
        else:
            print(line, flush=True)

    def begin(self, name: str, log: Path, place: str = "") -> None:
        """A training begins.

        Args:
            name: of its run.
            log: file of what it prints.
            place: the device it was given.
        """
        with self._changing:
            self._running[name] = Shown(log, place, self._clock())

    def end(self, name: str) -> None:
        """A training has come to its end, whatever it was."""
        with self._changing:
            shown = self._running.pop(name)
            self._took.append((self._clock() - shown.began, self._pending.pop(name)))

    def seconds_left(self) -> float | None:
        """Of the whole study, from how long its trainings take and what they cost; None before anything is known of them."""
        with self._changing:
            running = {name: (shown.began, *self._projected(shown)) for name, shown in self._running.items()}
            known = self._took or [
                (whole, self._pending[name]) for name, (_, whole, _) in running.items() if whole is not None
            ]
            waiting = sum(cost for name, cost in self._pending.items() if name not in running)
            costs = dict(self._pending)
        if not known:
            return None
        unit = sum(seconds for seconds, _ in known) / sum(cost for _, cost in known)
        rest = [
            max(0.0, unit * costs[name] - (self._clock() - began)) if left is None else left
            for name, (began, _, left) in running.items()
        ]
        return max([(sum(rest) + waiting * unit) / self._jobs, *rest])

    def time_left(self) -> str:
        """What is said of it at the end of a line; empty where nothing is known, or nothing left to do."""
        left = self.seconds_left() if self._pending else None
        return "" if left is None else f", about {span(left)} left"

    def table(self) -> Table:
        """All trainings that run, a line each."""
        head = f"{len(self._pending)} runs to do{self.time_left()}"
        table = Table(title=head, title_justify="left", box=None, pad_edge=False)
        for name in ("run", "device", "step", "time left", "latest"):
            table.add_column(name, justify="right" if name in ("step", "time left") else "left", no_wrap=True)
        with self._changing:
            running = dict(self._running)
        for name, shown in running.items():
            line = last_line(shown.log)
            match = re.match(r"step (\d+/\d+) \((\d+)%\)(.*)", line)
            step, latest = (
                (f"{match[1]} {match[2]:>3}%", re.sub(LEFT, "", match[3]).lstrip(", ")) if match else ("", "begins")
            )
            _, rest = self._projected(shown)
            table.add_row(name, shown.place, step, "" if rest is None else span(rest), latest)
        return table

    def _projected(self, shown: Shown) -> tuple[float | None, float | None]:
        """How long a training takes as a whole, and how long from now; None before it says so itself."""
        match = LEFT.search(last_line(shown.log))
        if not match:
            return None, None
        rest = 0.0
        for part in match[1].split(":"):
            rest = 60 * rest + float(part)
        return self._clock() - shown.began + rest, rest


def last_line(log: Path) -> str:
    """The last line of progress in a log; empty where there is none yet."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            found = list(STEP.finditer(file.read()))
    except OSError:
        return ""
    return found[-1][0].decode(errors="replace").rstrip() if found else ""


def span(seconds: float) -> str:
    """A time in the two largest units, e.g. ``2 h 05 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
