"""Connected components, superpixels, and means over regions."""

import importlib.util
from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segzoo.errors import ConfigError
from segzoo.models.regions import label_components, pool_regions, superpixels


@st.composite
def label_maps(draw: st.DrawFn) -> Tensor:
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)))
    size = shape[0] * shape[1] * shape[2]
    values = draw(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=size, max_size=size))
    return torch.tensor(values).view(shape)


def flood(label: np.ndarray) -> list[set[tuple[int, int]]]:
    """Components by breadth-first search."""
    height, width = label.shape
    left, found = {(y, x) for y in range(height) for x in range(width)}, []
    while left:
        start = left.pop()
        region, queue = {start}, deque([start])
        while queue:
            y, x = queue.popleft()
            around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            for other in {o for o in around if label[o] == label[start]}:
                left.remove(other)
                region.add(other)
                queue.append(other)
        found.append(region)
    return found


@settings(max_examples=60, deadline=None)
@given(label_maps())
def test_components_are_those_of_a_flood_fill(label: Tensor) -> None:
    ids = label_components(label)
    assert ids.shape == label.shape and ids.dtype == torch.int64
    assert int(ids.min()) >= 0 and int(ids.max()) < label[0].numel()
    for one, found in zip(label.numpy(), ids.numpy(), strict=True):
        parts = [{(int(y), int(x)) for y, x in np.argwhere(found == i)} for i in np.unique(found)]
        assert sorted(map(sorted, parts)) == sorted(map(sorted, flood(one)))


@settings(max_examples=60, deadline=None)
@given(label_maps(), st.integers(0, 2**31))
def test_pooling_is_the_mean_over_the_valid_pixels(label: Tensor, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(label.shape, generator=generator, dtype=torch.float64)
    regions = torch.randint(min(4, label[0].numel()), label.shape, generator=generator)
    valid = label != 255
    expected = torch.zeros_like(values)
    for b in range(len(label)):
        for region in regions[b].unique():
            inside = regions[b] == region
            if bool((inside & valid[b]).any()):
                expected[b][inside] = values[b][inside & valid[b]].mean()
    torch.testing.assert_close(pool_regions(values, regions, valid), expected)


def test_pooling_has_the_gradient_of_a_mean() -> None:
    regions = torch.randint(3, (2, 3, 4), generator=torch.Generator().manual_seed(0))
    valid = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1)) > 0.3
    values = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: pool_regions(v, regions, valid), values)


def test_what_lies_under_void_does_not_count() -> None:
    values = torch.tensor([[[1.0, 3.0, float("inf")]]])
    pooled = pool_regions(values, torch.zeros(1, 1, 3, dtype=torch.long), torch.tensor([[[True, True, False]]]))
    assert pooled.tolist() == [[[2.0, 2.0, 2.0]]]


def test_superpixels_follow_edges() -> None:
    pytest.importorskip("skimage")
    image = torch.zeros(2, 3, 32, 48)
    image[0, 0, :, 19:] = 1
    image[1, 2, 11:] = 1
    ids = superpixels(image, 8)
    assert ids.shape == (2, 32, 48) and int(ids.min()) >= 0 and int(ids.max()) < 32 * 48
    for picture, found in zip(image, ids, strict=True):
        assert 8 <= len(found.unique()) <= 40
        colours = picture.sum(0)
        assert all(len(colours[found == i].unique()) == 1 for i in found.unique())
    assert torch.equal(ids, superpixels(image.double(), 8))


def test_superpixels_without_their_library_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install scikit-image"):
        superpixels(torch.rand(1, 3, 8, 8), 4)
