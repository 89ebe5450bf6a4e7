"""When a class vanishes from what a network says of unlabelled images, or floods it: criteria on shares over steps."""

import math
from itertools import count as count_up
from itertools import takewhile

import numpy as np
import numpy.typing as npt
from scipy.stats import hypergeom

Floats = npt.NDArray[np.float64]

GONE = 0.1
"""A class is there in a step whose share of it is at least this part of its prior."""
FALL = 3.0
"""How many times its present share a class must have had before."""
ODDS = 0.01
"""About the chance, in a whole training and per class, that noise alone raises an alarm."""
MUCH, TIMES = 0.1, 10.0
"""A class floods what is said from this share on, where that is so many times its prior."""
LEAST_STEPS = 50
"""Steps that a mean is taken over, at the least."""
SETTLES, BEGINS = 0.02, 0.1
"""Parts of a training: in the first a fresh head says anything and nobody listens, before the second ends none is alarmed."""


def vanishing(shares: Floats, prior: Floats, least: int = 5) -> dict[int, float]:
    """The classes that were there and are gone, each with its present share.

    A class counts as gone where all three hold, of the last L measurements and some B earlier ones in a row (a *block*):

    1. *Against the prior.* Its mean share over the last L is below `GONE` of its prior.
    2. *Against itself.* Its mean share over the block was `FALL` times that. A class that the target lacks has no such
       block: it was never there, and nothing is said of it.
    3. *Against chance.* Shares of single batches are rough: a class that lives in one image of ten is absent from most
       batches, and eight of them without it mean nothing. So the measurements that have the class (a share of at least
       `GONE` of its prior) are counted in the block and in the last L, and Fisher's exact test asks how likely so few of them
       are late if it came and went at random. That must be below `ODDS` over all that was looked at: times the number of
       pairs of blocks, and once more times it, for the looks at earlier steps.

    Neither L nor B is fixed: a class that is in every batch is missed after five to twenty of them, a rare one after a
    hundred. The block may be any earlier one, since a class that has long been gone fills no average over all that was before.
    Counts do not mind outliers, and the test has no scale to be tuned to data.

    What this cannot tell: a class that the network never found in the target is as silent as one which is not there.

    Args:
        shares: (N, C), a measurement per row, rows that sum to 1, in the order of the steps.
        prior: (C,) shares that sum to 1.
        least: smallest L and B.

    Returns:
        Mean share over the last L, by the number of the class.
    """
    count = len(shares)
    there = (shares >= GONE * prior) & (prior > 0)
    sums, hits = (np.concatenate([np.zeros((1, len(prior))), np.cumsum(a, axis=0)]) for a in (shares, there))
    found: dict[int, float] = {}
    for last in _widths(least, count - least):
        now, present = ((totals[-1] - totals[-1 - last]) for totals in (sums, hits))
        gone = (prior > 0) & (now / last < GONE * prior)
        for block in _widths(least, count - last) if gone.any() else ():
            starts = np.arange(count - last - block + 1)
            earlier = hits[starts + block] - hits[starts]
            best = earlier.argmax(axis=0)
            mass = (np.take_along_axis(sums, (at := best[None]) + block, 0) - np.take_along_axis(sums, at, 0))[
                0
            ] / block
            looks = ((count / last) * (count / block)) ** 2
            for c in np.flatnonzero(gone & (mass >= FALL * now / last)):
                most = earlier[best[c], c]
                chance = hypergeom.cdf(present[c], last + block, most + present[c], last)
                if chance * looks < ODDS:
                    found.setdefault(int(c), float(now[c] / last))
    return found


def swallowing(shares: Floats, prior: Floats, least: int = 5) -> dict[int, float]:
    """The classes beside which all others together vanish, by the criterion of `vanishing`, each with its present share.

    Of two classes the one swallows what the other loses: `vanishing` says it already.
    """
    if len(prior) < 3:
        return {}
    return {c: 1 - others for c, others in vanishing(1 - shares, 1 - prior, least).items()}


def flooding(shares: Floats, prior: Floats, least: int = 5) -> dict[int, float]:
    """The classes that are called far more often than true labels have them, each with its present share.

    Their mean share over the last ``least`` measurements is at least `MUCH`, and `TIMES` their prior. What is rare in the true
    labels and fills a tenth of the target is seldom right: a loss that favours rare classes, or a thing that the source lacks
    and which looks like them, is behind it more often.

    Args:
        shares: (N, C), a measurement per row, in the order of the steps; none are flooding before there are ``least``.
        prior: (C,) shares that sum to 1.
        least: how many measurements the mean is taken over.
    """
    if len(shares) < least:
        return {}
    now = shares[-least:].mean(axis=0)
    return {int(c): float(now[c]) for c in np.flatnonzero((prior > 0) & (now >= MUCH) & (now >= TIMES * prior))}


def heard(steps: npt.NDArray[np.int64], total: int | None) -> slice | None:
    """The measurements that an alarm may be based on; None while there must be no alarm.

    Args:
        steps: (N,) of the measurements; the first is that of the method's start, which may be late.
        total: steps of the training, None where nobody knows them: they then are 50 `LEAST_STEPS` from the first.
    """
    if not len(steps):
        return None
    length = total if total and total > steps[0] else int(steps[0]) + 50 * LEAST_STEPS
    if steps[-1] < steps[0] + BEGINS * (length - steps[0]):
        return None
    return slice(int(np.searchsorted(steps, SETTLES * length)), len(steps))


def least_width(steps: npt.NDArray[np.int64]) -> int:
    """How many measurements span `LEAST_STEPS`, and no fewer than five."""
    apart = float(np.median(np.diff(steps))) if len(steps) > 1 else 1.0
    return max(5, math.ceil(LEAST_STEPS / max(apart, 1.0)))


def _widths(least: int, most: int) -> list[int]:
    """Each about 1.4 times the one before."""
    return list(takewhile(lambda width: width <= most, (round(least * 2 ** (i / 2)) for i in count_up())))
