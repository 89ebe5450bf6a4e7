"""Forward-mode rules that are faster than torch's, or steadier in half precision.

Norms: z = (x - mean) / std has the Jacobian (1 / std) (1 - 1 1^T / n - z z^T / n). It is symmetric, so that the kernel of its
backward pass maps tangents just as well, where torch's own forward mode takes a dozen passes over the map. That holds without
scale and shift alone, which are added behind: the backward pass scales before the Jacobian, the forward mode after it.

Linear layers: of the two products in y' = x' W^T + x W'^T + b' the second is added to the first while it is computed.

Products with constants: torch's forward mode is slow where one factor has no tangent.

Cross-entropy: with p the probabilities of logits x, l = -log p_y has the tangent l' = sum_c p_c x'_c - x'_y.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from segzoo.bilevel.duals import make_dual, unpack_dual


class DualRules(TorchFunctionMode):
    """Inside, norms, linear layers and cross-entropies of `torch.nn.functional` and products follow the rules of this module.

    With a graph to be built the kernels would need second derivatives: then torch's own rules apply.

    Norms compute in float32 or better, and value and tangent of what they answer have the dtype of the ordinary pass. Their
    derivative holds sums over all pixels and the cube of 1 / std, which overflow float16 where a channel varies little; and
    torch's norms answer half-precision inputs with float32 tangents, which the next convolution refuses.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Calls the function, or what takes its place."""
        kwargs = kwargs or {}
        if func in _NORMS:
            kwargs = {
                name: _at_least_float32(p) if name in ("weight", "bias") and p is not None else p
                for name, p in kwargs.items()
            }
            norm = func if torch.is_grad_enabled() else _NORMS[func]
            return _recast(norm(_at_least_float32(args[0]), *args[1:], **kwargs), _answer_dtype(func, args[0]))
        if func in _OTHERS and not torch.is_grad_enabled():
            return _OTHERS[func](*args, **kwargs)
        return func(*args, **kwargs)


def linear_tangent(
    y: Tensor, x: Tensor, dx: Tensor | None, weight: Tensor, dweight: Tensor | None, dbias: Tensor | None
) -> Tensor | None:
    """x' W^T + x W'^T + b' for y = x W^T + b; a tangent of None is zero."""
    if dx is None and dweight is None:
        return None if dbias is None else dbias.to(y.dtype).expand_as(y)
    if dx is None:
        return F.linear(x, dweight, dbias)  # type: ignore[arg-type]
    dy = F.linear(dx, weight, dbias).contiguous()
    if dweight is not None:  # what works in place is not cast by autocast
        dy.view(-1, dy.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]).to(dy.dtype), dweight.T.to(dy.dtype))
    return dy


def _mul(input: Any, other: Any, **options: Any) -> Tensor:
    """Of a dual number and a constant. For these torch asks Python for the shape of a zero tangent: half a millisecond each."""
    (a, da), (b, db) = _parts(input), _parts(other)
    if options or (da is None) == (db is None):
        return torch.mul(input, other, **options)
    return make_dual(a * b, a * db if da is None else da * b)


def _div(input: Any, other: Any, **options: Any) -> Tensor:
    """Of a dual number by a constant, likewise."""
    (a, da), (b, db) = _parts(input), _parts(other)
    if options or da is None or db is not None:
        return torch.div(input, other, **options)
    return make_dual(a / b, da / b)


def _parts(x: Any) -> tuple[Any, Tensor | None]:
    return unpack_dual(x) if isinstance(x, Tensor) else (x, None)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if weight.dim() != 2:  # a single row, as F.linear takes it, too
        return F.linear(input, weight, bias)
    (x, dx), (weight, dweight) = unpack_dual(input), unpack_dual(weight)
    bias, dbias = (None, None) if bias is None else unpack_dual(bias)
    y = F.linear(x, weight, bias)
    dy = linear_tangent(y, x, dx, weight, dweight, dbias)
    return y if dy is None else make_dual(y, dy)


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if running_mean is not None and running_var is not None:
        if training:  # statistics are to be tracked
            return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
        running_mean, running_var = _at_least_float32(running_mean), _at_least_float32(running_var)
    x, dx = _unpack(x, _layout(x))
    z, mean, invstd = torch.native_batch_norm(x, None, None, running_mean, running_var, training, 0.0, eps)
    if dx is not None:
        rest = (None, running_mean, running_var, mean, invstd, training, eps, _ONLY_INPUT)
        dx = _aten.native_batch_norm_backward(dx, x, *rest)[0]
    return _affine(z, dx, weight, bias, (-1, *[1] * (x.dim() - 2)))


