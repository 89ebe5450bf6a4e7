"""Starts the measuring processes one after the other, and says what runs and how long it will take."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segzoo.cli.bench.rows import SUITES, Task
from segzoo.errors import ConfigError, SegzooError
from segzoo.evaluation.benchmark import MIB, StepCost, cosine

# With these, glibc returns at once what is freed: the peak of a process is then that of its tensors, the same in every run.
# Steps take up to half as long again, so time is measured without.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
MEMORY_WARMUP = 2
"""Optimiser state appears in the first step, gradients to be overwritten in the second."""


class Runner:
    """Measures rows, each in processes of its own.

    Args:
        task: settings that all rows share.
        folder: for what the processes write.
        rounds: how often the time of all rows is measured.

    Attributes:
        skipped: the rows that could not be measured, and why.
        environment: device and versions.
    """

    def __init__(self, task: Task, folder: Path, rounds: int) -> None:
        start, result, gradient = (str(folder / name) for name in ("start.pt", "result.json", "gradient.npy"))
        self.task = replace(task, start=start, result=result, gradient=gradient)
        self.suite, self.rounds = SUITES[task.suite], rounds
        self.skipped: dict[str, str] = {}
        self.environment: dict[str, Any] = {}
        self._began, self._done, self._total = time.monotonic(), 0, 0

    def run(self, names: Sequence[str]) -> dict[str, StepCost]:
        """The cost of every row that could be measured, in the order of ``names``.

        Raises:
            SegzooError: wrong settings, or a row of our own that fails for another reason than a lack of memory.
        """
        self._total = 1 + len(names) * (1 + self.rounds)
        reference = replace(self.task, row=self.suite.reference, precision="64", warmup=0, steps=1)
        truth = (self._measure(reference, "reference in float64") or {}).get("gradient")
        alone: dict[str, dict[str, Any]] = {}
        for name in names:
            task = replace(self.task, row=name, warmup=MEMORY_WARMUP, steps=self._period(name))
            found = self._measure(task, f"memory of {name}", ALLOCATOR)
            if found:
                alone[name] = found
        seconds: dict[str, list[float]] = {name: [] for name in alone}
        for turn in range(self.rounds):
            for name in list(seconds):
                steps = self._period(name) * math.ceil(self.task.steps / self._period(name))
                found = self._measure(replace(self.task, row=name, steps=steps), f"round {turn + 1}, {name}")
                if found:
                    seconds[name] += found["seconds"]
                else:
                    del seconds[name]
        unit = self.suite.unit
        if unit not in seconds:
            raise SegzooError(f"the row '{unit}' could not be measured: {self.skipped[unit]}")
        return {name: _cost(times, alone[name], truth) for name, times in seconds.items()}

    def _measure(self, task: Task, label: str, environment: Mapping[str, str] | None = None) -> dict[str, Any] | None:
        """What a process found, with its ``gradient`` if it has one; None, and a note, if the row failed."""
        print(f"{self._done + 1}/{self._total}  {label} ...", end=" ", flush=True)
        result, gradient = Path(task.result), Path(task.gradient)
        for path in (result, gradient):
            path.unlink(missing_ok=True)
        done = start(task, environment or {})
        found: dict[str, Any] = json.loads(result.read_text()) if result.is_file() else {}
        self._done += 1
        failure = found.get("error") or found.get("failed") or (None if found else _last_words(done))
        if failure:
            print(failure, flush=True)
            if "error" in found and task.row in self.suite.rows:
                raise ConfigError(failure)
            if done.returncode > 0 and task.row in self.suite.rows:
                raise SegzooError(f"the row '{task.row}' failed: {failure}")
            self.skipped["cosine" if task.precision == "64" else task.row] = failure
            return None
        self.environment = found["environment"]
        if gradient.is_file():
            found["gradient"] = np.load(gradient)
        print(self._report(found, memory=environment is not None), flush=True)
        return found

    def _period(self, name: str) -> int:
        return self.suite.rows[name].period if name in self.suite.rows else 1

    def _report(self, found: Mapping[str, Any], memory: bool) -> str:
        peak = found["peak_bytes"]
        text = f"{np.median(found['seconds']):.3f} s"
        if memory:
            text = "unknown on this system" if peak is None else f"{peak / MIB:.0f} MiB"
        left = (time.monotonic() - self._began) / self._done * (self._total - self._done)
        return text if not left else f"{text}; about {_duration(left)} left"


def start(task: Task, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Runs a measuring process, with further environment variables, to its end."""
    threads = {"OMP_NUM_THREADS": str(task.threads)} if task.threads else {}
    return subprocess.run(
        [sys.executable, "-m", "segzoo.cli.bench.measure", task.to_json()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **threads, **environment},
    )


def _cost(seconds: Sequence[float], alone: Mapping[str, Any], truth: Any) -> StepCost:
    gradient = alone.get("gradient")
    likeness = None if gradient is None or truth is None else cosine(gradient, truth)
    return StepCost(tuple(seconds), alone["peak_bytes"], likeness)


def _last_words(done: "subprocess.CompletedProcess[str]") -> str:
    if done.returncode < 0:  # what a system short of memory does
        return f"killed by signal {-done.returncode}"
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit status {done.returncode}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
