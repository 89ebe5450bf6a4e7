"""What layers returned in one pass, for a forward-mode pass at the same point.

The tangent of y = W x is W x' + W' x: two products. A dual number carries y beside it, a third. Where the pass itself was
computed before, y is known, and the forward-mode pass costs two forward passes instead of three. Modules that no tangent
reaches, such as the encoder where the decoder alone moves, need not run at all.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map_only

FAN_IN = 512
"""Layers of fewer products per entry of their output compute it again: that saves little for its memory. With 512, a third of
the maps of a ResNet and a seventh of those of a SegFormer save most of what all would save."""


class _Output:
    """What a call returned, detached, and where it left the random numbers."""

    def __init__(self, value: Any) -> None:
        self.value = tree_map_only(Tensor, Tensor.detach, value)
        self.versions = [t._version for t in self._tensors()]
        self.drawn = torch.get_rng_state()
        self.drawn_on = {t.device: torch.cuda.get_rng_state(t.device) for t in self._tensors() if t.is_cuda}

    @property
    def intact(self) -> bool:
        """A later change in place makes it useless."""
        return self.versions == [t._version for t in self._tensors()]

    def leave_random_numbers(self) -> None:
        """Those that follow are as if the call had been made."""
        torch.set_rng_state(self.drawn)
        for device, state in self.drawn_on.items():
            torch.cuda.set_rng_state(state, device)

    def _tensors(self) -> list[Tensor]:
        return [t for t in tree_leaves(self.value) if isinstance(t, Tensor)]


Outputs = dict[nn.Module, deque[_Output]]
"""Per module what its calls returned, in their order."""


@contextlib.contextmanager
def record(module: nn.Module, moving: Iterable[str] | None = None) -> Iterator[Outputs]:
    """Collects what the layers of a module return inside the context; nothing of compiled code, which hooks would break up.

    Args:
        module: what is called inside.
        moving: names of the parameters that will have tangents; all when None. Of the others' modules, the outermost ones are
            recorded as a whole.
    """
    outputs: Outputs = {}

    def keep(layer: nn.Module, inputs: Any, output: Any) -> None:
        outputs.setdefault(layer, deque()).append(_Output(output))

    kept: list[nn.Module] = []
    if all(m._compiled_call_impl is None for m in module.modules()):
        parameters = dict(module.named_parameters())
        resting = list(_resting(module, {parameters[name] for name in (parameters if moving is None else moving)}))
        inside = {m for whole in resting for m in whole.modules()}
        kept = [*resting, *(layer for layer in _layers(module) if _large(layer) and layer not in inside)]
    hooks = [m.register_forward_hook(keep) for m in kept]
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
    replaced: list[Any] = [m for m in module.modules() if m in outputs]
    layers = set(_layers(module))
    for m in replaced:
        m.forward = (_Tangents if m in layers else _Constant)(m, outputs.pop(m))
    try:
        yield
    finally:
        for m in replaced:
            del m.forward


class Kept:
    """A pass that keeps what its layers return, and a forward-mode pass at the same parameters that takes it up.

    Args:
        run: the pass; called without parameters at the module's own, which is recorded, and with parameters of the same values.
        module: what it calls.
        moving: the parameters that will have tangents; all when None.
    """

    def __init__(self, run: Callable[..., Tensor], module: nn.Module, moving: Iterable[str] | None = None) -> None:
        self.run, self.module, self.moving = run, module, moving
        self.outputs: Outputs = {}

    def __call__(self, params: Mapping[str, Tensor] | None = None) -> Tensor:
        if params is None:
            with record(self.module, self.moving) as self.outputs:
                return self.run()
        with replay(self.module, self.outputs):
            return self.run(params)


class _Constant:
    """Takes the place of a module without tangents of its own."""

    def __init__(self, module: nn.Module, outputs: deque[_Output]) -> None:
        self.forward, self.outputs = module.forward, outputs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        assert not torch.is_grad_enabled(), "what was kept has no graph"
        output = self.outputs.popleft()
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if not output.intact or any(fwAD.unpack_dual(t).tangent is not None for t in inputs):
            return self.forward(*args, **kwargs)
        output.leave_random_numbers()
        return output.value


class _Tangents:
    """Takes the place of a convolution or a linear layer."""

    def __init__(self, layer: Any, outputs: deque[_Output]) -> None:
        self.layer, self.forward, self.outputs = layer, layer.forward, outputs

    def __call__(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled(), "what was kept has no graph"
        kept = self.outputs.popleft()
        if not kept.intact:
            whole: Tensor = self.forward(x)
            return whole
        output: Tensor = kept.value
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


def _resting(module: nn.Module, moving: set[nn.Parameter]) -> Iterator[nn.Module]:
    """The outermost modules that have parameters, none of which moves."""
    for child in module.children():
        parameters = set(child.parameters())
        if not parameters.isdisjoint(moving) or type(child).forward is nn.Module.forward:  # a list is never called
            yield from _resting(child, moving)
        elif parameters:
            yield child


def _layers(module: nn.Module) -> list[Any]:
    # A subclass may do more than its parent (padding of its own, a normalised weight): it computes as usual.
    known = (nn.Conv2d.forward, nn.Linear.forward)
    return [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear) and type(m).forward in known]


def _large(layer: Any) -> bool:
    return bool(layer.weight.shape[1:].numel() >= FAN_IN)
