"""The hypergradient through several steps of descent: theta_0 -> ... -> theta_K, each on weighted losses of its own.

    theta_k+1 = theta_k - a g_k,                g_k = grad (1/N) sum_i w_i l_i(theta_k)
    z_K       = grad L_T(theta_K)
    dL_T/dw_i = -(a/N) <grad l_i(theta_k), z_k+1>            for the pixels of step k
    z_k       = z_k+1 - a H_k z_k+1,                        H_k the Hessian of the weighted loss at theta_k

One forward-over-reverse pass gives the pixels' inner products and H_k z together. Leaving H_k out is the first-order chain.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segzoo.bilevel.duals import unpack_dual
from segzoo.bilevel.engines import Pass
from segzoo.bilevel.errors import LostTangentError, MissingDerivativeError
from segzoo.bilevel.jvp import dual, pixel_jvp, unit_direction
from segzoo.bilevel.passes import Params, check_weights


@dataclass(frozen=True)
class UnrolledHypergradient:
    """The gradient through all steps, and the loss at their end.

    Attributes:
        weights: dL_T(theta_K) / dw of every step, each of its weights' shape.
        target_loss: L_T(theta_K), detached.
    """

    weights: list[Tensor]
    target_loss: Tensor


def unrolled_hypergradient(
    sources: Sequence[Pass],
    target: Pass,
    params: Mapping[str, Tensor],
    weights: Sequence[Tensor],
    counts: Sequence[Tensor | float],
    lr: float,
    exact: bool = True,
    average: Callable[[Params], Params] = lambda gradients: gradients,
) -> UnrolledHypergradient:
    """The gradient of the target loss after K = ``len(sources)`` steps of plain descent.

    Args:
        sources: per-pixel losses of each step; the same masks and no buffer updates at every call.
        target: the scalar L_T.
        params: theta_0 by name; they stay where they are, the K points are copies.
        weights: per step, detached.
        counts: N of each step.
        lr: a.
        exact: follow the curvature H_k; otherwise the first-order chain, at the cost of one dual forward pass per step.
        average: mean over the ranks of a distributed run.

    Raises:
        LostTangentError: see `pixel_jvp`.
        MissingDerivativeError: ``exact`` through a layer without it, such as group norm.
        ValueError: the weights' shape is not that of the losses.
    """
    points: list[Params] = [{name: p.detach() for name, p in params.items()}]
    for source, w, count in zip(sources, weights, counts, strict=True):
        leaves = _leaves(points[-1])
        losses = source(leaves)
        check_weights(w, losses)
        g = average(_gradients((w * losses).sum() / count, leaves))
        points.append({name: p - lr * g[name] for name, p in points[-1].items()})
    leaves = _leaves(points.pop())
    target_loss = target(leaves)
    z = average(_gradients(target_loss, leaves))
    slopes: list[Tensor] = []
    for k in reversed(range(len(sources))):
        if exact and k > 0:  # nothing comes before the first step that could use its H z
            tangents, hz = _slopes_and_curvature(sources[k], points[k], weights[k], counts[k], z)
            hz = average(hz)
        else:
            tangents, hz = pixel_jvp(sources[k], points[k], z)[1], None
        slopes.append(-(lr / counts[k]) * tangents)
        if hz is not None:
            z = {name: t - lr * hz[name] for name, t in z.items()}
    return UnrolledHypergradient(slopes[::-1], target_loss.detach())


def _slopes_and_curvature(
    source: Pass, point: Params, weights: Tensor, count: Tensor | float, z: Params
) -> tuple[Tensor, Params]:
    """<grad l_i, z> of every pixel, and H z: the tangents of the losses and of their gradient along z."""
    leaves = _leaves(point)
    unit, norm = unit_direction(z)
    with dual(leaves, unit, with_graph=True) as duals:
        losses = source(duals)
        try:
            gradients = _gradients((weights * losses).sum() / count, leaves)
        except NotImplementedError as error:
            raise MissingDerivativeError(
                f"the exact chain needs a second derivative that does not exist ({' '.join(str(error).split())[:120]}); "
                "use the first-order chain, a single step, or batch instead of group normalisation"
            ) from error
        tangents = unpack_dual(losses).tangent
        hz = {name: unpack_dual(g).tangent for name, g in gradients.items()}
    if tangents is None:
        raise LostTangentError("the loss map carries no tangent (see `pixel_jvp`)")
    zero = {name: torch.zeros_like(p) for name, p in point.items()}
    return tangents.detach() * norm, {name: zero[name] if t is None else t.detach() * norm for name, t in hz.items()}


def _leaves(point: Mapping[str, Tensor]) -> Params:
    return {name: p.detach().requires_grad_() for name, p in point.items()}


def _gradients(loss: Tensor, params: Params) -> Params:
    grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(params, grads, strict=True))
