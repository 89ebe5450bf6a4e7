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
from torch import Tensor, nn

from segzoo.bilevel.duals import make_dual, unpack_dual
from segzoo.bilevel.passes import CapturedSeeds, device_random_state, set_device_random_state
from segzoo.bilevel.rules import linear_tangent
from segzoo.compat.tensors import change_count, compiled_call, conv_forward, tree_leaves, tree_map_only

FAN_IN = 640
"""Layers of fewer products per entry of their output compute it again: that saves little for its memory. With 640, a sixth of
the maps of a DeepLabV3+ on ResNet-18 and a seventh of those of a SegFormer save half and more of what all would save."""


class _Output:
    """What a call returned, detached, and where it left the random numbers."""

    def __init__(self, value: Any, draws: bool) -> None:
        self.value = tree_map_only(Tensor, Tensor.detach, value)
        self.versions = _versions(value)
        devices = {t.device for t in _tensors(value) if t.device.type in ("cuda", "mps")} if draws else set()
        self.drawn = torch.get_rng_state() if draws else None
        self.drawn_on = {device: device_random_state(device) for device in devices}

    @property
    def intact(self) -> bool:
        """A later change in place makes it useless."""
        return self.versions == _versions(self.value)

    def leave_random_numbers(self) -> None:
        """Those that follow are as if the call had been made."""
        if self.drawn is not None:
            torch.set_rng_state(self.drawn)
        for device, state in self.drawn_on.items():
            set_device_random_state(state, device)


Outputs = dict[nn.Module, deque[_Output]]
"""Per module what its calls returned, all of them and in their order."""


