"""The forward-mode hypergradient against second-order autograd, in float64, on real architectures in training mode."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.bilevel import (
    Engine,
    Hypergradient,
    LostTangentError,
    OptimizerStep,
    Replayed,
    SGDStep,
    VirtualStep,
    hypergradient,
    pixel_jvp,
)
from segzoo.losses import pixel_cross_entropy
from segzoo.models.segmenter import create_segmenter

ARCHITECTURES = [
    ("unet", "resnet18", {}),
    ("deeplabv3plus", "resnet18", {}),
    ("fpn", "tu-tf_efficientnet_lite0", {"decoder_dropout": 0.3}),
    ("segformer", "mit_b0", {}),
    ("pspnet", "mobilenet_v2", {"psp_dropout": 0.3}),
    ("upernet", "tu-convnext_atto", {}),
]


@dataclass
class Problem:
    """A segmenter, a source and a target batch."""

    net: nn.Module
    source: tuple[Tensor, Tensor]
    target: tuple[Tensor, Tensor]
    weights: Tensor

    @property
    def params(self) -> dict[str, Tensor]:
        return dict(self.net.named_parameters())

    def source_losses(self, seed: int = 1) -> Replayed:
        image, label = self.source
        return Replayed(self.net, image, lambda z: pixel_cross_entropy(z, label), seed)

    def target_loss(self, seed: int = 2) -> Replayed:
        image, label = self.target
        return Replayed(self.net, image, lambda z: F.cross_entropy(z, label, ignore_index=255), seed)

    def solve(self, engine: Engine, step: VirtualStep, **kwargs: Any) -> Hypergradient:
        return hypergradient(
            self.net,
            self.source_losses(),
            kwargs.pop("target", self.target_loss()),
            self.params,
            self.weights,
            float(self.weights.numel()),
            step,
            engine,
            **kwargs,
        )


def problem(net: nn.Module, size: int = 64, classes: int = 5) -> Problem:
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Tensor, Tensor]:
        image = torch.rand(2, 3, size, size, generator=generator, dtype=torch.float64)
        label = torch.randint(classes, (2, size, size), generator=generator)
        label[torch.rand(label.shape, generator=generator) < 0.1] = 255
        return image, label

    source, target = batch(), batch()
    weights = torch.rand(2, size, size, generator=generator, dtype=torch.float64)
    return Problem(net.double().train(), source, target, weights)


def toy(seed: int = 0) -> Problem:
    """Convolution, batch norm, dropout: everything that can go wrong, in milliseconds."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(), nn.Dropout2d(0.5), nn.Conv2d(8, 5, 3, padding=1)
    )
    return problem(net, size=8)


def relative_error(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def buffers(net: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in net.named_buffers()}


@pytest.mark.parametrize(("architecture", "encoder", "options"), ARCHITECTURES, ids=[a[0] for a in ARCHITECTURES])
def test_forward_equals_double_backward(architecture: str, encoder: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    p = problem(create_segmenter(architecture, encoder, 5, options=options))
    before = buffers(p.net)
    step = SGDStep(0.1)
    forward, reference = p.solve("forward", step), p.solve("double_backward", step)
    assert relative_error(forward.weights, reference.weights) < 1e-10
    assert float(forward.weights[p.source[1] == 255].abs().max()) == 0
    for name, buffer in p.net.named_buffers():
        assert torch.equal(buffer, before[name]), f"{name} was changed by an extra pass"


def test_a_wrong_dropout_mask_is_noticed() -> None:
    p = toy()
    reference = p.solve("double_backward", SGDStep(0.1)).weights
    hyper = p.solve("forward", SGDStep(0.1))
    other_masks = -pixel_jvp(p.source_losses(seed=7), p.params, {k: 0.1 * v for k, v in hyper.target.items()}, p.net)[1]
    assert relative_error(hyper.weights, reference) < 1e-12
    assert relative_error(other_masks / p.weights.numel(), reference) > 0.1


def test_a_target_gradient_at_theta_is_noticed() -> None:
    p = toy()
    reference = p.solve("double_backward", SGDStep(1.0)).weights
    grads = torch.autograd.grad(p.target_loss()(p.params), list(p.params.values()))
    v_at_theta = dict(zip(p.params, grads, strict=True))
    slopes = pixel_jvp(p.source_losses(), p.params, v_at_theta, p.net)[1]
    assert relative_error(-slopes / p.weights.numel(), reference) > 1e-3


def test_the_first_gradient_matches_a_numerical_derivative() -> None:
    # Independent of both derivative modes: nudge one weight, take the step, look at the target loss.
    p = toy()
    step, weights = SGDStep(0.5), p.weights
    exact = p.solve("forward", step).weights

    def after_step(w: Tensor) -> float:
        params = {k: v.detach().requires_grad_() for k, v in p.params.items()}
        loss = (w * p.source_losses()(params)).sum() / w.numel()
        grads = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
        return float(p.target_loss()(step.update(params, grads)))

    pixels = torch.randint(8, (20, 2), generator=torch.Generator().manual_seed(3)).tolist()
    for row, column in pixels:
        nudge = torch.zeros_like(weights)
        nudge[0, row, column] = 1e-2
        slope = (after_step(weights + nudge) - after_step(weights - nudge)) / 2e-2
        assert slope == pytest.approx(float(exact[0, row, column]), rel=1e-4, abs=1e-12)


def test_finite_difference_is_close_on_a_smooth_network() -> None:
    p = toy()
    reference = p.solve("double_backward", SGDStep(0.1)).weights
    assert 1e-14 < relative_error(p.solve("finite_difference", SGDStep(0.1), radius=1e-3).weights, reference) < 1e-4


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.01),
}


