"""Commands that run beside each other, and end with the process that started them."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

from segzoo.study.warm import AVAILABLE, WarmProcess

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Trainings:
    """A context. Within it, SIGTERM, SIGHUP and Ctrl-C go to the commands that run, which then save, and end this process.

    If this process is killed, their standard input ends, which the program must notice.

    Args:
        program: what every command begins with.
        environment: of all commands.
        stopped: called when a signal has stopped them.
        warm: whether they begin as copies of a process that has imported everything, where the system can do that. It is the
            program without a command, and has the environment of the first one.
    """

    def __init__(
        self,
        program: Sequence[str],
        environment: Mapping[str, str],
        stopped: Callable[[], object] = lambda: None,
        *,
        warm: bool = False,
    ) -> None:
        self._program, self._environment, self._say_stopped = program, environment, stopped
        self._copies = warm and AVAILABLE
        self._warm: WarmProcess | None = None
        self._running: set[subprocess.Popen[bytes]] = set()
        self._changing = threading.RLock()
        self._stopped = False
        self._before: dict[signal.Signals, Any] = {}

    def run(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """The exit status of a command.

        Args:
            command: what follows the program.
            log: file of what it prints.
            environment: further environment variables.
        """
        if self._copies:
            with self._changing:
                if self._stopped:
                    return -signal.SIGTERM
                if self._warm is None:
                    self._warm = WarmProcess(self._program, {**self._environment, **environment})
                ended = self._warm.begin(command, log, environment)
            if (status := ended.result()) is not None:
                return status
        # A process group of its own: every signal reaches it once, from here.
        group: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
        with log.open("wb") as out:
            with self._changing:
                if self._stopped:
                    return -signal.SIGTERM
                process: subprocess.Popen[bytes] = subprocess.Popen(
                    [*self._program, *command],
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env={**self._environment, **environment},
                    **group,
                )
                self._running.add(process)
            try:
                return process.wait()
            finally:
                with self._changing:
                    self._running.discard(process)
                assert process.stdin is not None
                process.stdin.close()

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """Tells all that run to stop, and starts no further ones."""
        with self._changing:
            self._stopped = True
            if self._warm is not None:
                self._warm.signal(signum)
            for process in self._running:
                with suppress(OSError):
                    process.send_signal(signum)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in STOPPING:
                if signal.getsignal(signum) is not signal.SIG_IGN:  # as nohup has it
                    self._before[signum] = signal.signal(signum, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        if self._warm is not None:
            self._warm.end()

    def _end(self, signum: int, frame: FrameType | None) -> None:
        self.stop(signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)
        self._say_stopped()
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signum)
