"""Half precision: tangents keep their dtype and their size, and the result stays close to float64."""

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.bilevel import SGDStep, pixel_jvp
from segzoo.models.segmenter import create_segmenter
from tests.parity.problems import Problem, problem, toy


def cosine(a: Tensor, b: Tensor) -> float:
    return float(F.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0))


def lowered(p: Problem) -> Problem:
    """The same problem in float32, for autocast to lower further."""
    p.net.float()
    p.source, p.target = ((x.float(), y) for x, y in (p.source, p.target))
    p.weights = p.weights.float()
    return p


def trained(p: Problem, steps: int = 30) -> Problem:
    """Half precision is judged on weights that mean something: at random ones the inner products cancel."""
    # Labels that the image gives away, or nothing could be learned.
    for images, labels in (p.source, p.target):
        labels[labels != 255] = (images.mean(1)[labels != 255] * 5).long().clamp(0, 4)
    low = lowered(p)
    optimizer = torch.optim.AdamW(p.net.parameters(), lr=3e-3)
    for seed in range(steps):
        optimizer.zero_grad()
        (low.target_loss(seed)() + low.source_losses(seed)().mean()).backward()
        optimizer.step()
    p.net.double()
    p.source, p.target = ((x.double(), y) for x, y in (p.source, p.target))
    p.weights = p.weights.double()
    return p


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.BatchNorm2d(8).eval()], ids=["bn", "gn", "eval"]
)
def test_bfloat16_keeps_tangents_in_the_dtype_of_their_values(norm: nn.Module) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.Tanh(), nn.Conv2d(8, 5, 3, padding=1))
    training = norm.training
    p = problem(net, size=16)
    norm.train(training)
    reference = p.solve("double_backward", SGDStep(0.1)).weights
    net.float()
    p.source, p.target = ((x.float(), y) for x, y in (p.source, p.target))
    p.weights = p.weights.float()
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        low = p.solve("forward", SGDStep(0.1)).weights
    assert float(F.cosine_similarity(low.double().flatten(), reference.flatten(), dim=0)) > 0.99


def test_bfloat16_on_a_trained_network_is_close_to_float64() -> None:
    torch.manual_seed(0)
    p = trained(problem(create_segmenter("segformer", "mit_b0", 5), size=64))
    reference = p.solve("double_backward", SGDStep(0.1)).weights
    low = lowered(p)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        forward, second_order = (low.solve(e, SGDStep(0.1)).weights for e in ("forward", "double_backward"))  # type: ignore[arg-type]
    assert cosine(forward, reference) > 0.995
    assert abs(cosine(forward, reference) - cosine(second_order, reference)) < 1e-3


def test_a_channel_that_varies_little_does_not_overflow_float16() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 5, 1))
    p = lowered(problem(net, size=96))
    with torch.no_grad():
        net[0].weight.mul_(0.1)
    direction = {"0.weight": net[0].weight.detach() * torch.tensor([1.0, 2.0])[:, None, None, None]}
    direction["2.weight"] = torch.ones_like(net[2].weight)
    exact = pixel_jvp(p.source_losses(), p.params, direction)[1]
    with torch.autocast("cpu", dtype=torch.float16, cache_enabled=False):
        slopes = pixel_jvp(p.source_losses(), p.params, direction)[1]
    assert float((slopes - exact).norm() / exact.norm()) < 0.2


def test_every_module_hands_on_tangents_of_its_values_dtype() -> None:
    torch.manual_seed(0)
    p = lowered(problem(create_segmenter("segformer", "mit_b0", 5), size=32))
    received: list[str] = []
    for name, module in p.net.named_modules():
        if not list(module.children()):

            def before(_: nn.Module, inputs: tuple[object, ...], name: str = name) -> None:
                for value in inputs:
                    if isinstance(value, Tensor):
                        primal, tangent = fwAD.unpack_dual(value)
                        if tangent is not None and tangent.dtype != primal.dtype:
                            received.append(name)

            module.register_forward_pre_hook(before)
    direction = {name: torch.randn_like(q) for name, q in p.params.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        pixel_jvp(p.source_losses(), p.params, direction)
    assert not received


@pytest.mark.parametrize("length", [1e-7, 1.0, 1e4])
def test_float16_tangents_neither_vanish_nor_overflow(length: float) -> None:
    p = lowered(toy())
    direction = {name: torch.randn_like(q) for name, q in p.params.items()}
    unit = torch.stack([t.norm() for t in direction.values()]).norm()
    direction = {name: length * t / unit for name, t in direction.items()}
    exact = pixel_jvp(p.source_losses(), p.params, direction)[1]
    with torch.autocast("cpu", dtype=torch.float16, cache_enabled=False):
        half = pixel_jvp(p.source_losses(), p.params, direction)[1]
    assert float((half - exact).norm() / exact.norm()) < 0.02


def test_a_loss_scale_saves_small_float16_gradients() -> None:
    p = lowered(toy())
    weights = 1e-4 * p.weights  # gradients below what float16 can hold
    p.weights = weights
    exact = p.solve("forward", SGDStep(0.1), reuse="g").gradient
    with torch.autocast("cpu", dtype=torch.float16, cache_enabled=False):
        scaled, plain = (p.solve("forward", SGDStep(0.1), reuse="g", scale=scale).gradient for scale in (2.0**14, 1.0))

    def error(found: dict[str, Tensor]) -> float:
        a, b = (torch.cat([t.flatten() for t in g.values()]) for g in (found, exact))
        return float((a - b).norm() / b.norm())

    assert error(scaled) < 0.02 < error(plain)


def test_the_weight_cache_of_autocast_would_hide_the_virtual_step() -> None:
    """Why callers that open a region of their own must pass ``cache_enabled=False``, as Lightning does."""
    p = lowered(toy())
    at_theta = float(p.target_loss()().detach())
    found = {}
    for cached in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=cached):
            found[cached] = float(p.solve("forward", SGDStep(50.0)).target_loss)
    assert abs(found[False] - at_theta) > 0.05
    assert abs(found[True] - found[False]) > 1e-3


def test_the_result_does_not_depend_on_the_length_of_the_direction() -> None:
    p = toy()
    direction = {name: torch.randn_like(q) for name, q in p.params.items()}
    small = {name: 1e-30 * t for name, t in direction.items()}
    big = pixel_jvp(p.source_losses(), p.params, direction)[1]
    torch.testing.assert_close(pixel_jvp(p.source_losses(), p.params, small)[1] * 1e30, big)
