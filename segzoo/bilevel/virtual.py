"""The step theta' = theta - S(g) that the meta objective looks through, and the transpose of its Jacobian.

`update` is written in differentiable tensor operations, so that the engine ``double_backward`` checks `transpose`.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from segzoo.bilevel.passes import Params
from segzoo.compat.tensors import add_all, multiply_all


class VirtualStep(Protocol):
    """One step of an optimiser as a function of the gradient."""

    def update(self, params: Params, gradient: Params) -> Params:
        """theta' = theta - S(g), out of place; the optimiser's state stays as it is."""
        ...

    def transpose(self, params: Params, gradient: Params, v: Params) -> Params:
        """u = S'(g)^T v, in tensors of its own."""
        ...


class SGDStep:
    """theta' = theta - lr g, the step of the paper.

    Args:
        lr: step size.
    """

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def update(self, params: Params, gradient: Params) -> Params:
        """See `VirtualStep.update`."""
        ahead = add_all(list(params.values()), [gradient[name] for name in params], alpha=-self.lr)
        return dict(zip(params, ahead, strict=True))

    def transpose(self, params: Params, gradient: Params, v: Params) -> Params:
        """See `VirtualStep.transpose`; S' = lr, the identity up to scale."""
        return dict(zip(v, multiply_all(list(v.values()), self.lr), strict=True))


class ClippedStep:
    """Another step behind a clipping of the whole gradient to a norm, as `torch.nn.utils.clip_grad_norm_` does it.

        s = min(1, c / (|g| + 1e-6)),    S(s g),    u = J^T S'(s g)^T v,    J = s (I - g g^T / (|g| (|g| + 1e-6))) where s < 1

    Args:
        step: what takes the clipped gradient.
        max_norm: c.
    """

    def __init__(self, step: VirtualStep, max_norm: float) -> None:
        self.step, self.max_norm = step, max_norm

    def update(self, params: Params, gradient: Params) -> Params:
        """See `VirtualStep.update`."""
        return self.step.update(params, _scaled(gradient, self._factor(_norm(gradient))))

    def transpose(self, params: Params, gradient: Params, v: Params) -> Params:
        """See `VirtualStep.transpose`; apart from the length, J removes the part of v along g."""
        norm = _norm(gradient)
        s = self._factor(norm)
        u = self.step.transpose(params, _scaled(gradient, s), v)
        along = sum((gradient[name] * t).sum() for name, t in u.items()) / (norm * (norm + 1e-6)).clamp_min(1e-30)
        along = torch.where(s < 1, along, 0.0)
        return {name: s * (t - along * gradient[name]) for name, t in u.items()}

    def _factor(self, norm: Tensor) -> Tensor:
        return (self.max_norm / (norm + 1e-6)).clamp_max(1.0)


def _norm(gradient: Params) -> Tensor:
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradient.values()]))


def _scaled(gradient: Params, factor: Tensor) -> Params:
    return {name: factor * g for name, g in gradient.items()}


class OptimizerStep:
    """The step that the real optimiser would take now: SGD (momentum, Nesterov), Adam or AdamW with its present state.

    Args:
        optimizer: holds every parameter that is stepped.
        parameters: the optimiser's own tensors by name; a step looks at the state that they have when it is made.
    """

    def __init__(self, optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> None:
        if type(optimizer) not in _RULES:
            raise TypeError(
                f"no virtual step through {type(optimizer).__name__}; use SGD, Adam or AdamW, or the step 'sgd'"
            )
        group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        self.optimizer = optimizer
        self.groups = {name: group_of[id(p)] for name, p in parameters.items()}
        self.states = {name: optimizer.state.get(p, {}) for name, p in parameters.items()}

    def update(self, params: Params, gradient: Params) -> Params:
        """See `VirtualStep.update`."""
        return {name: p - self._rule(name, p, gradient[name])[0] for name, p in params.items()}

    def transpose(self, params: Params, gradient: Params, v: Params) -> Params:
        """See `VirtualStep.transpose`; the Jacobians of these optimisers are diagonal."""
        return {name: self._rule(name, params[name], gradient[name])[1] * t for name, t in v.items()}

    def _rule(self, name: str, p: Tensor, g: Tensor) -> tuple[Tensor, Tensor | float]:
        return _RULES[type(self.optimizer)](p, g, self.groups[name], self.states[name])


def _sgd(p: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> tuple[Tensor, Tensor | float]:
    lr, momentum, damping = group["lr"], group["momentum"], 1 - group["dampening"]
    g = g + group["weight_decay"] * p
    if momentum == 0:
        return lr * g, lr
    buffer = state.get("momentum_buffer")
    # The first step starts the buffer with the gradient itself, undamped.
    new, slope = (g, 1.0) if buffer is None else (momentum * buffer + damping * g, damping)
    if group["nesterov"]:
        return lr * (g + momentum * new), lr * (1 + momentum * slope)
    return lr * new, lr * slope


def _adam(p: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> tuple[Tensor, Tensor]:
    lr, (beta1, beta2), eps, decay = group["lr"], group["betas"], group["eps"], group["weight_decay"]
    if group.get("amsgrad") or group.get("maximize"):
        raise TypeError("no virtual step through Adam with amsgrad or maximize; use the step 'sgd'")
    decoupled = bool(group.get("decoupled_weight_decay"))
    if not decoupled:
        g = g + decay * p
    t = float(state.get("step", 0)) + 1
    c1, c2 = 1 - beta1**t, 1 - beta2**t
    m = beta1 * state.get("exp_avg", 0) + (1 - beta1) * g
    n = beta2 * state.get("exp_avg_sq", 0) + (1 - beta2) * g * g
    # A parameter that never had a gradient (a bias in front of a norm) has n = 0: its step is 0 and so is its slope.
    alive = n > 0
    root = torch.where(alive, n / c2, 1.0).sqrt()
    step = torch.where(alive, lr * (m / c1) / (root + eps), 0.0)
    slope = (1 - beta1) / c1 / (root + eps) - (m / c1) * ((1 - beta2) * g / c2) / (root * (root + eps) ** 2)
    slope = torch.where(alive, lr * slope, 0.0)
    return step + (lr * decay * p if decoupled else 0.0), slope


_RULES = {SGD: _sgd, Adam: _adam, AdamW: _adam}
