"""ClassMix: which classes are pasted, and where."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segzoo.adaptation import class_mix, paste

VALUES = st.sampled_from([0, 1, 2, 3, 7, 18, 254, 255])


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@st.composite
def batches(draw):
    batch, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    pixels = draw(st.lists(VALUES, min_size=batch * height * width, max_size=batch * height * width))
    return torch.tensor(pixels).view(batch, height, width), draw(st.integers(0, 2**40))


def values(labels):
    return set(labels.unique().tolist())


@settings(max_examples=150, deadline=None)
@given(batches())
def test_of_each_image_half_the_classes_are_pasted_whole(drawn):
    labels, seed = drawn
    mask = class_mix(labels, generators(*range(seed, seed + len(labels))))
    assert mask.dtype == torch.bool and mask.shape == labels.shape
    for label, pasted in zip(labels, mask, strict=True):
        chosen, left = values(label[pasted]), values(label[~pasted])
        assert not chosen & left
        assert 255 not in chosen
        assert len(chosen) == math.ceil(len(values(label) - {255}) / 2)


@settings(max_examples=150, deadline=None)
@given(batches())
def test_batch_scope_chooses_from_the_whole_batch_void_included(drawn):
    labels, seed = drawn
    present = sorted(values(labels))
    mask = class_mix(labels, generators(*range(seed, seed + len(labels))), "batch")
    # A second batch of the same values, with every one of them in every image, shows what was chosen.
    complete = torch.tensor(present).expand(len(labels), 1, -1)
    shown = class_mix(complete, generators(*range(seed, seed + len(labels))), "batch")
    for label, pasted, show in zip(labels, mask, shown[:, 0], strict=True):
        chosen = {value for value, yes in zip(present, show.tolist(), strict=True) if yes}
        assert len(chosen) == math.ceil(len(present) / 2)
        assert torch.equal(pasted, torch.isin(label, torch.tensor(sorted(chosen))))


def test_batch_scope_may_choose_void_and_absent_classes():
    labels = torch.tensor([[[0, 255]], [[3, 255]]])
    masks = [class_mix(labels, generators(seed, seed + 1000), "batch") for seed in range(40)]
    assert any(m[0, 0, 1] for m in masks)
    # Two of {0, 3, 255}: without 255 it is {0, 3}, and each image pastes its one class.
    assert {tuple(m[0, 0].tolist()) for m in masks} == {(True, False), (False, True), (True, True)}


def test_choice_is_uniform():
    labels = torch.arange(5).view(1, 1, 5)
    pairs = Counter(tuple(class_mix(labels, generators(seed))[0, 0].nonzero()[:, 0].tolist()) for seed in range(3000))
    assert len(pairs) == math.comb(5, 3)
    # 300 expected of each, standard deviation 16
    assert all(220 < count < 380 for count in pairs.values())


def test_images_are_drawn_by_their_own_generators_and_again_the_same():
    labels = torch.randint(19, (4, 8, 8), generator=torch.Generator().manual_seed(0))
    whole = class_mix(labels, generators(0, 1, 2, 3))
    assert torch.equal(whole, class_mix(labels, generators(0, 1, 2, 3)))
    ranks = [class_mix(labels[rank::2], generators(rank, rank + 2)) for rank in range(2)]
    assert torch.equal(torch.stack(ranks, 1).flatten(0, 1), whole)
    same = class_mix(labels[:1].expand(4, -1, -1), generators(0, 1, 2, 3))
    assert len({tuple(m.flatten().tolist()) for m in same}) > 1


@pytest.mark.parametrize("scope", ["image", "batch"])
def test_number_of_draws_does_not_depend_on_the_labels(scope):
    states = []
    for labels in (torch.zeros(1, 2, 2).long(), torch.arange(64).view(1, 8, 8)):
        [generator] = generators(5)
        class_mix(labels, [generator], scope)
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_global_generator_is_left_alone():
    before = torch.get_rng_state()
    class_mix(torch.arange(4).view(1, 2, 2), generators(0))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("seeds", [(), (0,), (0, 1, 2)])
def test_one_generator_per_image(seeds):
    with pytest.raises(ValueError, match="zip"):
        class_mix(torch.zeros(2, 2, 2).long(), generators(*seeds))


def test_paste():
    mask = torch.tensor([[[True, False]], [[False, False]]])
    source, target = torch.rand(2, 3, 1, 2), torch.rand(2, 3, 1, 2)
    mixed = paste(mask, source, target)
    assert torch.equal(mixed[0, :, 0, 0], source[0, :, 0, 0])
    assert torch.equal(mixed[0, :, 0, 1], target[0, :, 0, 1])
    assert torch.equal(mixed[1], target[1])
    labels = paste(mask, torch.full((2, 1, 2), 5), torch.full((2, 1, 2), 7))
    assert labels.tolist() == [[[5, 7]], [[7, 7]]]
    # three images of one row each: the batch must not be taken for channels
    assert paste(torch.eye(3).bool().view(3, 1, 3), torch.ones(3, 1, 3), torch.zeros(3, 1, 3)).sum() == 3
