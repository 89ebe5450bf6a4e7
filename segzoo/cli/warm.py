"""A process that has imported what a training imports, and runs every command in a copy of itself.

To import takes as long as dozens of steps of a small network, on a GPU hundreds. A copy is a process of its own all the same:
what one run breaks, leaks or seeds is no other's, and it comes to the same numbers as one that has imported for itself.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress

from segzoo.compat.processes import forget_ends

IMPORTED = ("segzoo.cli.run", "segzoo.runtime.memory", "segzoo.runtime.quiet", "docstring_parser", "PIL.PpmImagePlugin")
"""What every run imports. None of it touches a device: a copy of a process that has used a GPU cannot use one."""
Follow = Callable[[Callable[[], object]], object]
"""Ends this process when what it is given returns."""
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if os.name == "posix" else ()


def await_command(follow: Follow) -> list[str] | None:
    """Obeys the orders on the standard input; returns in every copy, and at the end in this process.

    Orders are lines of JSON: a run, ``{"number": 0, "words": [...], "log": FILE, "environment": {...}}``, or ``{"signal": 15}``
    for all runs. Answers are lines on the standard output: ``ready``, ``begun NUMBER`` and ``ended NUMBER STATUS``.

    Args:
        follow: called in every copy; see `segzoo.cli.follow`.

    Returns:
        The words of its command in a copy; None here, where neither orders nor copies are left.
    """
    orders, answers, nothing = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for file in (0, 1, 2):
        os.dup2(nothing, file)
    os.close(nothing)
    # Whoever tells a whole group of processes to stop tells the copies, too: this one waits until they have saved.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOPPING}
    with suppress(Exception):  # a run says it better
        import_all()
    gc.collect()
    gc.freeze()  # the collector of a copy leaves the pages alone that it shares with this process
    return _Copies(orders, answers, before, follow).await_command()


def import_all() -> None:
    """Imports what runs of any method import."""
    for module in IMPORTED:
        importlib.import_module(module)
    from segzoo.methods.registry import load_method, methods

    for slug in methods():
        load_method(slug)


class _Copies:
    def __init__(self, orders: int, answers: int, signals: Mapping[signal.Signals, object], follow: Follow) -> None:
        self._orders, self._answers, self._signals, self._follow = orders, answers, signals, follow
        self._numbers: dict[int, int] = {}
        """Of runs, by the id of their process."""
        self._woken, self._waker = os.pipe()
        for end in (self._woken, self._waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def await_command(self) -> list[str] | None:
        self._answer("ready")
        rest, more = b"", True
        with selectors.DefaultSelector() as selector:
            for file in (self._orders, self._woken):
                selector.register(file, selectors.EVENT_READ)
            while more or self._numbers:
                ready = [key.fd for key, _ in selector.select()]
                self._reap()
                if self._orders not in ready:
                    continue
                received = os.read(self._orders, 65536)
                if not received:
                    more = False
                    selector.unregister(self._orders)
                *lines, rest = (rest + received).split(b"\n")
                for line in lines:
                    if (words := self._obey(json.loads(line))) is not None:
                        return words
        return None

    def _obey(self, order: dict[str, object]) -> list[str] | None:
        if "signal" in order:
            for pid in self._numbers:  # none of these has been waited for: each is still its run's
                os.kill(pid, int(str(order["signal"])))
            return None
        # One that comes to a copy before it can handle it must not be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        pid = os.fork()
        if pid == 0:
            return self._become(**order)  # type: ignore[arg-type]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        self._numbers[pid] = int(str(order["number"]))
        self._answer(f"begun {order['number']}")
        return None

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._woken, 4096)
        for pid in list(self._numbers):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._answer(f"ended {self._numbers.pop(pid)} {os.waitstatus_to_exitcode(status)}")

    def _answer(self, line: str) -> None:
        with suppress(BrokenPipeError):  # who asked is gone, and the copies end
            os.write(self._answers, f"{line}\n".encode())

    def _become(self, number: int, words: list[str], log: str, environment: dict[str, str]) -> list[str]:
        """Makes this copy what a process of its own for the command would be."""
        os.setpgid(0, 0)
        forget_ends()
        signal.set_wakeup_fd(-1)
        for file in (self._answers, self._woken, self._waker):
            os.close(file)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        for file in (1, 2):
            os.dup2(out, file)
        os.close(out)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for name, handler in self._signals.items():
            signal.signal(name, handler)  # type: ignore[arg-type]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        os.environ.update(environment)
        sys.argv = ["segzoo", *words]
        self._follow(lambda: _hung_up(self._orders))
        return words


def _hung_up(file: int) -> None:
    """Waits until nobody can write to a pipe any more, and reads nothing of it."""
    import select

    waiting = select.poll()
    waiting.register(file, 0)
    waiting.poll()
