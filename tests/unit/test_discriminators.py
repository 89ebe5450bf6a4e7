"""Domain discriminators, and the losses and statistics on their logits."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_auroc

from segzoo.data import MiniCity
from segzoo.models.discriminators import (
    DomainDiscriminators,
    ImageDiscriminator,
    PixelDiscriminator,
    RegionDiscriminator,
    combine_levels,
    domain_auc,
    domain_loss,
    frozen,
)

LEVELS: Any = ("pixel", "region", "image")


def example(classes: int = 5, size: tuple[int, int] = (32, 48), batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    p = torch.randn(batch, classes, *size, generator=generator).softmax(1)
    label = torch.randint(classes, (batch, *size), generator=generator)
    label[0, :4] = 255
    return p, label


def networks(**options: Any) -> DomainDiscriminators:
    torch.manual_seed(0)
    return DomainDiscriminators(5, 5, **({"width": 4, "cell": 8} | options))


@pytest.mark.parametrize("size", [(32, 48), (33, 70), (5, 3)])
@pytest.mark.parametrize("per_class", [False, True])
def test_a_logit_per_level_and_pixel(size: tuple[int, int], per_class: bool) -> None:
    p, label = example(size=size)
    assert networks(per_class=per_class)(p, label).shape == (3, *label.shape)


@pytest.mark.parametrize("per_class", [False, True])
def test_each_level_has_its_reach(per_class: bool) -> None:
    p, label = example()
    net = networks(per_class=per_class)
    maps = net(p, torch.full_like(label, 2)).detach()
    # a region's logit is one per cell, and interpolated between their centres
    region = net.levels["region"]
    assert isinstance(region, RegionDiscriminator)
    cells = region.head(region.encode(p))[:, 2 * per_class].detach()
    assert cells.shape == (2, 4, 6) and len(cells[0].unique()) > 1
    smooth = F.interpolate(cells[:, None], size=(32, 48), mode="bilinear")[:, 0]
    torch.testing.assert_close(maps[1], smooth)
    assert bool((maps[2] == maps[2][:, :1, :1]).all()) and float(maps[2, 0, 0, 0]) != float(maps[2, 1, 0, 0])
    # a pixel's logit depends on the 7 x 7 pixels around it
    p = p.requires_grad_()
    networks(levels=("pixel",))(p, label)[0, 0, 16, 20].backward()
    reach = p.grad.abs().sum((0, 1)).nonzero()  # type: ignore[union-attr]
    assert reach.amin(0).tolist() == [13, 17] and reach.amax(0).tolist() == [19, 23]


def test_the_region_network_has_the_published_layers() -> None:
    convolutions = [m for m in RegionDiscriminator(19, 1).modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 128, 256, 512, 1]
    assert all(c.kernel_size == (4, 4) and c.stride == (2, 2) for c in convolutions)


@pytest.mark.parametrize("per_class", [False, True])
def test_images_do_not_meet(per_class: bool) -> None:
    p, label = example()
    net = networks(per_class=per_class).train()
    torch.testing.assert_close(net(p, label)[:, :1], net(p[:1], label[:1]))


def test_a_pixel_is_judged_by_the_output_of_its_class() -> None:
    p, label = example()
    net = networks(per_class=True)
    maps = net(p, label)
    dense = {level: net.levels[level](p) for level in LEVELS}
    for b in range(2):
        present = [c for c in range(5) if bool((label[b] == c).any())]
        image = dense["image"][b, present].mean()
        torch.testing.assert_close(maps[2, b], image.expand(32, 48))
        for y, x in ((5, 0), (20, 30), (31, 47)):
            c = int(label[b, y, x])
            torch.testing.assert_close(maps[0, b, y, x], dense["pixel"][b, c, y, x])
            torch.testing.assert_close(maps[1, b, y, x], dense["region"][b, c, y, x])


def test_only_the_classes_present_are_trained() -> None:
    p, _ = example()
    label = torch.full((2, 32, 48), 255)
    label[0, :16], label[1, :, :7] = 3, 1
    net = networks(per_class=True)
    valid = label != 255
    domain_loss(net(p, label), True, valid, valid.sum()).backward()
    for level in net.levels.values():
        head = level[-1] if isinstance(level, nn.Sequential) else level.head
        assert head.bias.grad.nonzero().flatten().tolist() == [1, 3]


def test_an_image_without_labels_is_harmless() -> None:
    p, _ = example()
    label = torch.full((2, 32, 48), 255)
    net = networks(per_class=True)
    maps = net(p, label)
    loss = domain_loss(maps, True, label != 255, 1.0)
    loss.backward()
    assert bool(maps.isfinite().all()) and loss.item() == 0
    assert all(not bool(q.grad.any()) for q in net.parameters() if q.grad is not None)


def test_frozen_networks_pass_the_gradient_on_and_keep_none() -> None:
    p, label = example()
    net, one, other = networks(), p.clone().requires_grad_(), p.clone().requires_grad_()
    net(one, label).square().sum().backward()
    for parameter in net.parameters():
        parameter.grad = None
    result = frozen(net, other, label)
    result.square().sum().backward()
    assert torch.equal(result, net(p, label))
    torch.testing.assert_close(other.grad, one.grad)
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_of_the_valid_pixels(real: bool, smoothing: float) -> None:
    logits = torch.randn(3, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    valid = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(1)) > 0.4
    s, wanted = logits.sigmoid(), (1 - smoothing if real else smoothing)
    losses = -wanted * s.log() - (1 - wanted) * (1 - s).log()
    expected = sum(one[valid].mean() for one in losses)
    torch.testing.assert_close(domain_loss(logits, real, valid, valid.sum(), smoothing), expected)


def test_sure_answers_stay_finite() -> None:
    logits = torch.tensor([-1e4, 1e4]).view(1, 1, 1, 2).requires_grad_()
    loss = domain_loss(logits, True, torch.ones(1, 1, 2, dtype=torch.bool), 2)
    loss.backward()
    assert loss.item() == pytest.approx(5e3) and logits.grad.flatten().tolist() == [-0.5, 0]  # type: ignore[union-attr]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 60), st.floats(-4, 4))
def test_auc_is_the_rank_statistic(seed: int, reals: int, fakes: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Scores on a coarse grid of their own, so that there are draws and none that only the histogram makes.
    real = ((torch.randn(reals, generator=generator) + shift) * 2).round() / 4
    fake = (torch.randn(fakes, generator=generator) * 2).round() / 4
    auc = float(domain_auc(real, fake))
    assert auc == pytest.approx(stats.mannwhitneyu(real.numpy(), fake.numpy()).statistic / (reals * fakes), abs=1e-9)
    scores, truth = torch.cat([real, fake]), torch.cat([torch.ones(reals), torch.zeros(fakes)]).long()
    # Rounded: the same logit may come out of a vectorised sigmoid with another last bit, which is no draw to torchmetrics.
    assert auc == pytest.approx(float(binary_auroc(scores.double().sigmoid().round(decimals=9), truth)), abs=1e-5)


def test_auc_of_the_extremes() -> None:
    assert float(domain_auc(torch.full((9,), 20.0), torch.full((5,), -20.0))) == 1
    assert float(domain_auc(torch.full((9,), -20.0), torch.full((5,), 20.0))) == 0
    assert float(domain_auc(torch.ones(4), torch.ones(3))) == 0.5
    assert math.isnan(float(domain_auc(torch.ones(0), torch.ones(3))))


def test_levels_combine_as_named() -> None:
    logits = 6 * torch.randn(3, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    s = logits.sigmoid()
    torch.testing.assert_close(combine_levels(logits, "mean"), (s[0] + s[1] + s[2]) / 3)
    torch.testing.assert_close(combine_levels(logits, "prod"), s[0] * s[1] * s[2])


@pytest.mark.parametrize("combination", ["mean", "prod"])
def test_scores_stay_between_zero_and_one(combination: Any) -> None:
    logits = torch.linspace(-10, 10, 300).view(3, 1, 10, 10)
    w = combine_levels(logits, combination)
    assert w.shape == (1, 10, 10) and bool(((w > 0) & (w < 1)).all())


def train(net: DomainDiscriminators, source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], steps: int) -> None:
    """Predictions and labels of both domains, four of each at a step."""
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    everything = torch.ones(4, 32, 64, dtype=torch.bool)
    for _ in range(steps):
        loss = torch.zeros(())
        for (p, label), real in ((source, False), (target, True)):
            drawn = torch.randint(len(p), (4,))
            loss = loss + domain_loss(net(p[drawn], label[drawn]), real, everything, everything.sum())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def city_predictions() -> tuple[Tensor, Tensor]:
    """Confident predictions p (24, 9, 32, 64) with the structure of street scenes, and the labels."""
    images = MiniCity("target", train=24, val=2, test=2, size=(32, 64)).images("train", None)  # type: ignore[arg-type]
    label = torch.from_numpy(np.stack([images.label(i) for i in range(24)])).long()
    label[label == 255] = 0
    return F.one_hot(label, 9).movedim(-1, 1).float() * 0.8 + 0.2 / 9, label


@pytest.mark.parametrize("per_class", [False, True])
def test_the_same_domain_twice_cannot_be_told_apart(per_class: bool) -> None:
    torch.manual_seed(0)
    p, label = city_predictions()
    net = DomainDiscriminators(9, 9, per_class=per_class, width=8, cell=8)
    train(net, (p, label), (p, label), 50)
    with torch.no_grad():
        logits = net(p, label)
    w = combine_levels(logits, "mean")
    # Trained on 24 images, asked about two halves of them.
    for one in logits:
        assert abs(float(domain_auc(one[:12], one[12:])) - 0.5) < 0.15
    assert float((w - 0.5).abs().mean()) < 0.05


@pytest.mark.parametrize("per_class", [False, True])
def test_shuffled_structure_loses_weight(per_class: bool) -> None:
    torch.manual_seed(0)
    p, label = city_predictions()
    shuffled, labels = p.clone(), label.clone()
    order = torch.randperm(32 * 32)
    shuffled[..., :32] = p[..., :32].flatten(2)[..., order].unflatten(2, (32, 32))
    labels[..., :32] = label[..., :32].flatten(1)[..., order].unflatten(1, (32, 32))
    net = DomainDiscriminators(9, 9, ("pixel", "region"), per_class=per_class, width=8, cell=8)
    train(net, (shuffled[:12], labels[:12]), (p[12:], label[12:]), 40)
    with torch.no_grad():
        for score in net(shuffled[:12], labels[:12]).sigmoid():
            assert float(score[..., :32].mean()) < float(score[..., 32:].mean()) - 0.15


@pytest.mark.parametrize("net", [PixelDiscriminator(5, 1, 4), ImageDiscriminator(5, 1, 4, 8)])
def test_half_precision_answers_in_single(net: nn.Module) -> None:
    p, label = example()
    with torch.autocast("cpu", torch.bfloat16):
        assert net(p).dtype == torch.bfloat16
        assert networks()(p, label).dtype == torch.float32
