"""How a loader process begins."""

import os
import signal
from contextlib import suppress

import cv2

SECONDS = 15
"""After SIGTERM, for the main process to end the step that it is in."""


def start_worker(_: int) -> None:
    """Threads and signals of a loader process: when the main process is asked to stop, it still needs its batches."""
    # OpenCV's own threads in every worker would fight for the same cores.
    cv2.setNumThreads(0)
    # Ctrl-C and `kill` of the whole group are for the main process, which ends its workers itself.
    with suppress(OSError):
        os.setpgid(0, 0)
    for name in ("SIGINT", "SIGHUP"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SECONDS))
