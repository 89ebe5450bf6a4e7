"""Commands in copies of a process that has imported everything: they begin at once."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

AVAILABLE = sys.platform == "linux"
"""Elsewhere a copy of a process is none that could go on: macOS warns of it, Windows has none."""
KILLED = -9


class WarmProcess:
    """Runs commands in copies of a process that obeys `segzoo.cli.warm`'s orders.

    Args:
        program: that process.
        environment: of it, and of its copies as far as these have none of their own.
    """

    def __init__(self, program: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            process_group=0,
        )
        self._changing = threading.RLock()
        self._results: dict[int, Future[int | None]] = {}
        self._begun: set[int] = set()
        self._ready, self._ordered, self._alive = False, 0, True
        self._listener = threading.Thread(target=self._listen, name="warm", daemon=True)
        self._listener.start()

    def begin(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Future[int | None]:
        """What will be the exit status of a command; None where it does not begin, as that process is gone.

        Args:
            command: its words.
            log: file of what it prints.
            environment: further environment variables.
        """
        result: Future[int | None] = Future()
        with self._changing:
            if not self._alive:
                result.set_result(None)
                return result
            number = self._ordered
            self._ordered += 1
            self._results[number] = result
            order = {"number": number, "words": list(command), "log": str(log), "environment": dict(environment)}
            self._order(order)
        return result

    def signal(self, signum: int) -> None:
        """Sends a signal to all commands that run."""
        with self._changing:
            if self._ready:
                self._order({"signal": signum})
            else:  # it would not listen before it has imported everything, and nothing runs yet
                self._process.kill()

    def end(self) -> None:
        """Ends that process, once its last command has ended."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._listener.join()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _order(self, order: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        words, file = f"{json.dumps(order)}\n".encode(), self._process.stdin.fileno()
        with suppress(BrokenPipeError):  # the listener notices, too
            while words:
                words = words[os.write(file, words) :]

    def _listen(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        for line in self._process.stdout:
            what, *numbers = line.split()
            with self._changing:
                if what == b"ready":
                    self._ready = True
                elif what == b"begun":
                    self._begun.add(int(numbers[0]))
                else:
                    self._begun.discard(int(numbers[0]))
                    self._results.pop(int(numbers[0])).set_result(int(numbers[1]))
        with self._changing:
            self._alive = False
            with suppress(OSError):
                self._process.stdin.close()  # what it has left running notices, saves and ends
            for number, result in self._results.items():
                result.set_result(KILLED if number in self._begun else None)
            self._results.clear()
