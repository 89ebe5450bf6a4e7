"""Commands that run beside each other, and end with the process that started them."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

from segzoo.cli.rundir import without_launcher

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Trainings:
    """A context. Within it, SIGTERM, SIGHUP and Ctrl-C go to the commands that run, which then save, and end this process.

    If this process is killed, they notice (`segzoo.cli.follow`).
    """

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._changing = threading.RLock()
        self._stopped = False
        self._before: dict[signal.Signals, Any] = {}

    def run(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """The exit status of ``segzoo COMMAND ...``.

        Args:
            command: what follows ``segzoo``.
            log: file of what it prints.
            environment: further environment variables.
        """
        words = [sys.executable, "-m", "segzoo.cli.follow", *command]
        # A process group of its own: every signal reaches it once, from here.
        group: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
        with log.open("wb") as out:
            with self._changing:
                if self._stopped:
                    return -signal.SIGTERM
                process: subprocess.Popen[bytes] = subprocess.Popen(
                    words,
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env={**without_launcher(os.environ), **environment},
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

    def _end(self, signum: int, frame: FrameType | None) -> None:
        self.stop(signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)
        print("stopped; the same command continues", file=sys.stderr)
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signum)
