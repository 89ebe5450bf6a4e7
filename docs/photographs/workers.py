"""Commands of segzoo in processes of their own, forked from one that has imported everything. Free of torch.

To import takes longer than hundreds of steps of a small network on a large GPU.
"""

import multiprocessing
import os
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from docs.photographs.job import Job


class Workers:
    """A context; what runs when it is left is told to stop, and saves. What outlives this process notices, and stops too.

    Args:
        warm: whether processes are forked from a warm one; else each imports for itself.
    """

    def __init__(self, warm: bool = True) -> None:
        os.environ.update(
            OMP_NUM_THREADS="1", NO_ALBUMENTATIONS_UPDATE="1"
        )  # of libraries that read it at their import
        forks = warm and sys.platform == "linux"
        self._context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            self._context.set_forkserver_preload(["docs.photographs.warm"])
        self._running: set[Any] = set()
        self._changing = threading.RLock()
        self._stopped = False

    def run(self, job: Job, log: Path) -> int:
        """The exit status of a job; what it prints is in the file ``log``."""
        here, there = self._context.Pipe()
        with self._changing:
            if self._stopped:
                return 1
            process = self._context.Process(target=work, args=(job, str(log), there))
            process.start()
            self._running.add(process)
        there.close()
        try:
            process.join()
            return int(process.exitcode)
        finally:
            here.close()
            with self._changing:
                self._running.discard(process)

    def stop(self) -> None:
        """Tells all that run to stop, and starts no further ones."""
        with self._changing:
            self._stopped = True
            for process in self._running:
                process.terminate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def work(job: Job, log: str, starter: Connection) -> None:
    """Performs a job in this process, which ends with the one at the other end of a connection."""
    from segzoo.cli.follow import follow

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    follow(lambda: os.read(starter.fileno(), 1))
    if sys.platform == "linux":  # loader processes are forks of this one, and not of one that would import again
        multiprocessing.set_start_method("fork", force=True)
    sys.exit(job.perform())
