"""Ends a run when a signal asks for it: at once, or between two steps where a run can be continued. Free of torch."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C, `kill` and preemption, the end of a login. One that is ignored (nohup, a shell's background job) stays so.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


def in_main_thread() -> bool:
    """Whether signals can be handled here."""
    return threading.current_thread() is threading.main_thread()


class Stopped(BaseException):
    """A signal asked the run to end. No Exception, for nothing that handles errors may take it for one.

    Args:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def status(self) -> int:
        """The exit status that shells expect: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + self.signum


class StopRequest:
    """What signals have asked for.

    Attributes:
        signum: the first signal that came, or None.
        patient: whether the code in progress looks at ``signum`` itself; else a signal raises :class:`Stopped` where it comes.
        ending: whether the run is on its way out.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.patient = False
        self.ending = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles the signals; afterwards they are handled as before."""
        before = {}
        for name in NAMES:
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and in_main_thread() and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        first, self.signum = self.signum is None, self.signum or signum
        if first and not self.patient:
            self.ending = True
            raise Stopped(signum)
