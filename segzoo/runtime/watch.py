"""A thread that ends the command when its main thread cannot: a second Ctrl-C, a process of the run that is gone."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from segzoo.stopping import StopRequest, in_main_thread

LOST = "a process of this run ended{how}; its own message, if it had one, is above (one that ran out of memory leaves none)"


class Watch:
    """Looks after the processes of a run, from a thread: the main one may wait for a process that will never answer.

    Args:
        request: what signals have asked for.
        seconds: given to the main thread to end by itself after a process was lost, or after a signal outside of a training.
        patience: given to it when it is on its way out.
    """

    def __init__(self, request: StopRequest, seconds: float = 10.0, patience: float = 120.0) -> None:
        self.request, self.seconds, self.patience = request, seconds, patience
        self.children: list[subprocess.Popen[bytes]] = []
        self.note: Callable[[str, str | None], object] | None = None
        """Writes status and error into the run's record."""
        self._parent = os.getppid() if os.environ.get("LOCAL_RANK", "0") != "0" else None
        self._interrupts = 0
        self._since: dict[str, float] = {}
        self._done = threading.Event()

    def __enter__(self) -> "Watch":
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        # Written by the system-level handler, also while the main thread is inside a library and Python's handler has to wait.
        self._before = None
        if in_main_thread():
            self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, name="segzoo-watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """No process outlives the command."""
        deadline = time.monotonic() + (self.seconds if self.request.ending else self.patience)
        for child in self.children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
        self._kill()
        self._done.set()
        if self._before is not None:
            signal.set_wakeup_fd(self._before)
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def follow(self, children: list[subprocess.Popen[bytes]]) -> None:
        """Takes the place of Lightning's observer, which ends everything by SIGKILL and without a word."""
        self.children = children

    def _run(self) -> None:
        while not self._done.is_set():
            if select.select([self._read], [], [], 0.2)[0]:
                self._interrupts += os.read(self._read, 256).count(signal.SIGINT)
            if self._interrupts > 1:
                self._end("interrupted twice: ended at once", 128 + signal.SIGINT, "stopped")
            if self._parent and os.getppid() != self._parent:
                with suppress(Exception):
                    print(f"error: {LOST.format(how='')}", file=sys.stderr, flush=True)
                os._exit(2)
            signum, request = self.request.signum, self.request
            lost = [child for child in self.children if child.poll()]
            wait = self.patience if request.ending else self.seconds
            if self._lasts("lost", bool(lost), wait):
                code = lost[0].returncode
                how = f", killed by {signal.Signals(-code).name}" if code < 0 else f" with status {code}"
                self._end(f"error: {LOST.format(how=how)}", 2, "failed")
            if self._lasts("asked", signum is not None and not request.patient, self.seconds):
                self._end("interrupted", 128 + (signum or 0), "stopped")

    def _lasts(self, what: str, so: bool, seconds: float) -> bool:
        if not so:
            self._since.pop(what, None)
            return False
        return time.monotonic() - self._since.setdefault(what, time.monotonic()) >= seconds

    def _kill(self) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()

    def _end(self, line: str, status: int, word: str) -> None:
        self._kill()
        with suppress(Exception):
            if self.note is not None:
                self.note(word, line.removeprefix("error: ") if word == "failed" else None)
        with suppress(Exception):
            if self._parent is None:
                print(line, file=sys.stderr, flush=True)
        os._exit(status)


def _forget_wakeup() -> None:
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_wakeup)  # a signal to a loader process is none to the run