@pytest.mark.parametrize("steps_before", [0, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_virtual_step_is_the_optimizers_step(name: str, steps_before: int) -> None:
    p = toy()
    optimizer = OPTIMIZERS[name](p.net.parameters())
    for seed in range(steps_before):
        optimizer.zero_grad()
        p.target_loss(seed)(p.params).backward()
        optimizer.step()
    step = OptimizerStep(optimizer, p.params)
    forward, reference = p.solve("forward", step), p.solve("double_backward", step)
    # Adam's very first step is nearly the sign of the gradient: its slope is as small as eps, mere rounding.
    if not (name.startswith("adam") and steps_before == 0):
        assert relative_error(forward.weights, reference.weights) < 1e-10
    assert torch.isfinite(forward.weights).all()

    moved = step.update(p.params, forward.source)
    for key, parameter in p.params.items():
        parameter.grad = forward.source[key].clone()
    optimizer.step()
    for key, parameter in p.params.items():
        torch.testing.assert_close(moved[key], parameter, rtol=1e-10, atol=1e-12)


def test_a_parameter_without_gradient_has_no_step_and_no_slope() -> None:
    net = nn.Linear(2, 1).double()
    step = OptimizerStep(torch.optim.Adam(net.parameters(), lr=0.1), dict(net.named_parameters()))
    params = dict(net.named_parameters())
    zero = {name: torch.zeros_like(p) for name, p in params.items()}
    ones = {name: torch.ones_like(p) for name, p in params.items()}
    assert all(bool((u == 0).all()) for u in step.transpose(params, zero, ones).values())
    assert all(torch.equal(moved, params[name]) for name, moved in step.update(params, zero).items())


def test_an_unknown_optimizer_is_refused() -> None:
    net = nn.Linear(2, 1)
    with pytest.raises(TypeError, match="Adadelta"):
        OptimizerStep(torch.optim.Adadelta(net.parameters()), dict(net.named_parameters()))


def test_a_lost_tangent_is_an_error() -> None:
    p = toy()
    detached = Replayed(p.net, p.source[0], lambda z: z.detach().sum(1), 1)
    with pytest.raises(LostTangentError, match="no tangent"):
        pixel_jvp(detached, p.params, dict(p.params), p.net)


def test_fused_attention_is_avoided() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Conv2d(3, 24, 1)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).flatten(2).transpose(1, 2)[:, None].chunk(3, dim=-1)
            mixed = F.scaled_dot_product_attention(q, k, v)
            return mixed[:, 0].transpose(1, 2).unflatten(2, x.shape[-2:])

    torch.manual_seed(0)
    p = problem(Attention(), size=8)
    forward, reference = p.solve("forward", SGDStep(0.1)), p.solve("double_backward", SGDStep(0.1))
    assert relative_error(forward.weights, reference.weights) < 1e-10


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.BatchNorm2d(8).eval()], ids=["bn", "gn", "eval"]
)
def test_bfloat16_keeps_tangents_in_the_dtype_of_their_values(norm: nn.Module) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.Tanh(), nn.Conv2d(8, 5, 3, padding=1))
    p = problem(net, size=16)
    norm.train(norm.training)
    reference = p.solve("double_backward", SGDStep(0.1)).weights
    net.float()
    p.source, p.target = ((x.float(), y) for x, y in (p.source, p.target))
    p.weights = p.weights.float()
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        low = p.solve("forward", SGDStep(0.1)).weights
    assert float(F.cosine_similarity(low.double().flatten(), reference.flatten(), dim=0)) > 0.99


def test_the_result_does_not_depend_on_the_length_of_the_direction() -> None:
    p = toy()
    direction = {name: torch.randn_like(q) for name, q in p.params.items()}
    small = {name: 1e-30 * t for name, t in direction.items()}
    big = pixel_jvp(p.source_losses(), p.params, direction, p.net)[1]
    torch.testing.assert_close(pixel_jvp(p.source_losses(), p.params, small, p.net)[1] * 1e30, big)
