"""Statistics of a study against SciPy, naive loops and cases computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from segzoo.evaluation import Scores
from segzoo.study import statistics as s

VALUES = st.lists(st.floats(-1, 1), min_size=2, max_size=8)


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_interval_and_p_are_those_of_scipy(values: list[float]) -> None:
    assume(np.ptp(values) > 1e-3)
    test = stats.ttest_1samp(values, 0)
    interval = s.student_interval(values)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(tuple(test.confidence_interval(0.95)), abs=1e-9)
    assert s.paired_p(values) == pytest.approx(test.pvalue)


def test_an_interval_by_hand() -> None:
    # mean 2, standard deviation 1, t(0.975, 2) = 4.302653
    interval = s.student_interval([1.0, 2.0, 3.0])
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.01, 0.02, 0.03, 0.04], [0.04, 0.06, 0.06, 0.06]),
        ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]),
        ([0.9, 0.6], [1.0, 1.0]),
        ([0.02, math.nan, 0.04], [0.04, math.nan, 0.04]),
        ([], []),
    ],
)
def test_holm_by_hand(values: list[float], expected: list[float]) -> None:
    assert s.holm(values) == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(values: list[float]) -> None:
    found = s.holm(values)
    for one, fixed in zip(values, found, strict=True):
        assert one <= fixed <= min(1.0, one * len(values)) + 1e-12
    assert [found[i] for i in np.argsort(values, kind="stable")] == sorted(found)


def test_the_bootstrap_over_seeds_is_that_of_scipy() -> None:
    values = np.random.default_rng(3).normal(1, 2, 12)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    ours = s.seed_bootstrap(values.tolist(), draws=20_000)
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.05)
    assert s.seed_bootstrap([1.0]) is None and s.student_interval([1.0]) is None


def counts(confusions: np.ndarray) -> np.ndarray:
    """(N, 3, C) of confusion matrices (N, C, C)."""
    return np.stack([np.diagonal(confusions, axis1=1, axis2=2), confusions.sum(2), confusions.sum(1)], axis=1)


def test_miou_of_counts_is_that_of_the_scores() -> None:
    confusions = np.random.default_rng(0).integers(0, 50, (5, 4, 4))
    confusions[:, 2] = confusions[:, :, 2] = 0  # a class that does not occur
    scores = Scores(confusions.sum(0), tuple("abcd"))
    assert s.miou_of(counts(confusions).sum(0)) == pytest.approx(scores.miou)
    assert math.isnan(s.miou_of(np.zeros((3, 2))))


def test_the_hierarchical_bootstrap_is_a_loop_over_drawn_seeds_and_images() -> None:
    rng = np.random.default_rng(5)
    ours, others = (
        [counts(rng.integers(1, 40, (6, 3, 3)) + strength * np.eye(3, dtype=int)) for _ in range(3)]
        for strength in (60, 30)
    )
    found = s.hierarchical_bootstrap(ours, others, draws=4000)
    naive = []
    for _ in range(4000):
        images = rng.integers(0, 6, 6)
        seeds = rng.integers(0, 3, 3)
        naive.append(np.mean([s.miou_of(ours[k][images].sum(0)) - s.miou_of(others[k][images].sum(0)) for k in seeds]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(naive, [0.025, 0.975])), abs=0.01)


def test_images_that_are_alike_leave_the_bootstrap_over_seeds() -> None:
    rng = np.random.default_rng(1)
    ours, others = ([np.repeat(counts(rng.integers(1, 40, (1, 3, 3))), 4, 0) for _ in range(4)] for _ in range(2))
    values = [float(s.miou_of(a.sum(0)) - s.miou_of(b.sum(0))) for a, b in zip(ours, others, strict=True)]
    seeds, both = s.seed_bootstrap(values, draws=8000), s.hierarchical_bootstrap(ours, others, draws=8000)
    assert seeds is not None
    assert (both.low, both.high) == pytest.approx((seeds.low, seeds.high), abs=0.02)


def test_only_seeds_that_both_have_are_compared() -> None:
    found = s.difference({0: 0.5, 1: 0.7, 5: 0.9}, {1: 0.4, 0: 0.4})
    assert found is not None and found.values == pytest.approx((0.1, 0.3)) and found.mean == pytest.approx(0.2)
    assert s.difference({0: 0.5}, {1: 0.5}) is None
    alone = s.difference({0: 0.9}, {0: 0.1})
    assert alone is not None and alone.verdict == "one seed" and alone.interval is None


def test_verdicts_follow_the_corrected_test() -> None:
    base = {0: 0.50, 1: 0.51, 2: 0.49}
    rows = {"up": [0.08, 0.09, 0.10], "down": [-0.08, -0.09, -0.10], "noise": [0.1, -0.1, 0.02]}
    differences = {}
    for name, shifts in rows.items():
        found = s.difference({seed: base[seed] + shift for seed, shift in enumerate(shifts)}, base)
        assert found is not None
        differences[name] = found
    assert {n: d.verdict for n, d in s.corrected(differences).items()} == {
        "up": "better",
        "down": "worse",
        "noise": "unclear",
    }
    # p is 0.0041: alone it would count, among twenty it does not
    many = s.corrected({f"row {i}": differences["up"] for i in range(20)})
    assert {one.verdict for one in many.values()} == {"unclear"}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (0.5, 8.0),  # half way between 4 and 16 on a logarithmic scale
        (0.4, 4.0),
        (0.6, 16.0),
        (0.3, 0.0),
        (0.7, math.inf),
    ],
)
def test_equal_labels_by_hand(wanted: float, expected: float) -> None:
    assert s.equal_labels([16, 4], [0.6, 0.4], wanted) == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.1, 0.9), min_size=2, max_size=6), st.floats(0.0, 1.0))
def test_equal_labels_lie_where_the_curve_first_reaches_the_value(values: list[float], wanted: float) -> None:
    labels = [4 * 2**i for i in range(len(values))]
    found = s.equal_labels(labels, values, wanted)
    highest = np.maximum.accumulate(values)
    if found == 0:
        assert wanted < values[0]
    elif math.isinf(found):
        assert wanted > max(values)
    else:
        assert np.interp(math.log(found), np.log(labels), highest) == pytest.approx(wanted, abs=1e-6)
