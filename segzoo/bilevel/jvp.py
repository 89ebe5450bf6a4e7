"""The forward-mode derivative of a loss map: inner products of every pixel's gradient with one direction, in one pass."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from segzoo.bilevel.replay import Params

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


class LostTangentError(RuntimeError):
    """The derivative did not reach the output: a compiled module, a collective or a detached path swallowed it."""


def pixel_jvp(
    losses: Callable[[Params], Tensor], params: Mapping[str, Tensor], direction: Mapping[str, Tensor], module: nn.Module
) -> tuple[Tensor, Tensor]:
    """``<grad l_i(params), direction>`` for every entry i of a loss map.

    Args:
        losses: params -> loss map of any shape; must not change anything but its result (see `Replayed`).
        params: all parameters by name.
        direction: tangents by name; a subset leaves the other parameters constant.
        module: what ``losses`` calls; its normalisation layers are watched for the dtype of their tangents.

    Returns:
        The loss map and its derivative along ``direction``, both of the map's shape, without graph.

    Raises:
        LostTangentError: the output carries no tangent.
    """
    # The derivative is linear in the direction; at unit length, half precision neither under- nor overflows.
    norm = torch.linalg.vector_norm(torch.stack([t.float().norm() for t in direction.values()])).clamp_min(1e-30)
    exact = norm.to(next(iter(direction.values())).dtype)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _tangents_like_primals(module), fwAD.dual_level():
        duals = {
            name: fwAD.make_dual(p.detach(), (direction[name] / exact).to(p.dtype)) if name in direction else p.detach()
            for name, p in params.items()
        }
        value, tangent = fwAD.unpack_dual(losses(duals))
    if tangent is None:
        raise LostTangentError(
            "the loss map carries no tangent; run the derivative on the uncompiled module, without detach() or "
            "collectives between parameters and losses, or use the engine 'finite_difference'"
        )
    return value, tangent * exact


@contextlib.contextmanager
def _tangents_like_primals(module: nn.Module) -> Iterator[None]:
    # Under autocast a norm layer returns a half-precision primal with a float32 tangent, which the next convolution refuses.
    def recast(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        primal, tangent = fwAD.unpack_dual(output)
        if tangent is None or tangent.dtype == primal.dtype:
            return output
        return fwAD.make_dual(primal, tangent.to(primal.dtype))

    hooks = [m.register_forward_hook(recast) for m in module.modules() if isinstance(m, _NORMS)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
