"""The annotator against its definition, written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from segzoo.models.annotator import Annotator


@settings(deadline=None, max_examples=15)
@given(
    channels=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    batch=st.integers(1, 3),
    classes=st.integers(2, 5),
    growth=st.sampled_from([1, 2]),
)
def test_logits_have_the_size_of_the_finest_map(channels: list[int], batch: int, classes: int, growth: int) -> None:
    features = [torch.rand(batch, c, 3 * growth**i, 4 * growth**i) for i, c in enumerate(channels)]
    logits = Annotator(channels, classes, width=4).eval()(features)
    assert logits.shape == (batch, classes, *features[-1].shape[-2:])


def test_logits_are_the_head_of_the_upsampled_sum() -> None:
    torch.manual_seed(0)
    channels, sizes = [5, 4, 4, 3], [(2, 2), (4, 4), (4, 4), (8, 10)]
    annotator = Annotator(channels, 3, width=6).double()
    features = [torch.randn(2, c, *size, dtype=torch.float64) for c, size in zip(channels, sizes, strict=True)]
    total = None
    for lateral, feature in zip(annotator.laterals, features, strict=True):
        own = torch.einsum("bchw,oc->bohw", feature, lateral.weight[:, :, 0, 0]) + lateral.bias[:, None, None]
        total = (
            own if total is None else own + F.interpolate(total, own.shape[-2:], mode="bilinear", align_corners=False)
        )
    conv1, norm1, _, conv2, norm2, _, last = annotator.head
    assert conv1.bias is None and conv2.bias is None and last.bias is not None
    x = total
    for conv, norm in ((conv1, norm1), (conv2, norm2)):
        x = F.conv2d(x, conv.weight, padding=1)
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        x = (x - mean[:, None, None]) / (variance + norm.eps).sqrt()[:, None, None]
        x = F.relu(x)
    torch.testing.assert_close(annotator(features), F.conv2d(x, last.weight, last.bias, padding=1))


def test_every_map_reaches_the_logits_and_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    annotator = Annotator([4, 3, 2], 3, width=8)
    features = [torch.randn(2, c, 4 * 2**i, 4 * 2**i, requires_grad=True) for i, c in enumerate([4, 3, 2])]
    annotator(features).square().mean().backward()
    assert all(f.grad is not None and f.grad.abs().sum() > 0 for f in features)
    # A constant before a batch norm has no effect on the batch's own statistics, except at the padded borders.
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in annotator.parameters())


def test_number_of_parameters_of_the_published_annotator() -> None:
    channels = [512, 512, 512, 512, 256, 128, 64]
    count = sum(p.numel() for p in Annotator(channels, 8).parameters())
    head = 2 * (128 * 128 * 9 + 2 * 128) + 128 * 8 * 9 + 8
    assert count == sum(c * 128 + 128 for c in channels) + head


def test_the_maps_are_not_changed() -> None:
    features = [torch.randn(1, 3, 4, 4), torch.randn(1, 2, 8, 8)]
    before = [f.clone() for f in features]
    Annotator([3, 2], 2, width=4).eval()(features)
    assert all(torch.equal(a, b) for a, b in zip(features, before, strict=True))


def test_another_number_of_maps_is_refused() -> None:
    annotator: nn.Module = Annotator([3, 2], 2, width=4)
    with pytest.raises(ValueError, match="1 feature maps for an annotator of 2"):
        annotator([torch.zeros(1, 3, 4, 4)])
