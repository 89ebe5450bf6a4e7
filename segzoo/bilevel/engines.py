"""The three ways to the same gradient: one forward-mode pass, a second-order graph, or finite differences."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from segzoo.bilevel.errors import MissingDerivativeError
from segzoo.bilevel.jvp import refuse_sharded, unit_jvp, whole_norm
from segzoo.bilevel.kept import Kept
from segzoo.bilevel.passes import Params, check_weights, is_sharded, moved
from segzoo.bilevel.virtual import VirtualStep
from segzoo.compat.tensors import add_all_, divide_all_

Engine = Literal["forward", "double_backward", "finite_difference"]


class Pass(Protocol):
    """A loss as a function of the parameters; of the module's own when called without (`Replayed`)."""

    def __call__(self, params: Mapping[str, Tensor] | None = None, /) -> Tensor: ...


@dataclass(frozen=True)
class Hypergradient:
    """What a step computed on the way, for use again.

    Attributes:
        weights: dL_T(theta') / dw, of the weights' shape.
        gradient: g = grad (1/N) sum_i w_i l_i at theta, or g + v with v = grad L_T at theta', by parameter name; see ``reuse``.
        pixel_losses: l_i(theta), of the weights' shape, detached.
        target_loss: L_T(theta'), detached.
    """

    weights: Tensor
    gradient: Params
    pixel_losses: Tensor
    target_loss: Tensor


def hypergradient(
    module: nn.Module,
    source: Sequence[Pass],
    target: Sequence[Pass],
    params: Mapping[str, Tensor],
    weights: Tensor,
    count: Tensor | float,
    step: VirtualStep,
    engine: Engine = "forward",
    average: Callable[[Params], Params] = lambda gradients: gradients,
    scope: Iterable[str] | None = None,
    reuse: Literal["nothing", "g", "g + v"] = "g + v",
    keep: bool = True,
    scale: float | None = None,
    radius: float = 0.01,
) -> Hypergradient:
    """The gradient of the target loss after one step on the weighted source loss.

    Args:
        module: what both losses call.
        source: per-pixel losses l_i of each micro-batch, (B, ...); the same masks and no buffer updates at every call.
        target: parts of the scalar L_T, one per micro-batch, which add up to it.
        params: theta: the module's own parameters, by name. They are moved to theta' and back.
        weights: w, of the shape of all loss maps joined along the first dimension, detached.
        count: N, the denominator of the weighted loss.
        step: the virtual step.
        engine: ``forward`` is exact at the cost of one dual forward pass; ``double_backward`` is exact, for reference;
            ``finite_difference`` approximates and works where neither derivative exists.
        average: mean over the ranks of a distributed run; both g and v are averaged before they are used. The result is
            then the gradient of the mean target loss, times the number of ranks, as averaged gradients want it.
        scope: names of the parameters that the virtual step moves; all when None. The rest stay where they are.
        reuse: what the caller wants of the gradients. v is taken for all parameters if it is to be used again, else for those
            of the scope; nothing is kept longer than needed, as each is as large as the network.
        keep: engine ``forward`` uses again what large convolutions and linear layers returned in the source passes. It then
            takes two forward passes instead of three, skips all layers before the scope, and needs the memory of the kept
            maps (`segzoo.bilevel.kept`).
        scale: factor on both losses during their backward passes, taken out of the gradients again: float16 needs it (not in
            ``double_backward``). With one, an overflow of g shows in g alone.
        radius: length of the finite difference.

    Raises:
        LostTangentError: engine ``forward`` on a module that swallows tangents.
        ShardedParametersError: engine ``forward`` or ``double_backward`` on the sharded parameters of FSDP2.
        ValueError: the weights' shape is not that of the losses.
    """
    names = list(params) if scope is None else list(scope)
    if engine != "finite_difference":
        refuse_sharded(params)
    if engine == "double_backward":
        return _double_backward(source, target, params, weights, count, step, average, names, reuse)
    if keep and engine == "forward":
        source = [Kept(micro_batch, module, names) for micro_batch in source]
    losses, g = _source_gradient(source, params, weights, count, scale or 1.0)
    g = average(g)
    own, g_own = {name: params[name] for name in names}, {name: g[name] for name in names}
    with torch.no_grad():
        ahead = step.update(own, g_own)
        if scale is not None:
            # An overflow shall show in g, where the scaler of the losses looks, and not make L_T a NaN.
            finite = torch.stack([torch.isfinite(t).all() for t in g_own.values()]).all()
            ahead = {name: torch.where(finite, p, own[name]) for name, p in ahead.items()}
    with moved(params, ahead):
        target_loss, v = _target_gradient(target, params if reuse == "g + v" else own, scale or 1.0)
    del ahead
    v = average(v)
    with torch.no_grad():
        u = step.transpose(own, g_own, {name: v[name] for name in names})
    gradient = _reusable(g, v, reuse)
    del g, g_own, v
    if engine == "forward":
        norm = whole_norm(u)
        divide_all_(list(u.values()), norm)  # in place: a copy would be as large as the network
        slopes = norm * torch.cat([unit_jvp(micro_batch, params, u)[1] for micro_batch in source])
    else:
        slopes = _difference(source, params, u, radius)
    return Hypergradient(-slopes / count, gradient, losses, target_loss)


