"""Time blocks and the labelled budget, as properties."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from segzoo.data.splits import labelled_subset, time_blocks
from segzoo.errors import ConfigError, DataError


@given(
    n=st.integers(0, 2000),
    parts=st.lists(st.integers(0, 20), min_size=1, max_size=4).filter(any),
    gap=st.integers(0, 12),
)
def test_blocks_are_contiguous_disjoint_and_a_gap_apart(n: int, parts: list[int], gap: int) -> None:
    fractions = [part / sum(parts) for part in parts]
    try:
        blocks = time_blocks(n, fractions, gap)
    except DataError:
        # Refused only if some block would get less than one frame.
        usable = n - gap * (sum(part > 0 for part in parts) - 1)
        assert usable * min(f for f in fractions if f > 0) < 1
        return
    assert len(blocks) == len(fractions)
    assert all(bool(block) == (part > 0) for block, part in zip(blocks, parts, strict=True))
    used = [block for block in blocks if block]
    assert used[0].start == 0 and used[-1].stop == n, "every frame is in a block or in a gap"
    assert all(block.step == 1 for block in used)
    assert all(later.start - earlier.stop == gap for earlier, later in pairwise(used))
    usable = sum(map(len, used))
    assert all(abs(len(block) - share * usable) <= 1 for block, share in zip(blocks, fractions, strict=True))


def test_blocks_by_hand() -> None:
    assert time_blocks(10, (0.5, 0.3, 0.2)) == (range(5), range(5, 8), range(8, 10))
    assert time_blocks(479, (0.9, 0.1, 0.0), gap=10) == (range(422), range(432, 479), range(479, 479))
    train, val, test = time_blocks(100, (0.5, 0.0, 0.5), gap=4)
    assert (train, len(val), test) == (range(48), 0, range(52, 100))


@pytest.mark.parametrize("fractions", [(0.5, 0.4), (1.2, -0.2), (float("nan"), 1.0), ()])
def test_wrong_shares(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="sum to 1"):
        time_blocks(10, fractions)


def test_negative_gap() -> None:
    with pytest.raises(ConfigError, match="gap -1"):
        time_blocks(10, (0.5, 0.5), gap=-1)


@pytest.mark.parametrize(("n", "gap"), [(0, 0), (1, 0), (5, 10)])
def test_too_few_frames(n: int, gap: int) -> None:
    with pytest.raises(DataError, match=f"{n} frames are too few"):
        time_blocks(n, (0.5, 0.5), gap)


@given(n=st.integers(1, 500), data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_smaller_budget_is_part_of_the_larger(n: int, data: st.DataObject, seed: int) -> None:
    small, large = sorted(data.draw(st.lists(st.integers(1, n), min_size=2, max_size=2)))
    few, many = labelled_subset(n, small, seed), labelled_subset(n, large, seed)
    assert len(few) == small and len(set(many.tolist())) == large
    assert set(few.tolist()) <= set(many.tolist()) <= set(range(n))
    assert (np.diff(many) > 0).all()
    np.testing.assert_array_equal(few, labelled_subset(n, small, seed))


@given(seeds=st.tuples(st.integers(0, 1000), st.integers(0, 1000)))
def test_seed_changes_the_choice(seeds: tuple[int, int]) -> None:
    assume(seeds[0] != seeds[1])
    assert labelled_subset(10_000, 100, seeds[0]).tolist() != labelled_subset(10_000, 100, seeds[1]).tolist()


def test_choice_is_fixed_for_good_and_spread() -> None:
    """Published budgets must not move with a release of NumPy or of this package."""
    chosen = labelled_subset(367, 16)
    assert chosen.tolist() == CHOSEN
    assert chosen.min() < 367 / 3 and chosen.max() > 2 * 367 / 3


CHOSEN = [4, 43, 56, 58, 87, 110, 132, 205, 240, 268, 271, 277, 281, 298, 311, 346]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(500, "has 367 labelled images; use at most 367"), (0, "at least 1"), (-3, "at least 1")],
)
def test_impossible_budget(budget: int, expected: str) -> None:
    with pytest.raises(DataError) as error:
        labelled_subset(367, budget)
    assert str(error.value).startswith(f"`data.target_labels` {budget} but") and expected in str(error.value)
