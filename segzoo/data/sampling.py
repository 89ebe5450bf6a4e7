"""Which images a training step sees, as a pure function of the step."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any
from zlib import crc32

import numpy as np
from torch.utils.data import Sampler

from segzoo.compat.training import batches_done
from segzoo.data.permutation import permutation

Key = tuple[int, int] | tuple[int, int, int]
"""(epoch, index): which pass over the images, and which image; or (draw, index, class), see `rare_classes`."""


class EndlessBatches(Sampler[list[Key]]):
    """Batches without end, every image once per epoch, shuffled anew in each.

    Batch ``t`` depends on the arguments alone, never on what was drawn before, so that a resumed run continues where it
    stopped and ``world`` ranks together draw the batch of ``world * batch_size`` images that one process would draw.

    Args:
        length: number of images.
        batch_size: images per batch and rank.
        seed: seed of the order; give each stream its own.
        rank: this process.
        world: number of processes.
        start: number of the first batch. It is asked whenever an iterator is made: a loader has one per epoch.
        cycle: after so many batches the first one comes again; None: never.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: Callable[[], int] = lambda: 0,
        cycle: int | None = None,
    ) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.world, self.start, self.cycle = rank, world, start, cycle

    def __iter__(self) -> Iterator[list[Key]]:
        # Asked now and not with the first batch, which a loader may fetch later.
        return map(self._batch, itertools.count(self.start()))

    def _batch(self, number: int) -> list[Key]:
        first = (number % self.cycle if self.cycle else number) * self.batch_size * self.world + self.rank
        return [self.key(first + i * self.world) for i in range(self.batch_size)]

    def key(self, draw: int) -> Key:
        """Which image a draw gives; draws are numbered over all batches and ranks."""
        epoch, position = divmod(draw, self.length)
        return epoch, int(shuffled(self.length, self.seed, epoch)[position])


@functools.lru_cache(maxsize=64)  # a few streams, each of some sources
def shuffled(length: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers 0..length - 1 in an order that is a function of the seed and of the number of the pass."""
    return permutation(length, (seed, epoch))


def used_batches(trainer: Any) -> int:
    """How many batches a training has used: the number of the next one, in whatever epoch and after whatever resume."""
    return batches_done(trainer)


def derived_seed(*parts: int | str) -> int:
    """A 31-bit seed that is a function of all parts, e.g. ``derived_seed(seed, "source", epoch, index)``."""
    numbers = [crc32(part.encode()) if isinstance(part, str) else part for part in parts]
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)
