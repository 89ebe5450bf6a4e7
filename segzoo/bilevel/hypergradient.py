"""The three ways to the same gradient: one forward-mode pass, a second-order graph, or finite differences."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from segzoo.bilevel.jvp import pixel_jvp
from segzoo.bilevel.replay import Params
from segzoo.bilevel.virtual import VirtualStep

Engine = Literal["forward", "double_backward", "finite_difference"]


@dataclass(frozen=True)
class Hypergradient:
    """Everything a step computed on the way; the gradients are there to be used again.

    Attributes:
        weights: dL_T(theta') / dw, of the weights' shape.
        source: g = grad (1/N) sum_i w_i l_i at theta, by parameter name.
        target: v = grad L_T at theta', by parameter name.
        pixel_losses: l_i(theta), of the weights' shape, detached.
        target_loss: L_T(theta'), detached.
    """

    weights: Tensor
    source: Params
    target: Params
    pixel_losses: Tensor
    target_loss: Tensor


def hypergradient(
    module: nn.Module,
    source: Callable[[Params], Tensor],
    target: Callable[[Params], Tensor],
    params: Params,
    weights: Tensor,
    count: Tensor | float,
    step: VirtualStep,
    engine: Engine = "forward",
    average: Callable[[Params], Params] = lambda gradients: gradients,
    radius: float = 0.01,
) -> Hypergradient:
    """The gradient of the target loss after one step on the weighted source loss.

    Args:
        module: what both losses call.
        source: params -> per-pixel losses l_i (any shape); the same masks and no buffer updates at every call (`Replayed`).
        target: params -> scalar L_T.
        params: theta, by name.
        weights: w, of the loss map's shape, detached.
        count: N, the denominator of the weighted loss.
        step: the virtual step.
        engine: ``forward`` is exact at the cost of one dual forward pass; ``double_backward`` is exact, for reference;
            ``finite_difference`` approximates and works where neither derivative exists.
        average: mean over the ranks of a distributed run; both g and v are averaged before they are used. The result is
            then the gradient of the mean target loss, times the number of ranks, as averaged gradients want it.
        radius: length of the finite difference.

    Raises:
        LostTangentError: engine ``forward`` on a module that swallows tangents.
    """
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    if engine == "double_backward":
        return _double_backward(source, target, leaves, weights, count, step, average)
    losses = source(leaves)
    g = average(_gradients((weights * losses).sum() / count, leaves))
    losses = losses.detach()
    with torch.no_grad():
        moved = {name: p.requires_grad_() for name, p in step.update(params, g).items()}
    target_loss = target(moved)
    v = average(_gradients(target_loss, moved))
    with torch.no_grad():
        u = step.transpose(params, g, v)
    forward = engine == "forward"
    slopes = pixel_jvp(source, params, u, module)[1] if forward else _difference(source, params, u, radius)
    return Hypergradient(-slopes / count, g, v, losses, target_loss.detach())


def _double_backward(
    source: Callable[[Params], Tensor],
    target: Callable[[Params], Tensor],
    leaves: Params,
    weights: Tensor,
    count: Tensor | float,
    step: VirtualStep,
    average: Callable[[Params], Params],
) -> Hypergradient:
    w = weights.detach().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        losses = source(leaves)
        local = _gradients((w * losses).sum() / count, leaves, create_graph=True)
        mean = average({name: g.detach() for name, g in local.items()})
        # The value of the mean with the graph of this rank's part.
        g = {name: local[name] + (mean[name] - local[name]).detach() for name in local}
        moved = step.update(leaves, g)
    point = {name: p.detach().requires_grad_() for name, p in moved.items()}
    target_loss = target(point)
    v = average(_gradients(target_loss, point))
    (slope,) = torch.autograd.grad([moved[name] for name in v], w, [v[name] for name in v])
    return Hypergradient(slope, mean, v, losses.detach(), target_loss.detach())


@torch.no_grad()
def _difference(source: Callable[[Params], Tensor], params: Params, u: Params, radius: float) -> Tensor:
    norm = torch.linalg.vector_norm(torch.stack([t.norm() for t in u.values()])).clamp_min(1e-30)
    ends = (source({name: p + sign * radius / norm * u[name] for name, p in params.items()}) for sign in (1.0, -1.0))
    return (next(ends) - next(ends)) * (norm / (2 * radius))


def _gradients(loss: Tensor, params: Params, create_graph: bool = False) -> Params:
    grads = torch.autograd.grad(
        loss, list(params.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(params, grads, strict=True))
