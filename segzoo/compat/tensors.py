"""Names of torch that it keeps for itself, or offers without documentation."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.dropout import _DropoutNd as Dropout
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = [
    "AnyBatchNorm",
    "BatchNorm",
    "Dropout",
    "abandon_capture",
    "add_all",
    "add_all_",
    "change_count",
    "compiled_call",
    "conv_forward",
    "conv_padding",
    "cuda_generator",
    "differentiates_forward",
    "divide_all_",
    "leave_scaling_to_scaler",
    "lerp_all_",
    "make_dual",
    "multiply_all",
    "norm_all",
    "own_stream",
    "set_compiled_call",
    "skip_unless_zero",
    "tree_leaves",
    "tree_map_only",
    "unpack_dual",
]


def make_dual(value: Tensor, tangent: Tensor, level: int) -> Tensor:
    """A dual number; the documented function makes checks that take eight times as long, for each tensor of a network."""
    return torch._make_dual(value, tangent, level=level)


def unpack_dual(tensor: Tensor, level: int) -> tuple[Tensor, Tensor | None]:
    """The value and the tangent of a tensor, None for a constant."""
    value, tangent = torch._unpack_dual(tensor, level=level)
    return value, tangent


# Lists of tensors, in few kernels

Tensors = list[Tensor] | tuple[Tensor, ...]


def add_all(first: Tensors, second: Tensors, alpha: float = 1) -> tuple[Tensor, ...]:
    """first + alpha second, tensor by tensor."""
    return tuple(torch._foreach_add(first, second, alpha=alpha))


def add_all_(first: Tensors, second: Tensors) -> None:
    """Adds ``second`` to ``first`` in place."""
    torch._foreach_add_(first, second)


def multiply_all(tensors: Tensors, factor: float | Tensor) -> tuple[Tensor, ...]:
    """Every tensor times one number, or one tensor of no dimension."""
    return tuple(torch._foreach_mul(tensors, factor))


def divide_all_(tensors: Tensors, divisor: Tensor) -> None:
    """Divides every tensor by one of no dimension, in place."""
    torch._foreach_div_(tensors, divisor)


def lerp_all_(tensors: Tensors, ends: Tensors, share: float) -> None:
    """Moves every tensor this share of the way to its end, in place."""
    torch._foreach_lerp_(tensors, ends, share)


def norm_all(tensors: Tensors) -> tuple[Tensor, ...]:
    """The Euclidean length of every tensor."""
    return tuple(torch._foreach_norm(tensors))


class AnyBatchNorm(BatchNorm):
    """A batch norm of (B, C, ...) with any number of further dimensions; torch has one class for each number."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (B, C, ...), found {tuple(input.shape)}")


def differentiates_forward() -> bool:
    """Whether a level of forward-mode derivatives is open."""
    return fwAD._current_level >= 0


def change_count(tensor: Tensor) -> int:
    """How often a tensor's memory was changed in place."""
    return tensor._version


def compiled_call(module: nn.Module) -> Callable[..., Any] | None:
    """What calls of a module run in its place after ``module.compile()``; None before."""
    call: Callable[..., Any] | None = module._compiled_call_impl
    return call


def set_compiled_call(module: nn.Module, call: Callable[..., Any] | None) -> None:
    """Has calls of a module run this; with None the module as it was written."""
    module._compiled_call_impl = call


def conv_forward(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The layer's convolution, its padding included, with another weight and bias."""
    return layer._conv_forward(x, weight, bias)


def conv_padding(layer: nn.Conv2d) -> list[int]:
    """A convolution's padding as numbers for `torch.nn.functional.pad`, whatever the layer was given, ``same`` included."""
    return list(layer._reversed_padding_repeated_twice)


def own_stream(device: torch.device) -> AbstractContextManager[Any]:
    """The present stream of a CUDA device is that again afterwards: a capture that fails leaves its own one behind."""
    return torch.cuda.stream(torch.cuda.current_stream(device)) if device.type == "cuda" else nullcontext()


def abandon_capture(device: torch.device, pool: tuple[int, int]) -> None:
    """Has a CUDA device go on after a capture that failed, for whose end its generator and its allocator would wait.

    Args:
        device: where the capture was.
        pool: of the memory that was to be the graph's.
    """
    generator = cuda_generator(device)
    generator.graphsafe_set_state(generator.clone_state())
    if device.type == "cuda":
        with suppress(RuntimeError):  # the allocator does not wait where it was told before the failure was found
            torch._C._cuda_endAllocateToPool(device.index, pool)


def skip_unless_zero(optimizer: Optimizer, flag: Tensor) -> None:
    """Has a fused optimiser leave everything as it is in its next steps where ``flag`` is 1, and not where it is 0.

    The device decides; the host need not know.

    Args:
        optimizer: Adam, AdamW, or SGD whose momenta exist, with ``fused=True``.
        flag: float32 of no dimension.
    """
    optimizer.found_inf = flag  # type: ignore[attr-defined]


def leave_scaling_to_scaler(optimizer: Optimizer) -> None:
    """Has a fused optimiser take gradients as they are, so that they can be clipped and looked at before its step."""
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]


def cuda_generator(device: torch.device) -> torch.Generator:
    """The generator that draws the random numbers of a CUDA device."""
    generator: torch.Generator = torch.cuda.default_generators[device.index]
    return generator
