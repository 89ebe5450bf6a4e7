"""What a forward-mode pass computes by rules of ours: the numbers of torch's own, in every dtype and layout."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from segzoo.bilevel.jvp import unit_jvp
from segzoo.bilevel.rules import DualRules

LAYERS = {
    "batch": lambda: nn.BatchNorm2d(6, track_running_stats=False),
    "running": lambda: nn.BatchNorm2d(6).eval(),
    "batch, not affine": lambda: nn.BatchNorm2d(6, affine=False, track_running_stats=False),
    "layer": lambda: nn.LayerNorm([4, 5]),
    "layer, no bias": lambda: nn.LayerNorm(5, bias=False),
    "group": lambda: nn.GroupNorm(3, 6, eps=1e-3),
    "instance": lambda: nn.InstanceNorm2d(6, affine=True),
    "linear": lambda: nn.Linear(5, 3),
    "linear, no bias": lambda: nn.Linear(5, 3, bias=False),
    "with activation": lambda: BatchNormAct2d(6).eval(),
}


def layer_and_input(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    layer = LAYERS[name]().to(dtype)
    for tensor in [*layer.parameters(), *(b for b in layer.buffers() if b.is_floating_point())]:
        nn.init.uniform_(tensor, 0.5, 2)
    x = 3 * torch.randn(2, 6, 4, 5, dtype=dtype) + 1
    return layer, x, torch.randn_like(x)


def derivative(layer: nn.Module, x: Tensor, dx: Tensor | None, names: list[str]) -> tuple[Tensor, Tensor | None]:
    torch.manual_seed(1)
    with torch.no_grad(), fwAD.dual_level():
        params = {n: fwAD.make_dual(p, torch.randn_like(p)) if n in names else p for n, p in layer.named_parameters()}
        x = x if dx is None else fwAD.make_dual(x, dx)
        value, tangent = fwAD.unpack_dual(torch.func.functional_call(layer, params, (x,)))
        return value, tangent


@pytest.fixture(params=[False, True], ids=["", "launched"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the operations of the CPU, and with the fewer ones of CUDA."""
    monkeypatch.setattr("segzoo.bilevel.rules._is_launched", lambda x: request.param)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("of_input", [True, False])
@pytest.mark.parametrize("names", [["weight", "bias"], ["weight"], ["bias"], []])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_torchs_numbers(name: str, of_input: bool, names: list[str], layout: torch.memory_format) -> None:
    layer, x, dx = layer_and_input(name)
    # In the usual layout: torch's derivative of group norm, before 2.12, refuses channels-last inputs.
    expected = derivative(layer, x, dx if of_input else None, names)
    with DualRules():
        found = derivative(layer, x.contiguous(memory_format=layout), dx if of_input else None, names)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


