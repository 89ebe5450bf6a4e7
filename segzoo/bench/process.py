"""A measuring process that takes its turns when told, and what stands for one where all rows share a process."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Self

from segzoo.bench.rows import WAITS, Task


class Process:
    """A context: at its begin the process is started, at its end it is killed if it still runs.

    Args:
        command: program and arguments. It writes `WAITS` before every turn, and then reads a line.
        environment: further environment variables.

    Attributes:
        output: the lines that it wrote.
        status: how it ended; None while it has not.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.output: list[str] = []
        self.status: int | None = None
        self._command, self._environment = command, environment

    def await_turn(self) -> None:
        """Returns when it waits for its next turn, or has ended."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.rstrip() == WAITS:
                return
            self.output.append(line)
        self.status = self._process.wait()

    def proceed(self) -> None:
        """One turn, until it waits again or ends; nothing if it has ended."""
        if self.status is not None:
            return
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died while it waited
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        self.await_turn()

    def last_words(self) -> str:
        """Why it failed, in a line."""
        assert self.status is not None
        if self.status < 0:  # what a system short of memory does
            return f"killed by signal {-self.status}"
        lines = [line.strip() for line in self.output if line.strip()]
        return lines[-1] if lines else f"exit status {self.status}"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **self._environment},
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is None:
            self._process.kill()
            self.status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


class Here(Process):
    """A task that this process measures when it is told to proceed, all its turns at once.

    The seconds that a process takes to import everything are paid once. Rows can disturb one another: what one leaves in the
    device's allocator, or a library changes for good, the next one finds.
    """

    def __init__(self, task: Task) -> None:
        self.output: list[str] = []
        self.status: int | None = None
        self._task = task

    def await_turn(self) -> None:
        """It is always its turn."""

    def proceed(self) -> None:
        """Measures; nothing if it has."""
        if self.status is not None:
            return
        from segzoo.bench.measure import write_result

        try:
            write_result(self._task)
            self.status = 0
        except Exception as error:
            self.output, self.status = [f"{type(error).__name__}: {error}"], 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to end."""


def start(task: Task, environment: Mapping[str, str]) -> Process:
    """The process that measures a task."""
    threads = {"OMP_NUM_THREADS": str(task.threads)} if task.threads else {}
    return Process([sys.executable, "-m", "segzoo.bench.measure", task.to_json()], {**threads, **environment})


def start_here(task: Task, environment: Mapping[str, str]) -> Process:
    """The same task for this process, whose environment stays what it is."""
    return Here(task)
