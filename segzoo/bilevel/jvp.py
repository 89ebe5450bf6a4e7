"""The forward-mode derivative of a loss map: inner products of every pixel's gradient with one direction, in one pass."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from segzoo.bilevel.duals import dual_level, make_dual, unpack_dual
from segzoo.bilevel.errors import LostTangentError, MissingDerivativeError, ShardedParametersError
from segzoo.bilevel.passes import is_sharded
from segzoo.bilevel.rules import DualRules
from segzoo.compat.tensors import norm_all


def pixel_jvp(
    losses: Callable[[Mapping[str, Tensor]], Tensor],
    params: Mapping[str, Tensor],
    direction: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """``<grad l_i(params), direction>`` for every entry i of a loss map.

    Args:
        losses: params -> loss map of any shape; must not change anything but its result (see `Replayed`).
        params: all parameters by name.
        direction: tangents by name; a subset leaves the other parameters constant.

    Returns:
        The loss map and its derivative along ``direction``, both of the map's shape, without graph.

    Raises:
        LostTangentError: the output carries no tangent.
        MissingDerivativeError: a layer has no forward-mode derivative.
        ShardedParametersError: the parameters are sharded.
    """
    unit, norm = unit_direction(direction)
    value, tangent = unit_jvp(losses, params, unit)
    return value, tangent * norm


def unit_jvp(
    losses: Callable[[Mapping[str, Tensor]], Tensor],
    params: Mapping[str, Tensor],
    direction: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """`pixel_jvp` along a direction of about length one, which is not copied."""
    with torch.no_grad(), dual(params, direction) as duals:
        try:
            value, tangent = unpack_dual(losses(duals))
        except NotImplementedError as error:
            raise MissingDerivativeError(
                f"a layer has no forward-mode derivative ({' '.join(str(error).split())[:120]}); "
                "use the engine 'double_backward' or 'finite_difference'"
            ) from error
    if tangent is None:
        raise LostTangentError(
            "the loss map carries no tangent; run the derivative on the uncompiled module, without detach() or "
            "collectives between parameters and losses, or use the engine 'finite_difference'"
        )
    return value, tangent


def unit_direction(direction: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """The direction at length one, and its length.

    The derivative is linear in the direction; at unit length, half precision neither under- nor overflows.
    """
    norm = whole_norm(direction).to(next(iter(direction.values())).dtype)
    return {name: t / norm for name, t in direction.items()}, norm


@contextlib.contextmanager
def dual(
    params: Mapping[str, Tensor], direction: Mapping[str, Tensor], with_graph: bool = False
) -> Iterator[dict[str, Tensor]]:
    """The parameters with tangents along ``direction``; with ``with_graph`` their gradients can be taken inside."""
    refuse_sharded(params)
    with sdpa_kernel(SDPBackend.MATH), dual_level():  # fused attention has no derivative
        primals = {name: p if with_graph else p.detach() for name, p in params.items()}
        tangents = {name: t.to(params[name].dtype) for name, t in direction.items()}
        duals = {name: make_dual(p, tangents[name]) if name in tangents else p for name, p in primals.items()}
        with DualRules():
            yield duals


def whole_norm(vectors: Mapping[str, Tensor]) -> Tensor:
    """Euclidean length of all tensors together, never zero."""
    lengths: Sequence[Any] = norm_all([t.float() for t in vectors.values()])
    whole = [length.full_tensor() if is_sharded(length) else length for length in lengths]
    return torch.linalg.vector_norm(torch.stack(whole)).clamp_min(1e-30)


def refuse_sharded(params: Mapping[str, Tensor]) -> None:
    """Raises where parameters are sharded.

    Raises:
        ShardedParametersError: see there.
    """
    for name, p in params.items():
        if is_sharded(p):
            raise ShardedParametersError(
                f"the parameter '{name}' is sharded (FSDP2), and sharded parameters have no exact hypergradient; "
                "use data parallelism (DDP), or the engine 'finite_difference'"
            )
