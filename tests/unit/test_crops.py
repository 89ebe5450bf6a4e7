"""Class-balanced crops against boxes scored one by one."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segzoo.adaptation import class_balanced_crop, crop
from segzoo.adaptation.crops import _scores
from segzoo.errors import ConfigError


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def naive_score(box, max_ratio):
    counts = Counter(v for v in box.flatten().tolist() if v != 255)
    if len(counts) < 2 or max(counts.values()) / sum(counts.values()) >= max_ratio:
        return 0.0
    return sum(math.log(n) for n in counts.values() if n > 1)


def naive_boxes(shape, size, seed, tries):
    [generator] = generators(seed)
    tops, lefts = (torch.randint(s - w + 1, (tries,), generator=generator) for s, w in zip(shape, size, strict=True))
    return list(zip(tops.tolist(), lefts.tolist(), strict=True))


@st.composite
def problems(draw):
    height, width, batch = draw(st.integers(1, 9)), draw(st.integers(1, 12)), draw(st.integers(1, 3))
    size = draw(st.integers(1, height)), draw(st.integers(1, width))
    seed, classes = draw(st.integers(0, 2**40)), draw(st.integers(1, 5))
    labels = torch.randint(classes, (batch, height, width), generator=torch.Generator().manual_seed(seed))
    void = torch.rand(labels.shape, generator=torch.Generator().manual_seed(seed)) < draw(st.sampled_from([0, 0.3, 1]))
    ratio = draw(st.sampled_from([0.3, 0.5, 0.75, 1.0, 2.0]))
    return labels.masked_fill(void, 255), size, seed, draw(st.integers(1, 12)), ratio


@settings(max_examples=200, deadline=None)
@given(problems())
def test_brute_force(problem):
    labels, size, seed, tries, ratio = problem
    corners = class_balanced_crop(labels, size, generators(*range(seed, seed + len(labels))), tries, ratio)
    assert corners.dtype == torch.int64
    for i, (label, corner) in enumerate(zip(labels, corners.tolist(), strict=True)):
        boxes = naive_boxes(label.shape, size, seed + i, tries)
        scores = [naive_score(label[t : t + size[0], le : le + size[1]], ratio) for t, le in boxes]
        # Sums of logarithms in another order may differ in the last digit, and so decide between equals.
        first = boxes.index(tuple(corner))
        assert scores[first] == pytest.approx(max(scores), abs=1e-9)
        assert all(score < scores[first] + 1e-9 for score in scores[:first])


@pytest.mark.parametrize("value", [0, 3, 255])
def test_map_of_one_class_scores_zero_and_takes_the_first_box(value):
    labels = torch.full((2, 20, 40), value)
    corners = class_balanced_crop(labels, (10, 10), generators(0, 1))
    assert [tuple(c) for c in corners.tolist()] == [naive_boxes((20, 40), (10, 10), s, 10)[0] for s in (0, 1)]
    assert crop(labels, corners, (10, 10)).shape == (2, 10, 10)


def test_rich_box_wins():
    # Left of column 30 all road; right of it four classes in stripes. Nearly any of many boxes reaches the stripes.
    labels = torch.zeros(1, 8, 60, dtype=torch.int64)
    labels[0, :, 30:] = torch.arange(30) % 4
    [[top, left]] = class_balanced_crop(labels, (8, 8), generators(0), tries=40).tolist()
    assert top == 0
    assert left >= 30


def test_dominant_class_rules_a_box_out():
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[0, 0] = 1  # 12 of 16 pixels are road: exactly 0.75
    assert _scores(labels, 0.75, 255).tolist() == [0.0]
    assert _scores(labels, 0.76, 255).tolist() == pytest.approx([math.log(12) + math.log(4)])
    labels[0, 1] = 255  # of what is labelled, two thirds
    assert _scores(labels, 0.75, 255).tolist() == pytest.approx([math.log(8) + math.log(4)])


def test_each_image_has_its_own_draws():
    labels = torch.randint(5, (4, 16, 16), generator=torch.Generator().manual_seed(0))
    whole = class_balanced_crop(labels, (8, 8), generators(0, 1, 2, 3))
    ranks = [class_balanced_crop(labels[rank::2], (8, 8), generators(rank, rank + 2)) for rank in range(2)]
    assert torch.equal(torch.stack(ranks, 1).flatten(0, 1), whole)
    assert len({tuple(c) for c in whole.tolist()}) > 1
    before = torch.get_rng_state()
    states = []
    for map_ in (labels[:1], labels[:1] * 0):
        [generator] = generators(3)
        class_balanced_crop(map_, (8, 8), [generator])
        states.append(generator.get_state())
    assert torch.equal(*states)
    assert torch.equal(before, torch.get_rng_state())


def test_every_position_is_drawn():
    corners = [class_balanced_crop(torch.zeros(1, 3, 4).long(), (2, 2), generators(s), tries=1)[0] for s in range(200)]
    assert {tuple(c.tolist()) for c in corners} == {(top, left) for top in range(2) for left in range(3)}


def test_crop_cuts_labels_and_images_alike():
    x = torch.arange(2 * 3 * 5 * 6).view(2, 3, 5, 6)
    cut = crop(x, torch.tensor([[0, 1], [2, 3]]), (3, 2))
    assert torch.equal(cut[0], x[0, :, 0:3, 1:3])
    assert torch.equal(cut[1], x[1, :, 2:5, 3:5])
    assert torch.equal(crop(x[:, 0], torch.tensor([[0, 1], [2, 3]]), (3, 2)), cut[:, 0])


def test_size_of_the_image_is_the_largest():
    labels = torch.randint(3, (1, 4, 6), generator=torch.Generator().manual_seed(0))
    assert class_balanced_crop(labels, (4, 6), generators(0)).tolist() == [[0, 0]]
    with pytest.raises(ConfigError, match=r"4 x 7 .* \(4, 6\)"):
        class_balanced_crop(labels, (4, 7), generators(0))
    with pytest.raises(ValueError, match="zip"):
        class_balanced_crop(labels, (2, 2), generators(0, 1))
