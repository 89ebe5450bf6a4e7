"""The virtual step through the real optimiser: its value, and its Jacobian against differentiation through it."""

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from segzoo.bilevel import ClippedStep, OptimizerStep, VirtualStep
from tests.parity.problems import relative_error, toy

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.01),
}


CLIPS = {"clip": 0.5, "no clip": 1e3}  # of the gradient's length


@pytest.mark.parametrize("clip", [None, *CLIPS])
@pytest.mark.parametrize("steps_before", [0, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_virtual_step_is_the_optimizers_step(name: str, steps_before: int, clip: str | None) -> None:
    p = toy()
    optimizer = OPTIMIZERS[name](p.net.parameters())
    for seed in range(steps_before):
        optimizer.zero_grad()
        p.target_loss(seed)(p.params).backward()
        optimizer.step()
    step: VirtualStep = OptimizerStep(optimizer, p.params)
    max_norm = float("inf")
    if clip:
        length = torch.stack([g.norm() for g in p.solve("forward", step, reuse="g").gradient.values()]).norm()
        max_norm = CLIPS[clip] * float(length)
        step = ClippedStep(step, max_norm)
    forward, reference = (p.solve(engine, step, reuse="g") for engine in ("forward", "double_backward"))  # type: ignore[arg-type]
    # Adam's very first step is nearly the sign of the gradient: its slope is as small as eps, mere rounding.
    if not (name.startswith("adam") and steps_before == 0):
        assert relative_error(forward.weights, reference.weights) < 1e-12
    assert torch.isfinite(forward.weights).all()

    moved = step.update(p.params, forward.gradient)
    for key, parameter in p.params.items():
        parameter.grad = forward.gradient[key].clone()
    if clip:
        clip_grad_norm_(p.net.parameters(), max_norm)
    optimizer.step()
    for key, parameter in p.params.items():
        torch.testing.assert_close(moved[key], parameter, rtol=1e-10, atol=1e-12)


def test_a_parameter_without_gradient_has_no_step_and_no_slope() -> None:
    net = nn.Linear(2, 1).double()
    step = OptimizerStep(torch.optim.Adam(net.parameters(), lr=0.1), dict(net.named_parameters()))
    params = dict(net.named_parameters())
    zero = {name: torch.zeros_like(p) for name, p in params.items()}
    ones = {name: torch.ones_like(p) for name, p in params.items()}
    assert all(bool((u == 0).all()) for u in step.transpose(params, zero, ones).values())
    assert all(torch.equal(moved, params[name]) for name, moved in step.update(params, zero).items())


def test_an_unknown_optimizer_is_refused() -> None:
    net = nn.Linear(2, 1)
    with pytest.raises(TypeError, match="Adadelta"):
        OptimizerStep(torch.optim.Adadelta(net.parameters()), dict(net.named_parameters()))


def test_clipping_matters() -> None:
    p = toy()
    plain = OptimizerStep(torch.optim.SGD(p.net.parameters(), lr=0.1), p.params)
    clipped = ClippedStep(plain, 1e-3)
    a, b = (p.solve("forward", step).weights for step in (plain, clipped))
    assert relative_error(a, b) > 0.1


def test_a_vanishing_gradient_is_clipped_to_nothing() -> None:
    zero = {"a": torch.zeros(3, dtype=torch.float64)}
    step = ClippedStep(OptimizerStep(torch.optim.SGD([zero["a"]], lr=0.1), zero), 1.0)
    assert torch.equal(step.update(zero, zero)["a"], zero["a"])
    torch.testing.assert_close(
        step.transpose(zero, zero, {"a": torch.ones(3).double()})["a"], torch.full((3,), 0.1).double()
    )


def test_a_dictionary_is_one_vector() -> None:
    """Clipping looks at the length of all parameters together, in whatever pieces they come."""
    torch.manual_seed(0)
    p, g, v = (torch.randn(6, dtype=torch.float64) for _ in range(3))
    whole = ClippedStep(OptimizerStep(torch.optim.SGD([p], lr=0.1), {"p": p}), 0.5)
    first, second = p[:2].clone(), p[2:].clone()
    parts = ClippedStep(OptimizerStep(torch.optim.SGD([first, second], lr=0.1), {"a": first, "b": second}), 0.5)
    split = [dict(zip("ab", (t[:2], t[2:]), strict=True)) for t in (p, g, v)]
    one = whole.transpose({"p": p}, {"p": g}, {"p": v})["p"]
    torch.testing.assert_close(torch.cat(list(parts.transpose(*split).values())), one)
