"""How many loader processes there are, and how one begins."""

import os
import signal
from contextlib import suppress

import cv2

SECONDS = 15
"""After SIGTERM, for the main process to end the step that it is in."""


def loader_processes(streams: int, trainings: int = 1) -> int:
    """The loader processes of each stream where nobody gave their number: two, or one where cores are few.

    Args:
        streams: that are loaded at the same time.
        trainings: processes of this machine that train, each with its own loaders.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 2 if cores // (streams * trainings) >= 2 else 1


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
