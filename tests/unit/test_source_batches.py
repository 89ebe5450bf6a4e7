"""From which of several sources each training image comes."""

from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segzoo.data.sampling import EndlessBatches, derived_seed
from segzoo.data.source_batches import SourceBatches, SourceDraws, Turns

weights_of_sources = st.lists(st.floats(0.01, 100), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(weights=weights_of_sources, seed=st.integers(0, 5))
def test_every_source_has_its_share_of_any_number_of_draws(weights: list[float], seed: int) -> None:
    turns, counts = Turns(weights, seed), [0] * len(weights)
    for draw in range(150):
        source, number = turns.turn(draw)
        assert number == counts[source]
        counts[source] += 1
        for k, weight in enumerate(weights):
            bound = 1 if len(weights) == 2 else k + 1
            assert abs(counts[k] - (draw + 1) * weight / sum(weights)) < bound + 1e-9


def test_turns_far_from_the_beginning_are_exact() -> None:
    turns, far = Turns([0.1, 0.2, 0.7], 3), 10**15
    numbers: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for draw in range(far, far + 1000):
        source, number = turns.turn(draw)
        numbers[source].append(number)
    assert [len(numbers[k]) for k in range(3)] == pytest.approx([100, 200, 700], abs=3)
    for found in numbers.values():
        assert found == list(range(found[0], found[0] + len(found)))


def batches(
    weights: tuple[float, ...], sizes: tuple[int, ...], size: int, seed: int = 5, **options: Any
) -> SourceBatches:
    ends = np.cumsum((0, *sizes)).tolist()
    draws = [
        SourceDraws(weight, range(ends[k], ends[k + 1]), EndlessBatches(sizes[k], size, derived_seed(seed, k)))
        for k, weight in enumerate(weights)
    ]
    return SourceBatches(draws, size, seed, **options)


@settings(max_examples=30, deadline=None)
@given(
    weights=st.tuples(st.floats(0.1, 9), st.floats(0.1, 9), st.floats(0.1, 9)),
    batch=st.integers(1, 4),
    world=st.integers(1, 3),
    start=st.integers(0, 30),
)
def test_ranks_and_resumed_runs_draw_what_one_process_draws(
    weights: tuple[float, ...], batch: int, world: int, start: int
) -> None:
    sizes = (5, 1, 3)
    whole = list(islice(batches(weights, sizes, batch * world), start + 4))
    ranks = [batches(weights, sizes, batch, rank=rank, world=world, start=lambda: start) for rank in range(world)]
    for expected, *parts in zip(whole[start:], *(islice(rank, 4) for rank in ranks), strict=True):
        assert sorted(expected) == sorted(key for part in parts for key in part)
    again = list(islice(batches(weights, sizes, batch * world, start=lambda: start), 4))
    assert again == whole[start:]


def test_a_source_comes_in_passes_without_repetition() -> None:
    keys = [key for batch in islice(batches((3, 1), (7, 4), 4), 60) for key in batch]
    for low, high in ((0, 7), (7, 11)):
        found = [(key[0], key[1]) for key in keys if low <= key[1] < high]
        passes = [sorted(index for epoch, index in found if epoch == e) for e in range(max(found)[0])]
        assert passes and all(one == list(range(low, high)) for one in passes)
    assert Counter(key[1] < 7 for key in keys) == {True: 180, False: 60}


def test_no_rank_has_a_source_of_its_own() -> None:
    ranks = [batches((1, 1), (5, 5), 1, rank=rank, world=2) for rank in range(2)]
    for rank in ranks:
        first = [batch[0][1] < 5 for batch in islice(rank, 40)]
        assert 8 < sum(first) < 32


def test_the_first_batches_come_again_where_they_are_to_be_learned_by_heart() -> None:
    found = list(islice(batches((2, 1), (5, 5), 3, cycle=2), 6))
    assert found[:2] == found[2:4] == found[4:] and found[0] != found[1]
