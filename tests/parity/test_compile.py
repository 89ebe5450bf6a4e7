"""A compiled segmenter: compiled passes, eager derivatives, the same result."""

import pytest
import torch
from torch import nn

from segzoo.bilevel import SGDStep, pixel_jvp
from tests.parity.problems import Problem, problem, relative_error


def compiled(backend: str) -> Problem:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(), nn.Dropout(0.3), nn.Conv2d(8, 5, 3, padding=1)
    )
    p = problem(net, size=16)
    p.net.compile(backend=backend, **({"options": {"fallback_random": True}} if backend == "inductor" else {}))
    return p


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_passes_give_the_same_hypergradient(backend: str) -> None:
    p = compiled(backend)
    calls = p.net._compiled_call_impl
    found = p.solve("forward", SGDStep(0.5))
    assert p.net._compiled_call_impl is calls is not None
    p.net._compiled_call_impl = None
    plain = p.solve("forward", SGDStep(0.5))
    assert relative_error(found.weights, plain.weights) < 1e-5
    assert relative_error(found.weights, p.solve("double_backward", SGDStep(0.5)).weights) < 1e-5


def test_the_compiled_code_is_really_called() -> None:
    p = compiled("aot_eager")
    calls: list[int] = []
    impl = p.net._compiled_call_impl

    def counted(*args: object) -> object:
        calls.append(1)
        return impl(*args)

    p.net._compiled_call_impl = counted
    p.solve("forward", SGDStep(0.5))
    assert len(calls) == 2  # g and v; the derivative is eager


def test_the_derivative_survives_a_compiled_child() -> None:
    p = compiled("aot_eager")
    p.net[0].compile(backend="inductor")  # never called: inductor would drop the tangent
    direction = {name: torch.randn_like(q) for name, q in p.params.items()}
    assert float(pixel_jvp(p.source_losses(), p.params, direction)[1].abs().max()) > 0
