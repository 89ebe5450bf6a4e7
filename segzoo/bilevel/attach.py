"""Gradients that were computed by hand, handed to the one backward pass of the training loop."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from segzoo.compat.tensors import multiply_all


class _Attach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, *tensors_and_gradients: Tensor) -> Tensor:
        ctx.gradients = tensors_and_gradients[len(tensors_and_gradients) // 2 :]
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = grad_outputs
        return None, *multiply_all(ctx.gradients, scale), *(None for _ in ctx.gradients)


def attach_gradient(value: Tensor, tensors: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """A scalar equal to ``value`` whose gradient with respect to ``tensors`` is ``gradients``.

    The same as ``value + sum((t * g).sum()) - that.detach()`` without the products: loss scaling, accumulation, clipping and
    the hooks of distributed training see ordinary gradients.

    Args:
        value: a scalar; its own graph is not followed.
        tensors: parameters, or outputs of a module whose parameters are to learn.
        gradients: one per tensor, of the same shape.
    """
    for tensor, gradient in zip(tensors, gradients, strict=True):
        if tensor.shape != gradient.shape:
            raise ValueError(f"gradient of shape {tuple(gradient.shape)} for a tensor of shape {tuple(tensor.shape)}")
    cast = [g.detach().to(t.dtype) for t, g in zip(tensors, gradients, strict=True)]
    attached: Tensor = _Attach.apply(value.detach(), *tensors, *cast)
    return attached
