"""Which images belong to which split, and which of them are labelled."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segzoo.errors import ConfigError, DataError


def time_blocks(n: int, fractions: Sequence[float], gap: int = 0) -> tuple[range, ...]:
    """Divides n frames in their order into contiguous blocks.

    Neighbouring frames of one drive are near duplicates, so a random split would test on training images.

    Args:
        n: number of frames.
        fractions: share of every block, summing to 1; a share of 0 gives an empty block.
        gap: frames left out between two neighbouring (non-empty) blocks.

    Returns:
        One range of frame numbers per fraction.

    Raises:
        ConfigError: shares that are negative or do not sum to 1, or a negative gap.
        DataError: too few frames for a block of every non-zero share.
    """
    shares = np.asarray(fractions, np.float64)
    if shares.ndim != 1 or not np.isfinite(shares).all() or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise ConfigError(f"blocks {list(fractions)}: the shares must be 0 or more and sum to 1, e.g. [0.8, 0.1, 0.1]")
    if gap < 0:
        raise ConfigError(f"gap {gap}: the number of frames between two blocks cannot be negative")
    used = shares > 0
    usable = n - gap * (int(used.sum()) - 1)
    edges = np.rint(np.concatenate([[0.0], np.cumsum(shares)]) * max(usable, 0)).astype(int)
    blocks, skipped = [], 0
    for i in range(len(shares)):
        blocks.append(range(edges[i] + skipped, edges[i + 1] + skipped))
        if used[i] and not blocks[-1]:
            raise DataError(
                f"{n} frames are too few for blocks {list(fractions)} with a gap of {gap}: "
                f"block {i + 1} would be empty; use fewer blocks, a smaller gap or more images"
            )
        skipped += gap if used[i] and used[i + 1 :].any() else 0
    return tuple(blocks)


def evenly(total: int, count: int) -> list[int]:
    """At most ``count`` numbers below ``total``, evenly spread."""
    return [i * total // count for i in range(count)] if total > count else list(range(total))


def labelled_subset(n_total: int, budget: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """The images whose labels a method may see: a random choice, smaller budgets within larger ones.

    Args:
        n_total: number of labelled images.
        budget: how many of them to choose.
        seed: which choice.

    Returns:
        (budget,) sorted indices below ``n_total``.

    Raises:
        DataError: the budget is below 1 or larger than the set.
    """
    if budget > n_total:
        raise DataError(
            f"`data.target_labels` {budget} but the target's train split has {n_total} labelled "
            f"images; use at most {n_total}"
        )
    if budget < 1:
        raise DataError(
            f"`data.target_labels` {budget} but a labelled subset needs at least 1 image; use 1 to {n_total}"
        )
    # NumPy promises the same SeedSequence output in every release, but not the same Generator.permutation.
    keys = np.random.SeedSequence(seed).generate_state(n_total, np.uint64)
    order: npt.NDArray[np.int64] = np.argsort(keys, kind="stable").astype(np.int64)
    return np.sort(order[:budget])