@contextlib.contextmanager
def keeping(module: nn.Module, moving: Iterable[str] | None = None) -> Iterator[Outputs]:
    """Keeps what the layers of a module return inside the context; nothing of compiled code, which hooks would break up.

    Before the first call of a module that owns a moving parameter nothing can have a tangent: until then the outermost modules
    are kept as wholes, from then on large convolutions and linear layers. (A module that computes with parameters of one which
    is neither inside it nor called would break this.)

    Args:
        module: what is called inside.
        moving: names of the parameters that will have tangents; all when None. Without any there is nothing to keep.
    """
    outputs: Outputs = {}
    useless: set[nn.Module] = set()  # of some calls nothing can be kept; which one a later call is, could not be told
    before: dict[nn.Module, list[int]] = {}
    reached = False

    def reach(*_: Any) -> None:
        nonlocal reached
        reached = True

    def enter(m: nn.Module, args: Any, kwargs: Any) -> None:
        before[m] = _versions((args, kwargs))

    def keep(m: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if m in layers and (reached or m in wholes):
            outputs.setdefault(m, deque()).append(_Output(output, draws=False))
        elif m in wholes and not reached and _plain(output) and before[m] == _versions((args, kwargs)):
            outputs.setdefault(m, deque()).append(_Output(output, draws=True))
        else:
            useless.add(m)

    hooks: list[Any] = []
    wholes: set[nn.Module] = set()
    layers: set[nn.Module] = set()
    parameters = dict(module.named_parameters(remove_duplicate=False))
    moved = {parameters[name] for name in (parameters if moving is None else moving)}
    if moved and all(compiled_call(m) is None for m in module.modules()):
        # No whole in a CUDA graph: where its draws end is not known before a launch.
        wholes = _wholes(module, moved) if CapturedSeeds.active is None else set()
        layers = {layer for layer in _layers(module) if _large(layer)}
        reached = not wholes  # hooks cost time, and there is one per layer
        owners = [] if reached else [m for m in module.modules() if not moved.isdisjoint(m.parameters(recurse=False))]
        hooks = [m.register_forward_pre_hook(reach) for m in owners]
        hooks += [m.register_forward_pre_hook(enter, with_kwargs=True) for m in wholes]
        # Prepended: what other hooks make of an output they will make of it again.
        hooks += [m.register_forward_hook(keep, with_kwargs=True, prepend=True) for m in wholes | layers]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
        for m in useless:
            outputs.pop(m, None)


@contextlib.contextmanager
def reusing(outputs: Outputs) -> Iterator[None]:
    """Inside, a layer whose outputs were kept returns them, and computes their tangents alone; they are used up.

    The calls must be those of the pass that kept them: the same inputs, parameters and random numbers.
    """
    replaced: list[Any] = list(outputs)
    for m in replaced:
        m.forward = (_Tangents if _is_layer(m) else _Constant)(m, outputs.pop(m))
    try:
        yield
    finally:
        for m in replaced:
            del m.forward


class Kept:
    """A pass that keeps what its layers return, and a forward-mode pass at the same parameters that takes it up.

    Args:
        run: the pass; called without parameters, where its outputs are kept, and with parameters of the same values.
        module: what it calls.
        moving: names of the parameters that will have tangents; all when None.
    """

    def __init__(self, run: Callable[..., Tensor], module: nn.Module, moving: Iterable[str] | None = None) -> None:
        self.run, self.module, self.moving = run, module, moving
        self.outputs: Outputs = {}

    def __call__(self, params: Mapping[str, Tensor] | None = None) -> Tensor:
        if params is None:
            with keeping(self.module, self.moving) as self.outputs:
                return self.run()
        with reusing(self.outputs):
            return self.run(params)


class _Constant:
    """Takes the place of a module without tangents of its own."""

    def __init__(self, module: nn.Module, outputs: deque[_Output]) -> None:
        self.forward, self.outputs = module.forward, outputs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        assert not torch.is_grad_enabled(), "what was kept has no graph"
        output = self.outputs.popleft()
        if not output.intact or any(unpack_dual(t).tangent is not None for t in _tensors((args, kwargs))):
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
        (x, dx), (weight, dweight) = unpack_dual(x), unpack_dual(self.layer.weight)
        dbias = None if self.layer.bias is None else unpack_dual(self.layer.bias).tangent
        rule = linear_tangent if isinstance(self.layer, nn.Linear) else self._conv_tangent
        tangent = rule(output, x, dx, weight, dweight, dbias)
        return output if tangent is None else make_dual(output, tangent)

    def _conv_tangent(
        self, y: Tensor, x: Tensor, dx: Tensor | None, weight: Tensor, dweight: Tensor | None, dbias: Tensor | None
    ) -> Tensor | None:
        dy = None if dx is None else conv_forward(self.layer, dx, weight, None)
        if dweight is not None:
            more = conv_forward(self.layer, x, dweight, dbias)
        elif dbias is not None:
            more = dbias.view(-1, 1, 1).to(y.dtype).expand_as(y)
        else:
            return dy
        return more if dy is None else dy.add_(more)


def _wholes(module: nn.Module, moved: set[nn.Parameter]) -> set[nn.Module]:
    """The outermost modules that have parameters, none of which moves."""
    found: set[nn.Module] = set()
    left = [] if moved.issuperset(module.parameters()) else [module]
    while left:
        m = left.pop()
        called = type(m).forward is not nn.Module.forward  # a list is not
        if not called or not moved.isdisjoint(m.parameters()):
            left.extend(m.children())
        elif any(True for _ in m.parameters()):
            found.add(m)
    # One that is shared may stand inside another and elsewhere.
    return found - {inner for whole in found for inner in whole.modules() if inner is not whole}


def _layers(module: nn.Module) -> list[Any]:
    return [m for m in module.modules() if _is_layer(m)]


def _is_layer(m: nn.Module) -> bool:
    # A subclass may do more than its parent (padding of its own, a normalised weight): it computes as usual.
    known = (nn.Conv2d.forward, nn.Linear.forward)
    return isinstance(m, nn.Conv2d | nn.Linear) and type(m).forward in known


def _large(layer: Any) -> bool:
    return bool(layer.weight.shape[1:].numel() >= FAN_IN)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _versions(tree: Any) -> list[int]:
    return [change_count(t) for t in _tensors(tree)]


def _plain(tree: Any) -> bool:
    """Whether no tensor could hide in an object of another kind."""
    return all(leaf is None or isinstance(leaf, Tensor) for leaf in tree_leaves(tree))
