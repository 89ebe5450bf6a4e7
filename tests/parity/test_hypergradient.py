"""The forward-mode hypergradient against second-order autograd, in float64, on real architectures in training mode."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.bilevel import (
    LostTangentError,
    MissingDerivativeError,
    Replayed,
    SGDStep,
    attach_gradient,
    hypergradient,
    pixel_jvp,
)
from segzoo.losses import pixel_cross_entropy
from segzoo.models.norms import Norm
from segzoo.models.segmenter import Scope, create_segmenter
from tests.parity.problems import buffers, problem, relative_error, toy

ARCHITECTURES = [
    ("unet", "resnet18", {}),
    ("deeplabv3plus", "resnet18", {}),
    ("fpn", "tu-tf_efficientnet_lite0", {"decoder_dropout": 0.3}),
    ("segformer", "mit_b0", {}),
    ("pspnet", "mobilenet_v2", {"psp_dropout": 0.3}),
    ("upernet", "tu-convnext_atto", {}),
    ("deeplabv2", "resnet18", {}),
    ("daformer", "mit_b0", {"channels": 32, "dropout": 0.3}),
]


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize(("architecture", "encoder", "options"), ARCHITECTURES, ids=[a[0] for a in ARCHITECTURES])
def test_forward_equals_double_backward(architecture: str, encoder: str, options: dict[str, Any], norm: Norm) -> None:
    torch.manual_seed(0)
    p = problem(create_segmenter(architecture, encoder, 5, norm=norm, options=options))
    before, at = buffers(p.net), {name: q.detach().clone() for name, q in p.params.items()}
    step = SGDStep(0.1)
    forward, reference = p.solve("forward", step), p.solve("double_backward", step)
    assert relative_error(forward.weights, reference.weights) < 1e-11
    assert relative_error(_flat(forward.gradient), _flat(reference.gradient)) < 1e-11
    assert all(torch.equal(q, at[name]) for name, q in p.params.items()), "theta was not restored"
    assert float(forward.weights[p.source[1] == 255].abs().max()) == 0
    for name, buffer in p.net.named_buffers():
        assert torch.equal(buffer, before[name]), f"{name} was changed by an extra pass"


def _flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients.values()])


def test_gradcheck() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 5, 3, padding=1))
    p = problem(net, size=4)

    def one_step(w: Tensor) -> Tensor:
        p.weights = w.detach()
        hyper = p.solve("forward", SGDStep(0.5))
        return attach_gradient(hyper.target_loss, [w], [hyper.weights])

    w = p.weights.clone().requires_grad_()
    assert torch.autograd.gradcheck(one_step, w, eps=1e-3, atol=1e-8, rtol=1e-4)


@pytest.mark.parametrize("scope", ["decoder", "head"])
def test_a_part_of_the_network_can_be_stepped_alone(scope: Scope) -> None:
    torch.manual_seed(0)
    net = create_segmenter("unet", "resnet18", 5)
    p = problem(net)
    names = list(net.parameters_of(scope))
    assert 0 < len(names) < len(p.params)
    step = SGDStep(0.5)
    forward, reference = (p.solve(e, step, scope=names) for e in ("forward", "double_backward"))  # type: ignore[arg-type]
    assert relative_error(forward.weights, reference.weights) < 1e-12
    assert forward.gradient.keys() == p.params.keys()
    runs: list[bool] = []
    net.network.encoder.conv1.register_forward_hook(lambda *_: runs.append(True))
    alone = p.solve("forward", step, scope=names, reuse="nothing")
    assert len(runs) == 2  # source and target: no tangent reaches the encoder
    assert not alone.gradient and torch.equal(alone.weights, forward.weights)
    assert relative_error(p.solve("forward", step).weights, reference.weights) > 1e-3


def test_micro_batches_are_one_batch() -> None:
    torch.manual_seed(0)
    p = problem(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Tanh(), nn.Conv2d(8, 5, 1)), size=8)
    whole = p.solve("forward", SGDStep(0.5))
    count = float((p.target[1] != 255).sum())

    def source(i: int) -> Replayed:
        return Replayed(p.net, p.source[0][i : i + 1], lambda z: pixel_cross_entropy(z, p.source[1][i : i + 1]), 1)

    def target(i: int) -> Replayed:
        loss = lambda z: pixel_cross_entropy(z, p.target[1][i : i + 1]).sum() / count  # noqa: E731
        return Replayed(p.net, p.target[0][i : i + 1], loss, 1)

    for engine in ("forward", "double_backward"):
        parts = hypergradient(
            p.net,
            [source(0), source(1)],
            [target(0), target(1)],
            p.params,
            p.weights,
            float(p.weights.numel()),
            SGDStep(0.5),
            engine,  # type: ignore[arg-type]
        )
        for a, b in ((parts.weights, whole.weights), (parts.pixel_losses, whole.pixel_losses)):
            assert relative_error(a, b) < 1e-12
        assert relative_error(_flat(parts.gradient), _flat(whole.gradient)) < 1e-12
        assert parts.target_loss == pytest.approx(float(whole.target_loss), rel=1e-12)


def test_the_loss_scale_leaves_no_trace() -> None:
    p = toy()
    scaled, plain = p.solve("forward", SGDStep(0.5), scale=1024.0), p.solve("forward", SGDStep(0.5))
    assert relative_error(scaled.weights, plain.weights) < 1e-12


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_with_a_loss_scale_an_overflow_shows_in_g_alone(scale: float) -> None:
    p = toy()
    p.weights *= torch.inf
    result = p.solve("forward", SGDStep(0.5), scale=scale, reuse="g")
    assert torch.isfinite(result.target_loss)
    assert not all(torch.isfinite(g).all() for g in result.gradient.values())


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 8), nn.BatchNorm2d(8)])
@pytest.mark.parametrize("keep", [True, False])
def test_channels_last_and_dropout(norm: nn.Module, keep: bool) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.Dropout(0.5), nn.Conv2d(8, 5, 3, padding=1))
    p = problem(net, size=8)
    p.net.to(memory_format=torch.channels_last)
    p.source, p.target = (
        (image.contiguous(memory_format=torch.channels_last), label) for image, label in (p.source, p.target)
    )
    found = p.solve("forward", SGDStep(0.5), keep=keep)
    assert relative_error(found.weights, p.solve("double_backward", SGDStep(0.5)).weights) < 1e-11


def test_a_layer_without_second_derivative_is_named() -> None:
    p = problem(nn.Sequential(nn.Conv2d(3, 5, 1), nn.Hardsigmoid()), size=8)
    with pytest.raises(MissingDerivativeError, match=r"hardsigmoid_backward .* use the engine 'forward'"):
        p.solve("double_backward", SGDStep(0.5))


def test_theta_is_restored_after_an_error() -> None:
    p = toy()
    at = {name: q.detach().clone() for name, q in p.params.items()}

    def broken(_: Any) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        p.solve("forward", SGDStep(0.5), target=Replayed(p.net, p.target[0], broken, 1))
    assert all(torch.equal(q, at[name]) for name, q in p.params.items())


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_the_same_derivative_matches_gradients_through_soft_labels(distance: str) -> None:
    # L_s = -(1/N) sum q_ic log p_ic is linear in q: dD/dq_ic = -(1/N) <grad log p_ic, dD/dg>, for any distance D.
    p = toy()
    image, n = p.source[0], float(p.source[1].numel())
    log_p = Replayed(p.net, image, lambda z: z.log_softmax(1), 1)
    real = list(torch.autograd.grad(p.target_loss()(p.params), list(p.params.values())))
    q = torch.rand(2, 5, 8, 8, dtype=torch.float64).softmax(1).requires_grad_()
    g = torch.autograd.grad(-(q * log_p(p.params)).sum() / n, list(p.params.values()), create_graph=True)

    def apart(ours: Any) -> Tensor:
        pairs = list(zip(ours, real, strict=True))
        if distance == "l2":
            return torch.stack([(a - b).square().sum() for a, b in pairs]).sum()
        return torch.stack([1 - F.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in pairs]).sum()

    (reference,) = torch.autograd.grad(apart(g), q, retain_graph=True)
    ours = [t.detach().requires_grad_() for t in g]
    r = dict(zip(p.params, torch.autograd.grad(apart(ours), ours), strict=True))
    assert relative_error(-pixel_jvp(log_p, p.params, r)[1] / n, reference) < 1e-10


def test_a_wrong_dropout_mask_is_noticed() -> None:
    p = toy()
    reference = p.solve("double_backward", SGDStep(0.1)).weights
    hyper, g = p.solve("forward", SGDStep(0.1)), p.solve("forward", SGDStep(0.1), reuse="g").gradient
    u = {name: 0.1 * (both - g[name]) for name, both in hyper.gradient.items()}
    assert relative_error(-pixel_jvp(p.source_losses(), p.params, u)[1] / p.weights.numel(), reference) < 1e-10
    other_masks = -pixel_jvp(p.source_losses(seed=7), p.params, u)[1]
    assert relative_error(hyper.weights, reference) < 1e-12
    assert relative_error(other_masks / p.weights.numel(), reference) > 0.1


def test_a_target_gradient_at_theta_is_noticed() -> None:
    p = toy()
    reference = p.solve("double_backward", SGDStep(1.0)).weights
    grads = torch.autograd.grad(p.target_loss()(p.params), list(p.params.values()))
    v_at_theta = dict(zip(p.params, grads, strict=True))
    slopes = pixel_jvp(p.source_losses(), p.params, v_at_theta)[1]
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
        return float(p.target_loss()(step.update(params, grads)).detach())

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


def test_a_lost_tangent_is_an_error() -> None:
    p = toy()
    detached = Replayed(p.net, p.source[0], lambda z: z.detach().sum(1), 1)
    with pytest.raises(LostTangentError, match="no tangent"):
        pixel_jvp(detached, p.params, dict(p.params))


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


def test_a_missing_derivative_is_an_error() -> None:
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return grads[0]

    p = toy()
    opaque = Replayed(p.net, p.source[0], lambda z: Opaque.apply(z).sum(1), 1)
    with pytest.raises(MissingDerivativeError, match="finite_difference"):
        pixel_jvp(opaque, p.params, dict(p.params))
