"""What convolutions and linear layers returned in one pass, for a forward-mode pass at the same point.

The tangent of y = W x is W x' + W' x: two products. A dual number carries y beside it, a third. Where the pass itself was
computed before, y is known, and the forward-mode pass costs two forward passes instead of three.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.nn import functional as F

FAN_IN = 512
"""Layers of fewer products per entry of their output compute it again: that saves little for its memory. With 512, a third of
the maps of a ResNet and a seventh of those of a SegFormer save most of what all would save."""

Outputs = dict[nn.Module, deque[tuple[Tensor, int]]]
"""Per layer what its calls returned, in their order, and the version of each: a later change in place makes it useless."""


@contextlib.contextmanager
def record(module: nn.Module) -> Iterator[Outputs]:
    """Collects what the layers of a module return inside the context; nothing of compiled code, which hooks would break up."""
    outputs: Outputs = {}

    def keep(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        outputs.setdefault(layer, deque()).append((output.detach(), output._version))

    compiled = any(m._compiled_call_impl is not None for m in module.modules())
    hooks = [] if compiled else [layer.register_forward_hook(keep) for layer in _layers(module) if _large(layer)]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def replay(module: nn.Module, outputs: Outputs) -> Iterator[None]:
    """Inside, a layer whose outputs were recorded returns them, and computes their tangents alone; they are used up.

    The calls must be those of the record: the same inputs, parameters and random numbers.
    """
    replaced = [layer for layer in _layers(module) if layer in outputs]
    for layer in replaced:
        layer.forward = _Replay(layer, outputs.pop(layer))
    try:
        yield
    finally:
        for layer in replaced:
            del layer.forward


class Kept:
    """A pass that keeps what its layers return, and a forward-mode pass at the same parameters that takes it up.

    Args:
        run: the pass; called without parameters at the module's own, which is recorded, and with parameters of the same values.
        module: what it calls.
    """

    def __init__(self, run: Callable[..., Tensor], module: nn.Module) -> None:
        self.run, self.module = run, module
        self.outputs: Outputs = {}

    def __call__(self, params: Mapping[str, Tensor] | None = None) -> Tensor:
        if params is None:
            with record(self.module) as self.outputs:
                return self.run()
        with replay(self.module, self.outputs):
            return self.run(params)


class _Replay:
    def __init__(self, layer: Any, outputs: deque[tuple[Tensor, int]]) -> None:
        self.layer, self.outputs = layer, outputs

    def __call__(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled(), "what was kept has no graph"
        output, version = self.outputs.popleft()
        if output._version != version:
            whole: Tensor = type(self.layer).forward(self.layer, x)
            return whole
        x, dx = fwAD.unpack_dual(x)
        weight, dweight = fwAD.unpack_dual(self.layer.weight)
        dbias = None if self.layer.bias is None else fwAD.unpack_dual(self.layer.bias).tangent
        terms = [] if dx is None else [self._apply(dx, weight, None)]
        if dweight is not None:
            terms.append(self._apply(x, dweight, dbias))
        elif dbias is not None:
            shape = (-1, 1, 1) if isinstance(self.layer, nn.Conv2d) else (-1,)
            terms.append(dbias.view(shape).to(output.dtype).expand_as(output))
        if not terms:
            return output
        tangent = terms[0] if len(terms) == 1 else terms[0].add_(terms[1])
        return fwAD.make_dual(output, tangent)

    def _apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if isinstance(self.layer, nn.Conv2d):
            return self.layer._conv_forward(x, weight, bias)
        return F.linear(x, weight, bias)


def _layers(module: nn.Module) -> list[Any]:
    # A subclass may do more than its parent (padding of its own, a normalised weight): it computes as usual.
    known = (nn.Conv2d.forward, nn.Linear.forward)
    return [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear) and type(m).forward in known]


def _large(layer: Any) -> bool:
    return bool(layer.weight.shape[1:].numel() >= FAN_IN)
