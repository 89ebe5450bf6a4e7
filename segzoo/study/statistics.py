"""What differences between rows mean: over seeds, over images, by class. NumPy and SciPy; free of torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
LEVEL = 0.95
DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """Where a value lies with a confidence of 95 %.

    Attributes:
        low: its lower end.
        high: its upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A row minus its reference, seed by seed.

    Attributes:
        values: of each seed that both have.
        mean: of them.
        std: their sample standard deviation; NaN for one seed.
        interval: of the mean, by Student's t; None for one seed.
        bootstrap: of the mean, by drawing seeds, and images where they were counted, again and again; None for one seed.
        p: of the paired t test; NaN where it cannot be told.
        corrected: `p` after the correction for all rows that were tested together.
    """

    values: tuple[float, ...]
    mean: float
    std: float
    interval: Interval | None
    bootstrap: Interval | None
    p: float
    corrected: float = math.nan

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``unclear``, or ``one seed``, which says nothing."""
        if len(self.values) < 2:
            return "one seed"
        if math.isnan(self.corrected) or self.corrected >= 1 - LEVEL:
            return "unclear"
        return "better" if self.mean > 0 else "worse"


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation of the values that are no NaN; NaN where there are too few."""
    known = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    mean = float(known.mean()) if known.size else math.nan
    return mean, float(known.std(ddof=1)) if known.size > 1 else math.nan


def student_interval(values: Sequence[float]) -> Interval | None:
    """The interval of a mean by Student's t; None for fewer than two values.

    With three seeds it is wide, and rightly so: a standard deviation of three values is a guess.
    """
    if len(values) < 2:
        return None
    mean, std = mean_std(values)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * std / math.sqrt(len(values))
    return Interval(mean - half, mean + half)


def paired_p(values: Sequence[float]) -> float:
    """The p value of the paired t test of differences against 0; NaN for one value, or for values that do not vary."""
    if len(values) < 2 or np.ptp(values) <= 1e-12:
        return math.nan
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for being several: Holm (1979), which needs no independence. NaN stay, and count as no test."""
    found = [math.nan] * len(values)
    order = sorted((value, place) for place, value in enumerate(values) if not math.isnan(value))
    largest = 0.0
    for rank, (value, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * value))
        found[place] = largest
    return found


def seed_bootstrap(values: Sequence[float], draws: int = DRAWS, seed: int = 0) -> Interval | None:
    """The percentile interval of a mean when values are drawn again; None for fewer than two.

    Fewer than about eight values give an interval that is too narrow: there is Student's beside it.
    """
    if len(values) < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = np.asarray(values, dtype=np.float64)[rng.integers(0, len(values), (draws, len(values)))]
    return _percentiles(drawn.mean(1))


def difference(
    row: Mapping[int, float],
    reference: Mapping[int, float],
    counts: tuple[Mapping[int, Floats], Mapping[int, Floats]] | None = None,
) -> Difference | None:
    """A row against its reference, seed by seed; None where they have no seed in common.

    Args:
        row: its mIoU by seed.
        reference: that of the other, by seed.
        counts: pixels by image of both, by seed, as `hierarchical_bootstrap` takes them; None: only seeds are drawn.
    """
    seeds = [seed for seed in row if seed in reference]
    if not seeds:
        return None
    values = tuple(row[seed] - reference[seed] for seed in seeds)
    mean, std = mean_std(values)
    bootstrap = seed_bootstrap(values)
    if counts and len(seeds) > 1 and all(seed in counts[0] and seed in counts[1] for seed in seeds):
        ours, others = ([one[seed] for seed in seeds] for one in counts)
        if {one.shape for one in (*ours, *others)} == {ours[0].shape}:
            bootstrap = hierarchical_bootstrap(ours, others)
    return Difference(values, mean, std, student_interval(values), bootstrap, paired_p(values))


def corrected(differences: Mapping[str, Difference]) -> dict[str, Difference]:
    """Differences that know that they were tested together."""
    values = holm([one.p for one in differences.values()])
    return {
        name: Difference(**{**one.__dict__, "corrected": value})
        for (name, one), value in zip(differences.items(), values, strict=True)
    }


def miou_of(counts: Floats) -> Floats:
    """mIoU (...) of pixels (..., 3, C): right ones, true ones, and those called so; NaN without any class."""
    right, true, called = counts[..., 0, :], counts[..., 1, :], counts[..., 2, :]
    union = true + called - right
    occurs = union > 0
    iou = np.divide(right, union, out=np.zeros_like(union, dtype=np.float64), where=occurs)
    number = occurs.sum(-1)
    return np.divide(iou.sum(-1), number, out=np.full(number.shape, np.nan), where=number > 0)


def hierarchical_bootstrap(
    row: Sequence[Floats], reference: Sequence[Floats], draws: int = DRAWS, seed: int = 0
) -> Interval:
    """The percentile interval of the mean difference in mIoU when seeds *and* test images are drawn again.

    The same images are drawn for both rows and all seeds, and the same seeds for both rows: what is common to them cancels.

    Args:
        row: by seed, pixels (N, 3, C) of N test images: right ones, true ones, and those called so.
        reference: the same of the other row.
        draws: how many.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    images = row[0].shape[0]
    weights = rng.multinomial(images, np.full(images, 1 / images), draws).astype(np.float64)
    by_seed = []
    for ours, others in zip(row, reference, strict=True):
        one, other = (
            miou_of((weights @ counts.reshape(images, -1).astype(np.float64)).reshape(draws, 3, -1))
            for counts in (ours, others)
        )
        by_seed.append(one - other)
    table = np.stack(by_seed, axis=1)  # (draws, seeds)
    drawn = rng.integers(0, len(row), (draws, len(row)))
    return _percentiles(np.take_along_axis(table, drawn, axis=1).mean(1))


def equal_labels(labels: Sequence[float], values: Sequence[float], wanted: float) -> float:
    """How many labels a curve needs to reach a value: linear between its points on a logarithmic scale of labels.

    A curve that falls between two budgets is taken as level there: more labels do not take away what fewer could do.

    Args:
        labels: budgets, above 0.
        values: of the curve, by budget.
        wanted: the value.

    Returns:
        The number; 0 where the smallest budget is enough already, infinity where no budget is.
    """
    order = np.argsort(np.asarray(labels, dtype=np.float64), kind="stable")
    x = np.log(np.asarray(labels, dtype=np.float64)[order])
    y = np.maximum.accumulate(np.asarray(values, dtype=np.float64)[order])
    if wanted <= y[0]:
        return math.exp(float(x[0])) if wanted == y[0] else 0.0
    if wanted > y[-1]:
        return math.inf
    after = int(np.searchsorted(y, wanted))
    share = (wanted - y[after - 1]) / (y[after] - y[after - 1])
    return math.exp(float(x[after - 1] + share * (x[after] - x[after - 1])))


def _percentiles(values: Floats) -> Interval:
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