class Calls(TorchDispatchMode):
    """Names of the kernels that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("run", "kernel", "instead_of"),
    [
        (lambda x: F.batch_norm(x, None, None, training=True), "native_batch_norm_backward", "rsqrt"),
        (lambda x: F.layer_norm(x, x.shape[1:]), "native_layer_norm_backward", "rsqrt"),
        (lambda x: F.group_norm(x, 2), "native_group_norm_backward", "rsqrt"),
        (lambda x: 0.5 * x, "mul", "_efficientzerotensor"),
        (lambda x: F.linear(x, fwAD.make_dual(torch.ones(5, 3), torch.ones(5, 3))), "addmm_", "add"),
        (lambda x: F.cross_entropy(x, x[:, 0].long() * 0, reduction="none"), "gather", "nll_loss2d_forward"),
    ],
)
def test_the_rules_are_used(run: Callable[[Tensor], Tensor], kernel: str, instead_of: str) -> None:
    x = torch.randn(2, 4, 3, 3)
    with torch.no_grad(), fwAD.dual_level(), DualRules(), Calls() as calls:
        run(fwAD.make_dual(x, torch.ones_like(x)))
    assert kernel in calls.names and instead_of not in calls.names


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("shape", [(4, 6), (3, 6, 7), (2, 6, 2, 3, 4)])
def test_batch_norm_of_every_rank(shape: tuple[int, ...]) -> None:
    x, dx, w = torch.randn(shape).double(), torch.randn(shape).double(), torch.rand(6).double()
    found = []
    for mode in (DualRules(), nullcontext()):
        with torch.no_grad(), fwAD.dual_level(), mode:
            y = F.batch_norm(fwAD.make_dual(x, dx), None, None, w, training=True)
            found.append(tuple(fwAD.unpack_dual(y)))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.GroupNorm(2, 4, affine=False)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_answers_lie_in_memory_as_torchs(norm: nn.Module, layout: torch.memory_format) -> None:
    # Dropout draws in the order of memory: the pass and its derivative would drop different units.
    x = torch.randn(2, 4, 3, 5).contiguous(memory_format=layout)
    expected = norm(x).stride()
    with torch.no_grad(), fwAD.dual_level(), DualRules():
        value, tangent = fwAD.unpack_dual(norm(fwAD.make_dual(x, torch.randn_like(x))))
        assert tangent is not None
        assert value.stride() == tangent.stride() == expected


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (0, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("turned", [False, True])
def test_linear_layers_of_every_rank_and_layout(shape: tuple[int, ...], turned: bool) -> None:
    x, dx = (torch.randn(shape).double() for _ in range(2))
    if turned:  # the tokens of a transformer are a turned map
        x, dx = (t.movedim(-1, 0).contiguous().movedim(0, -1) for t in (x, dx))
    layer, found = nn.Linear(5, 3).double(), []
    for mode in (DualRules(), nullcontext()):
        with mode:
            found.append(derivative(layer, x, dx, ["weight", "bias"]))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_a_linear_layer_of_a_single_row() -> None:
    x, w, d = (torch.randn(5).double() for _ in range(3))
    with torch.no_grad(), fwAD.dual_level(), DualRules():
        tangent = fwAD.unpack_dual(F.linear(x.expand(3, 5), fwAD.make_dual(w, d))).tangent
    torch.testing.assert_close(tangent, (x @ d).expand(3), rtol=1e-12, atol=1e-12)


def test_operands_may_be_named() -> None:
    x, w = torch.rand(2, 3).double(), torch.rand(4, 3).double()
    with torch.no_grad(), fwAD.dual_level(), DualRules():
        dual = fwAD.make_dual(x, x)  # each of these is linear: its tangent along x is its value
        for y in (torch.mul(input=dual, other=2.0), dual.div(other=2.0), F.linear(input=dual, weight=w)):
            torch.testing.assert_close(*fwAD.unpack_dual(y))


def test_linear_layers_under_autocast() -> None:
    layer, x, dx = nn.Linear(64, 32), torch.randn(8, 9, 64), torch.randn(8, 9, 64)
    with torch.autocast("cpu", torch.bfloat16), DualRules():
        value, slope = derivative(layer, x, dx, ["weight", "bias"])
    assert slope is not None and value.dtype == slope.dtype == torch.bfloat16
    torch.testing.assert_close(slope.float(), derivative(layer, x, dx, ["weight", "bias"])[1], rtol=0.02, atol=0.3)


OPERANDS = {
    "number": lambda: 0.5,
    "constant": lambda: torch.rand(2, 1, 3).double() + 1,
    "float32": lambda: torch.rand(()) + 1,
    "integer": lambda: torch.tensor(3),
    "dual": lambda: fwAD.make_dual(torch.rand(4, 3).double() + 1, torch.rand(4, 3).double()),
}
PRODUCTS: dict[str, Callable[[Any, Any], Tensor]] = {
    "x * c": lambda x, c: x * c,
    "c * x": lambda x, c: c * x,
    "mul": torch.mul,
    "method mul": lambda x, c: x.mul(c),
    "x / c": lambda x, c: x / c,
    "c / x": lambda x, c: c / x,
    "div": torch.div,
    "floor": lambda x, c: torch.div(x, c, rounding_mode="floor"),
}


@pytest.mark.parametrize("operand", OPERANDS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_products_with_numbers_constants_and_duals(product: str, operand: str) -> None:
    torch.manual_seed(0)
    x, dx, found = torch.rand(2, 4, 3).double() + 1, torch.randn(2, 4, 3).double(), []
    for mode in (DualRules(), nullcontext()):
        torch.manual_seed(1)
        with torch.no_grad(), fwAD.dual_level(), mode:
            found.append(tuple(fwAD.unpack_dual(PRODUCTS[product](fwAD.make_dual(x, dx), OPERANDS[operand]()))))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_parameters_get_their_tangents_before_the_rules_apply() -> None:
    """A mode sees every call: for the hundreds of small ones that make dual numbers it would cost more than it saves."""
    seen: list[Any] = []
    whole = DualRules.__torch_function__

    def watched(self: DualRules, func: Any, *rest: Any) -> Any:
        seen.append(func)
        return whole(self, func, *rest)

    layer = nn.Linear(3, 2)
    params = {name: p.detach() for name, p in layer.named_parameters()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DualRules, "__torch_function__", watched)
        unit_jvp(lambda p: F.linear(torch.ones(1, 3), p["weight"], p["bias"]), params, params)
    assert F.linear in seen and torch._make_dual not in seen


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", ["batch", "layer", "group", "instance"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_and_out_and_float32_between(name: str, dtype: torch.dtype) -> None:
    layer, x, dx = layer_and_input(name, torch.float32)
    with DualRules():
        value, slope = derivative(layer, x.to(dtype), dx.to(dtype), ["weight"])
        expected = derivative(layer, x.to(dtype).float(), dx.to(dtype).float(), ["weight"])
    assert slope is not None and value.dtype == slope.dtype == dtype
    torch.testing.assert_close((value, slope), tuple(t.to(dtype) for t in expected), rtol=0, atol=0)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", ["batch", "running", "layer", "group"])
def test_parameters_in_half_precision(name: str) -> None:
    layer, x, dx = layer_and_input(name, torch.bfloat16)
    with DualRules():
        value, slope = derivative(layer, x, dx, ["weight", "bias"])
        of_input = derivative(layer, x, dx, [])
    assert slope is not None and value.dtype == slope.dtype == torch.bfloat16
    expected = derivative(layer.float(), x.float(), dx.float(), [])
    torch.testing.assert_close([t.float() for t in of_input], list(expected), rtol=0.01, atol=0.02)


@pytest.mark.usefixtures("kernels")
def test_input_and_tangent_are_left_as_they_were() -> None:
    layer, x, dx = layer_and_input("batch")
    before = x.clone(), dx.clone()
    with DualRules():
        derivative(layer, x, dx, ["weight", "bias"])
    torch.testing.assert_close((x, dx), before, rtol=0, atol=0)


def test_with_a_graph_torchs_own_rules_apply() -> None:
    """Where a pass with tangents is differentiated itself."""
    layer, x, dx = layer_and_input("batch")
    gradients = []
    for mode in (DualRules(), nullcontext()):
        with fwAD.dual_level(), mode:
            y = layer(fwAD.make_dual(x.requires_grad_(), dx))
            gradients.append(fwAD.unpack_dual(torch.autograd.grad(y.pow(3).sum(), x)[0]).tangent)
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_a_pass_that_tracks_statistics_still_does() -> None:
    found = []
    for mode in (DualRules(), nullcontext()):
        norm, x = nn.BatchNorm2d(6).double(), torch.arange(240.0).sin().view(2, 6, 4, 5).double()
        with torch.no_grad(), fwAD.dual_level(), mode:
            value, slope = fwAD.unpack_dual(norm(fwAD.make_dual(x, x.cos())))
        found.append((value, slope, norm.running_mean, norm.running_var))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
    assert float(found[0][2].abs().max()) > 0


@pytest.mark.parametrize(
    "options", [{}, {"reduction": "mean"}, {"reduction": "sum"}, {"label_smoothing": 0.1}, {"ignore_index": 1}]
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 4, 5), (2, 4, 3, 5)])
def test_cross_entropy(shape: tuple[int, ...], weighted: bool, options: dict[str, object]) -> None:
    draws = torch.Generator().manual_seed(0)
    x, dx = (9 * torch.randn(shape, generator=draws, dtype=torch.float64) for _ in range(2))
    target = torch.randint(4, shape[:1] + shape[2:] if len(shape) > 1 else (), generator=draws)
    weight = torch.rand(4, generator=draws).double() if weighted else None
    found = []
    for mode in (DualRules(), nullcontext()):
        with torch.no_grad(), fwAD.dual_level(), mode:
            y = F.cross_entropy(fwAD.make_dual(x, dx), target, weight, **({"reduction": "none"} | options))
            found.append(tuple(fwAD.unpack_dual(y)))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_void_pixels_have_no_loss_and_no_slope_whatever_their_logits() -> None:
    x, target = torch.randn(2, 4, 3, 3), torch.full((2, 3, 3), 255)
    target[0, 0, 0] = 2
    x[1, 0, 1, 1], x[1, 1, 2, 2] = float("inf"), -float("inf")
    with torch.no_grad(), fwAD.dual_level(), DualRules():
        y = F.cross_entropy(fwAD.make_dual(x, torch.randn_like(x)), target, ignore_index=255, reduction="none")
        value, slope = fwAD.unpack_dual(y)
    for found in (value, slope):
        assert found[0, 0, 0] != 0 and int((found != 0).sum()) == 1


def test_cross_entropy_of_half_precision_logits_is_that_of_float32() -> None:
    draws = torch.Generator().manual_seed(0)
    x, dx = (torch.randn(2, 4, 3, 3, generator=draws).bfloat16() for _ in range(2))
    target, found = torch.randint(4, (2, 3, 3), generator=draws), []
    for raise_first in (False, True):
        with torch.no_grad(), fwAD.dual_level(), DualRules():
            logits = fwAD.make_dual(x.float(), dx.float()) if raise_first else fwAD.make_dual(x, dx)
            found.append(tuple(fwAD.unpack_dual(F.cross_entropy(logits, target, reduction="none"))))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_cross_entropy_with_a_graph() -> None:
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    with fwAD.dual_level(), DualRules():
        y = F.cross_entropy(
            fwAD.make_dual(x, torch.ones_like(x)), torch.zeros(2, 3, 3, dtype=torch.long), reduction="none"
        )
        (g,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(g, x.softmax(1) - F.one_hot(torch.tensor(0), 4).view(1, 4, 1, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["batch", "layer", "group"])
def test_a_norm_is_launched_in_few_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segzoo.bilevel.rules._is_launched", lambda x: True)
    layer, x, dx = layer_and_input(name)
    with DualRules(), Calls() as calls:
        derivative(layer, x, dx, ["weight", "bias"])
    assert {"addcmul", "addcmul_"} <= calls.names and not {"mul_", "add_", "mul", "add"} & calls.names