def _reusable(g: Params, v: Params, reuse: str) -> Params:
    if reuse == "nothing":
        return {}
    if reuse == "g + v":
        add_all_(list(g.values()), [v[name] for name in g])
    return g


def _source_gradient(
    source: Sequence[Pass], params: Mapping[str, Tensor], weights: Tensor, count: Tensor | float, scale: float
) -> tuple[Tensor, Params]:
    maps: list[Tensor] = []
    total: Params = {}
    first = 0
    for micro_batch in source:
        losses = micro_batch()
        w = weights[first : first + len(losses)] if weights.dim() else weights
        first += len(losses)
        check_weights(w, losses)
        total = _add(total, _gradients(scale * ((w * losses).sum() / count), params))
        maps.append(losses.detach())
    whole = torch.cat(maps)
    check_weights(weights, whole)
    return whole, _divide(total, scale)


def _target_gradient(target: Sequence[Pass], params: Mapping[str, Tensor], scale: float) -> tuple[Tensor, Params]:
    values: list[Tensor] = []
    total: Params = {}
    for micro_batch in target:
        loss = micro_batch()
        total = _add(total, _gradients(scale * loss, params))
        values.append(loss.detach())
    return torch.stack(values).sum(), _divide(total, scale)


def _double_backward(
    source: Sequence[Pass],
    target: Sequence[Pass],
    params: Mapping[str, Tensor],
    weights: Tensor,
    count: Tensor | float,
    step: VirtualStep,
    average: Callable[[Params], Params],
    names: list[str],
    reuse: str,
) -> Hypergradient:
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    w = weights.detach().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        losses = torch.cat([micro_batch(leaves) for micro_batch in source])
        check_weights(w, losses)
        local = _gradients((w * losses).sum() / count, leaves, create_graph=True)
        mean = average({name: g.detach() for name, g in local.items()})
        # The value of the mean with the graph of this rank's part.
        g = {name: local[name] + (mean[name] - local[name]).detach() for name in names}
        ahead = step.update({name: leaves[name] for name in names}, g)
    point = leaves | {name: p.detach().requires_grad_() for name, p in ahead.items()}
    target_loss, v = _target_gradient([_at(micro_batch, point) for micro_batch in target], point, 1.0)
    v = average(v)
    try:
        (slope,) = torch.autograd.grad([ahead[name] for name in names], w, [v[name] for name in names])
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
        raise MissingDerivativeError(
            f"a layer has no second derivative ({str(error)[:120]}); use the engine 'forward' or 'finite_difference'"
        ) from error
    return Hypergradient(slope, _reusable(mean, v, reuse), losses.detach(), target_loss)


def _at(micro_batch: Pass, point: Params) -> Pass:
    def evaluate(params: Mapping[str, Tensor] | None = None) -> Tensor:
        return micro_batch(point if params is None else params)

    return evaluate


@torch.no_grad()
def _difference(source: Sequence[Pass], params: Mapping[str, Tensor], u: Params, radius: float) -> Tensor:
    norm = whole_norm(u)
    ends = []
    for sign in (1.0, -1.0):
        with moved(params, {name: params[name] + (sign * radius / norm) * t for name, t in u.items()}):
            ends.append(torch.cat([micro_batch() for micro_batch in source]))
    return (ends[0] - ends[1]) * (norm / (2 * radius))


def _gradients(loss: Tensor, params: Mapping[str, Tensor], create_graph: bool = False) -> Params:
    if any(map(is_sharded, params.values())):
        # FSDP2 computes with gathered copies and hands the gradients, averaged, on to the shards in `backward` alone.
        loss.backward()
        found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in params.items()}
        for p in params.values():
            p.grad = None
        return found
    grads = torch.autograd.grad(
        loss, list(params.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(params, grads, strict=True))


def _add(total: Params, more: Params) -> Params:
    return {name: total[name] + g for name, g in more.items()} if total else more


def _divide(gradients: Params, scale: float) -> Params:
    return gradients if scale == 1.0 else {name: g / scale for name, g in gradients.items()}
