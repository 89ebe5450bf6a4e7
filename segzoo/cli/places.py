"""Devices for trainings beside each other: each sees one GPU."""

import os
import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

VARIABLE = "CUDA_VISIBLE_DEVICES"


class Places:
    """As many places as there are jobs, spread evenly over the GPUs.

    Args:
        jobs: trainings at a time.
        gpus: as the variable names them; with fewer than two nothing is handed out.
    """

    def __init__(self, jobs: int, gpus: Sequence[str]) -> None:
        self._free: queue.SimpleQueue[str] = queue.SimpleQueue()
        shared = list(gpus) if jobs > 1 and len(gpus) > 1 else [""]
        for number in range(jobs):
            self._free.put(shared[number % len(shared)])

    @contextmanager
    def take(self) -> Iterator[str]:
        """The GPU of a training, until its end; empty where none was handed out."""
        place = self._free.get()
        try:
            yield place
        finally:
            self._free.put(place)


def environment(place: str) -> dict[str, str]:
    """What a training needs to see only its own GPU."""
    return {VARIABLE: place} if place else {}


def visible_gpus() -> list[str]:
    """The GPUs of this machine, or those that were given to this process."""
    if VARIABLE in os.environ:
        return [name.strip() for name in os.environ[VARIABLE].split(",") if name.strip() not in ("", "-1")]
    import torch  # asks the driver, and touches no device

    return [str(number) for number in range(torch.cuda.device_count())]
