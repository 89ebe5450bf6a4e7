"""Classifier and projection heads on an encoder's maps."""

import copy
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.models.heads import DilatedHead, ProjectionHead, select_features, selected_channels
from segzoo.models.norms import Norm, replace_norms


@settings(max_examples=15, deadline=None)
@given(dilations=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_a_sum_of_dilated_convolutions_is_one_large_kernel(dilations: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    head, reach = DilatedHead(3, 5, dilations).double(), max(dilations)
    for conv in head.convs:
        nn.init.normal_(conv.bias)
    kernel = torch.zeros(5, 3, 2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
    for dilation, conv in zip(dilations, head.convs, strict=True):
        for row in range(3):
            for column in range(3):
                at = reach + (row - 1) * dilation, reach + (column - 1) * dilation
                kernel[:, :, at[0], at[1]] += conv.weight[:, :, row, column].detach()
    x = torch.rand(2, 3, 12, 17, dtype=torch.float64)
    expected = F.conv2d(x, kernel, sum(conv.bias for conv in head.convs), padding=reach)
    torch.testing.assert_close(head(x), expected)


def test_the_published_code_is_the_first_two_dilations() -> None:
    torch.manual_seed(0)
    four, two = DilatedHead(8, 5), DilatedHead(8, 5, dilations=(6, 12))
    two.load_state_dict({name: value for name, value in four.state_dict().items() if name in two.state_dict()})
    x = torch.rand(1, 8, 32, 32)
    torch.testing.assert_close(two(x), four.convs[0](x) + four.convs[1](x))
    assert not torch.allclose(two(x), four(x))


def test_the_classifier_starts_small() -> None:
    torch.manual_seed(0)
    head = DilatedHead(256, 19)
    weights = torch.cat([conv.weight.detach().flatten() for conv in head.convs])
    assert float(weights.std()) == pytest.approx(0.01, rel=0.01) and abs(float(weights.mean())) < 1e-4
    assert all(bool((conv.bias == 0).all()) for conv in head.convs)


def project(head: ProjectionHead, x: Tensor) -> Tensor:
    """Pixel by pixel, in training mode: matrix, standardisation over all pixels, ReLU, twice; then unit length."""
    rows = x.movedim(1, -1).flatten(0, 2)
    for conv, norm, _ in head.layers:
        rows = rows @ conv.weight[:, :, 0, 0].T
        rows = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias
        rows = rows.clamp_min(0)
    return (rows / rows.norm(dim=1, keepdim=True)).unflatten(0, (x.shape[0], *x.shape[2:])).movedim(-1, 1)


@pytest.mark.parametrize("hidden", [None, 6])
def test_projection_against_matrices(hidden: int | None) -> None:
    torch.manual_seed(0)
    head = ProjectionHead(9, 16, hidden).double()
    for norm in (head.layers[0][1], head.layers[1][1]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, 0.1, 1)
    x = torch.randn(2, 9, 5, 7, dtype=torch.float64)
    embeddings = head(x)
    torch.testing.assert_close(embeddings, project(head, x))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2, 5, 7, dtype=torch.float64))
    assert bool((embeddings >= 0).all())
    names = {name for name, _ in head.named_parameters() if name.endswith("bias")}
    assert names == {"layers.0.1.bias", "layers.1.1.bias"}, "a convolution before a batch norm has no bias"


def test_a_pixel_that_is_all_but_off_has_a_bounded_gradient() -> None:
    head = ProjectionHead(4, 8).double()
    last = head.layers[1][1]
    nn.init.zeros_(last.weight)
    for level in (0.0, 1e-30, 1e-9, 1e-3):
        nn.init.constant_(last.bias, level)
        head.zero_grad()
        head(torch.rand(1, 4, 2, 2, dtype=torch.float64))[:, 0].sum().backward()
        gradient = last.bias.grad
        assert gradient is not None and bool(torch.isfinite(gradient).all()) and float(gradient.abs().max()) <= 4e4


@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_the_projections_norms_can_be_replaced(norm: Norm) -> None:
    torch.manual_seed(0)
    head = ProjectionHead(16, 32)
    reference = copy.deepcopy(head)
    replace_norms(head, norm)
    x = torch.rand(2, 16, 6, 6)
    assert not torch.allclose(reference.train()(x)[:1], reference(x[:1]), atol=1e-3)
    torch.testing.assert_close(head.train()(x)[:1], head(x[:1]))


def test_fused_maps_are_resized_to_the_first_of_stride_four() -> None:
    maps = [torch.rand(2, c, 64 // s, 96 // s) for c, s in ((3, 1), (0, 2), (4, 4), (5, 8), (6, 16), (7, 32))]
    maps[5] = torch.tensor([0.0, 1.0, 5.0]).expand(2, 7, 2, 3)
    fused = select_features(maps, "fuse")
    assert fused.shape == (2, 4 + 5 + 6 + 7, 16, 24)
    assert torch.equal(fused[:, :4], maps[2])
    # Pixel centres of a map eight times as wide lie at (j + 1/2)/8 - 1/2.
    centres = ((torch.arange(24) + 0.5) / 8 - 0.5).clamp(0, 2)
    torch.testing.assert_close(fused[0, -1, 3], torch.where(centres < 1, centres, 1 + 4 * (centres - 1)))
    assert select_features(maps, "last") is maps[-1]


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("resnet18", 32),
        ("resnet18", 8),
        ("mobilenet_v2", 16),
        ("mit_b0", 32),
        ("tu-test_resnet", 8),
        ("tu-convnext_atto", 32),
    ],
)
def test_maps_of_real_encoders(name: str, stride: int) -> None:
    encoder: Any = smp.encoders.get_encoder(name, weights=None, output_stride=stride).eval()
    with torch.no_grad():
        maps = encoder(torch.rand(1, 3, 64, 96))
    for choice, size in (("last", (64 // stride, 96 // stride)), ("fuse", (16, 24))):
        chosen = select_features(maps, choice)  # type: ignore[arg-type]
        assert chosen.shape == (1, selected_channels(encoder.out_channels, choice), *size)  # type: ignore[arg-type]
