"""The command in a process of its own, which can be killed, without the seconds that importing torch takes."""

import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L

from segzoo.cli.main import main
from segzoo.cli.run import Run


class Ended(NamedTuple):
    """How a process ended: its exit status, negative after a signal, and what it printed."""

    status: int
    out: str
    err: str


class Fork:
    """The command in a copy of this process, in a session of its own.

    Args:
        folder: where it runs; its outputs go to ``out`` and ``err`` there.
        argv: the command's arguments.
        before: called in the copy first.
        callback: one more callback of its training.
    """

    def __init__(
        self,
        folder: Path,
        *argv: Any,
        before: Callable[[], object] | None = None,
        callback: L.Callback | None = None,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.pid = os.fork()
        if self.pid == 0:
            self._child([str(word) for word in argv], before, callback)

    def wait(self, seconds: float = 60) -> Ended:
        """Until it ends; a process that hangs is killed, and the test fails."""
        deadline = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                os.kill(self.pid, 9)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"hangs: {(self.folder / 'err').read_text()}")
            time.sleep(0.02)
        return Ended(
            os.waitstatus_to_exitcode(status), (self.folder / "out").read_text(), (self.folder / "err").read_text()
        )

    def _child(self, argv: list[str], before: Callable[[], object] | None, callback: L.Callback | None) -> None:
        status = 1
        try:
            os.setsid()
            os.chdir(self.folder)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115
            if callback is not None:
                own = Run._callbacks
                Run._callbacks = lambda run, trainer: [callback, *own(run, trainer)]  # type: ignore[method-assign]
            if before is not None:
                before()
            status = main(argv)
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            os._exit(status)


def at(hook: str, step: int, act: Callable[[], object]) -> L.Callback:
    """A callback that does something in a hook, the first time after so many steps."""
    done = []

    class At(L.Callback):
        pass

    def method(self: L.Callback, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if not done and not trainer.sanity_checking and trainer.global_step >= step:
            done.append(True)
            act()

    setattr(At, hook, method)
    return At()
