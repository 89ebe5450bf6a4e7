"""Measures rows in processes of their own, whose steps take turns, and says what runs and how long it will take."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segzoo.bench.costs import MIB, StepCost, cosine
from segzoo.bench.kept import KeptStart
from segzoo.bench.process import Process, start, start_here
from segzoo.bench.rows import SUITES, Task
from segzoo.errors import ConfigError, SegzooError

# With these, glibc returns at once what is freed: the peak of a process is then that of its tensors, the same in every run.
# Steps take up to half as long again, so time is measured without.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
MEMORY_WARMUP = 2
"""Optimiser state appears in the first step, gradients to be overwritten in the second."""
COSINE = "cosine"
"""The key of the reference in float64, without which there are no cosines."""
Found = dict[str, dict[str, Any]]


class Runner:
    """Measures rows, each in processes of its own.

    Args:
        task: settings that all rows share.
        folder: for what the processes write.
        rounds: how often the processes that measure time are started.
        write: is given the pieces of a report of what runs, lines and their beginnings.
        one_process: whether this process measures all rows, one after the other.
        kept: the start and its reference of an earlier run, or where to leave them; None: they are this run's own.

    Attributes:
        skipped: the rows that could not be measured, and why.
        environment: device and versions.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        rounds: int,
        write: Callable[[str], object] = lambda text: None,
        one_process: bool = False,
        kept: KeptStart | None = None,
    ) -> None:
        self.folder, self.rounds, self.one_process, self.kept = folder, rounds, one_process, kept
        self.task = replace(task, start=str(kept.start if kept else folder / "start.pt"))
        self.suite = SUITES[task.suite]
        self.write = write
        self.skipped: dict[str, str] = {}
        self.environment: dict[str, Any] = {}
        self._began, self._done, self._total = time.monotonic(), 0, 0

    def run(self, names: Sequence[str]) -> dict[str, StepCost]:
        """The cost of every row that could be measured, in the order of ``names``.

        Raises:
            SegzooError: wrong settings, or a row of our own that fails for another reason than a lack of memory.
        """
        in_order = self.one_process or self.task.device.startswith("cuda")
        found, rounds = (self._in_order if in_order else self._in_turns)(names)
        unit = self.suite.unit
        if not rounds or unit not in rounds[-1]:
            raise SegzooError(f"row '{unit}' could not be measured: {self.skipped[unit]}")
        gradient = found.get(COSINE, {}).get("gradient")
        if self.kept:
            gradient = self.kept.reference(gradient)
        return {
            name: _cost([second for result in rounds for second in result[name]["seconds"]], found[name], gradient)
            for name in names
            if name in rounds[-1]
        }

    def _in_turns(self, names: Sequence[str]) -> tuple[Found, list[Found]]:
        """Peaks and gradients, found in processes of their own, and the rounds, whose processes take turns."""
        self._total = len(self._reference()) + len(names) + self.rounds * (len(names) + self.task.steps)
        found = self._one_by_one(self._reference())
        for name in names:
            task = replace(self.task, row=name, warmup=MEMORY_WARMUP, steps=self._period(name))
            found |= self._one_by_one({f"memory of {name}": task}, ALLOCATOR)
        return found, self._rounds([name for name in names if name in found], self._take_turns)

    def _in_order(self, names: Sequence[str]) -> tuple[Found, list[Found]]:
        """The rounds, whose rows run one after the other. On CUDA, counting peaks costs no time: the first round does."""

        def measure(names: Sequence[str], number: int) -> Found:
            tasks = self._reference() if number == 1 else {}
            return self._one_by_one(tasks | {f"round {number}, {name}": self._timed(name) for name in names})

        self._total = len(self._reference()) + self.rounds * len(names)
        rounds = self._rounds(names, measure)
        return rounds[0], rounds

    def _rounds(self, names: Sequence[str], measure: Callable[[Sequence[str], int], Found]) -> list[Found]:
        """As many as wanted, each of the rows that the one before could measure, while there is the row to compare with."""
        rounds: list[Found] = []
        for number in range(1, self.rounds + 1):
            if self.suite.unit in names:
                rounds.append(measure(names, number))
                names = [name for name in names if name in rounds[-1]]
        return rounds

    def _reference(self) -> dict[str, Task]:
        row = self.suite.reference
        if self.kept and self.kept.has_reference:
            return {}
        return {"reference in float64": replace(self.task, row=row, precision="64", warmup=0, steps=1)}

    def _one_by_one(self, tasks: Mapping[str, Task], environment: Mapping[str, str] | None = None) -> Found:
        """Runs tasks, by their labels, one after the other; before the first one, all their processes import what they need.

        Here and below: what was found by row, with its ``gradient`` if it has one; without rows that failed.
        """
        found: Found = {}
        with ExitStack() as stack:
            running = []
            for label, task in tasks.items():
                task = self._with_files(task)
                running.append((label, task, stack.enter_context(self._start(task, environment or {}))))
            importing = [process for *_, process in running]
            for label, task, process in running:
                self._say(label)
                while importing:
                    importing.pop().await_turn()
                while process.status is None:
                    process.proceed()
                result = self._result(task, process)
                peak = result["peak_bytes"] if result else None
                self._done_with(f"{peak / MIB:.0f} MiB" if peak else self.skipped.get(_key(task), ""))
                if result:
                    found[_key(task)] = result
        return found

    def _take_turns(self, names: Sequence[str], number: int) -> Found:
        """Runs rows whose processes measure one step each in turn."""
        running: dict[str, tuple[Task, Process]] = {}
        with ExitStack() as stack:
            for name in names:
                self._say(f"round {number}, warm-up of {name}")
                task = self._with_files(self._timed(name))
                running[name] = task, stack.enter_context(self._start(task, {}))
                running[name][1].await_turn()
                running[name][1].proceed()
                if running[name][1].status is not None:  # it should wait for its first turn
                    self._result(*running[name])
                self._done_with(self.skipped.get(name, ""))
            for turn in range(self.task.steps):
                self._say(f"round {number}, turn {turn + 1} of {self.task.steps}")
                first = turn % len(names)  # no row shall always come after the same one
                for name in [*names[first:], *names[:first]]:
                    running[name][1].proceed()
                self._done_with("")
        found = {name: self._result(*run) for name, run in running.items()}
        return {name: result for name, result in found.items() if result}

    def _start(self, task: Task, environment: Mapping[str, str]) -> Process:
        return (start_here if self.one_process else start)(task, environment)

    def _timed(self, name: str) -> Task:
        row = self.suite.rows.get(name)
        warmup = max(self.task.warmup, row.warmup if row else 0)
        return replace(self.task, row=name, warmup=warmup, steps=self.task.steps * self._period(name))

    def _with_files(self, task: Task) -> Task:
        stem = f"{task.row.replace('/', '-')}-{task.precision}"
        result, gradient = (self.folder / f"{stem}{ending}" for ending in (".json", ".npy"))
        for path in (result, gradient):
            path.unlink(missing_ok=True)
        return replace(task, result=str(result), gradient=str(gradient))

    def _result(self, task: Task, process: Process) -> dict[str, Any] | None:
        """What a process found; None, and a note, if the row failed."""
        result, gradient = Path(task.result), Path(task.gradient)
        found: dict[str, Any] = json.loads(result.read_text()) if result.is_file() else {}
        failure = found.get("error") or found.get("failed") or (None if found else process.last_words())
        if failure:
            # One process stands for a machine that is lent for minutes: what the other rows found is not thrown away.
            ours = task.row in self.suite.rows and not self.one_process
            if ours and ("error" in found or (process.status or 0) > 0):
                self.write("\n")
                raise ConfigError(failure) if "error" in found else SegzooError(f"row '{task.row}' failed: {failure}")
            self.skipped[_key(task)] = failure
            return None
        self.environment = found["environment"]
        if self.one_process and not self.task.device.startswith("cuda"):
            found["peak_bytes"] = None  # what rows before left in the process would hide it
        if gradient.is_file():
            found["gradient"] = np.load(gradient)
        return found

    def _period(self, name: str) -> int:
        return self.suite.rows[name].period if name in self.suite.rows else 1

    def _say(self, label: str) -> None:
        self.write(f"{self._done + 1}/{self._total}  {label} ... ")

    def _done_with(self, text: str) -> None:
        self._done += 1
        left = (time.monotonic() - self._began) / self._done * (self._total - self._done)
        self.write("; ".join(filter(None, (text, f"about {_duration(left)} left" if left else ""))) + "\n")


def _key(task: Task) -> str:
    return COSINE if task.precision == "64" else task.row


def _cost(seconds: Sequence[float], alone: Mapping[str, Any], truth: Any) -> StepCost:
    gradient = alone.get("gradient")
    likeness = None if gradient is None or truth is None else cosine(gradient, truth)
    return StepCost(tuple(seconds), alone["peak_bytes"], likeness)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