def _layer_norm(
    x: Tensor, shape: list[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    x, dx = _unpack(x)
    z, mean, invstd = torch.native_layer_norm(x, shape, None, None, eps)
    if dx is not None:
        dx = _aten.native_layer_norm_backward(dx, x, shape, mean, invstd, None, None, _ONLY_INPUT)[0]
    return _affine(z, dx, weight, bias, shape)


def _group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    layout = torch.contiguous_format if x.is_cuda else _layout(x)  # of the answer: dropout draws in the order of memory
    x, dx = _unpack(x)
    sizes = (len(x), x.shape[1], x.shape[2:].numel(), groups)
    z, mean, invstd = torch.native_group_norm(x, None, None, *sizes, eps)
    if dx is not None:
        dx = _aten.native_group_norm_backward(dx, x, mean, invstd, None, *sizes, _ONLY_INPUT)[0]
        dx = dx.contiguous(memory_format=layout)
    z = z.contiguous(memory_format=layout)
    return _affine(z, dx, weight, bias, (-1, *[1] * (x.dim() - 2)))


def _cross_entropy(x: Tensor, target: Tensor, weight: Tensor | None = None, **options: Any) -> Tensor:
    whole = _at_least_float32(x)
    x, dx = unpack_dual(whole)
    plain = options["reduction"] == "none" and not options["label_smoothing"] and not target.is_floating_point()
    if not plain or dx is None or x.dim() == 1:
        return F.cross_entropy(whole, target, None if weight is None else weight.to(x.dtype), **options)
    valid = (target != options["ignore_index"])[:, None]
    label = target[:, None].where(valid, 0)
    log_p = x.log_softmax(1)
    loss = -log_p.gather(1, label)
    slope = log_p.exp_().mul_(dx).sum(1, keepdim=True) - dx.gather(1, label)
    if weight is not None:
        loss, slope = loss * weight[label], slope * weight[label]
    # Not a product with 0, which an infinite logit of a void pixel would make a NaN.
    return make_dual(loss.where(valid, 0)[:, 0], slope.where(valid, 0)[:, 0])


def _layout(x: Tensor) -> torch.memory_format:
    channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


def _unpack(x: Tensor, layout: torch.memory_format = torch.contiguous_format) -> tuple[Tensor, Tensor | None]:
    # The kernels read value and tangent by the same strides.
    x, dx = unpack_dual(x)
    return x.contiguous(memory_format=layout), None if dx is None else dx.contiguous(memory_format=layout)


def _affine(z: Tensor, dz: Tensor | None, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    """w z + b and its tangent w z' + w' z + b'; most often in place, as both maps are new."""
    (w, dw), (b, db) = (
        [None if t is None else t.view(*shape) for t in ((None, None) if p is None else unpack_dual(p))]
        for p in (weight, bias)
    )
    if _is_launched(z) and dz is not None and w is not None and dw is not None and b is not None and db is not None:
        # Three kernels instead of five, in fewer passes over the maps; the sums are rounded in another order.
        return make_dual(torch.addcmul(b, z, w), torch.addcmul(db, z, dw).addcmul_(dz, w))
    if dz is not None and w is not None:
        dz.mul_(w)
    if dw is not None:
        dz = z * dw if dz is None else dz.addcmul_(z, dw)
    if db is not None:
        dz = db.expand_as(z) if dz is None else dz.add_(db)
    if w is not None:
        z.mul_(w)
    if b is not None:
        z.add_(b)
    return z if dz is None else make_dual(z, dz)


def _is_launched(x: Tensor) -> bool:
    return x.is_cuda


def _answer_dtype(func: Any, x: Tensor) -> torch.dtype:
    # There autocast lets these two answer in float32, and all that is added to the answer, too.
    raised = x.is_cuda and torch.is_autocast_enabled("cuda") and func in (F.layer_norm, F.group_norm)
    return torch.promote_types(x.dtype, torch.float32) if raised else x.dtype


def _recast(x: Tensor, dtype: torch.dtype) -> Tensor:
    x, dx = unpack_dual(x)
    return x.to(dtype) if dx is None else make_dual(x.to(dtype), dx.to(dtype))


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


_aten = torch.ops.aten
_ONLY_INPUT = [True, False, False]  # of a backward kernel's results, not the gradients of scale and shift
_NORMS: dict[Any, Any] = {
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
    F.instance_norm: F.instance_norm,  # torch's own rule, in float32
}
# Operands of linear layers and products may come by name: their parameters are called as torch calls them.
_OTHERS: dict[Any, Any] = {F.linear: _linear, F.cross_entropy: _cross_entropy}
_OTHERS |= dict.fromkeys((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__), _mul)
_OTHERS |= dict.fromkeys((torch.div, Tensor.div, Tensor.__truediv__), _div)
