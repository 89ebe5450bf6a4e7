"""Time blocks and the labelled budget, as properties."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from segzoo.data.permutation import permutation
from segzoo.data.sampling import EndlessBatches
from segzoo.data.splits import labelled_subset, time_blocks
from segzoo.data.streams import Stream
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


@given(length=st.integers(0, 300), seed=st.integers(0, 2**40))
def test_a_permutation_has_every_number_once(length: int, seed: int) -> None:
    order = permutation(length, (seed, length))
    assert sorted(order.tolist()) == list(range(length))
    np.testing.assert_array_equal(order, permutation(length, (seed, length)))


def test_orders_are_those_of_earlier_releases_for_good() -> None:
    """Held-out parts and resumed runs: what NumPy 2.4 makes of these seeds."""
    assert permutation(10, 0).tolist() == [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]
    assert permutation(12, (3, 7)).tolist() == [7, 9, 3, 2, 4, 1, 11, 6, 10, 0, 8, 5]
    for length, seed, digest in (
        (2975, (42, 5), "9df67ac0b75a859d3a1216a7dbdcbdcb3df94d26d5f75422e59480e02562c03c"),
        (367, 367, "61b020377a07553c9c9405de1f05f305700f2ccf3e85d3a48bf70a72638a3ebb"),
    ):
        assert hashlib.sha256(permutation(length, seed).astype("<i8").tobytes()).hexdigest() == digest


def test_parts_of_a_stream_and_orders_of_an_epoch_are_fixed_for_good() -> None:
    assert Stream("target", part=(0.7, 1.0)).select(range(100, 116)) == PART
    assert Stream("target", part=(0.0, 0.7)).select(range(100, 116)) == sorted(set(range(100, 116)) - set(PART))
    batches = iter(EndlessBatches(5, 2, seed=3))
    assert [next(batches) for _ in range(5)] == BATCHES


PART = [101, 102, 103, 109, 115]
BATCHES = [[(0, 4), (0, 2)], [(0, 1), (0, 3)], [(0, 0), (1, 1)], [(1, 4), (1, 0)], [(1, 2), (1, 3)]]
