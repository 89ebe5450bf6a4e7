"""Random orders that are the same in every release of NumPy."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

WORDS = 1024


def permutation(length: int, seed: int | Sequence[int]) -> npt.NDArray[np.int64]:
    """The numbers 0..length - 1 in the order of NumPy 2.4's ``numpy.random.default_rng(seed).permutation(length)``.

    NumPy promises the words of a bit generator for good, but not what its Generator makes of them, and published splits and
    resumed runs must not move with a release. So the shuffle stands here (Fisher and Yates, from the end, each place drawn by
    masking and rejecting 32-bit words).

    Args:
        length: how many numbers, below 2^32.
        seed: a number or several.
    """
    order, words = list(range(length)), _words(seed)
    for i in range(length - 1, 0, -1):
        mask = (1 << i.bit_length()) - 1
        j = next(words) & mask
        while j > i:
            j = next(words) & mask
        order[i], order[j] = order[j], order[i]
    return np.array(order, np.int64)


def _words(seed: int | Sequence[int]) -> Iterator[int]:
    """32-bit words, the lower half of each 64-bit word first."""
    bits = np.random.PCG64(np.random.SeedSequence(seed))
    while True:
        yield from bits.random_raw(WORDS).astype("<u8").view("<u4").tolist()
