"""What only a CUDA device can show. Run with `pytest -m gpu`."""

from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from torch import nn
from torch.nn import functional as F

from segzoo.bilevel import Graphed, Replayed, SGDStep
from segzoo.bilevel.rules import DualRules
from segzoo.distributed import mean_terms, non_finite_terms
from segzoo.models.segmenter import create_segmenter
from tests import tiny
from tests.parity.problems import Problem, problem, relative_error

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ON_CUDA: dict[str, Any] = {"accelerator": "cuda", "devices": 1}


def on_cuda(architecture: str, encoder: str, dtype: torch.dtype) -> Problem:
    torch.manual_seed(0)
    p = problem(create_segmenter(architecture, encoder, 5))
    p.net.to("cuda", dtype)
    p.source, p.target = ((x.to("cuda", dtype), y.cuda()) for x, y in (p.source, p.target))
    p.weights = p.weights.to("cuda", dtype)
    return p


@pytest.mark.parametrize(("architecture", "encoder"), [("deeplabv3plus", "resnet18"), ("segformer", "mit_b0")])
def test_forward_equals_double_backward(architecture: str, encoder: str) -> None:
    p = on_cuda(architecture, encoder, torch.float64)
    forward, reference = (p.solve(engine, SGDStep(0.1)).weights for engine in ("forward", "double_backward"))  # type: ignore[arg-type]
    assert relative_error(forward, reference) < 1e-10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_agrees_with_its_own_double_backward(dtype: torch.dtype) -> None:
    p = on_cuda("segformer", "mit_b0", torch.float32)
    with torch.autocast("cuda", dtype=dtype, cache_enabled=False):
        forward, second = (p.solve(engine, SGDStep(0.1)).weights for engine in ("forward", "double_backward"))  # type: ignore[arg-type]
    assert float(F.cosine_similarity(forward.flatten(), second.flatten(), dim=0)) > 0.99


@pytest.mark.parametrize("update", ["sequential", "fused", "paper"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_training_step_in_every_precision(update: str, precision: str) -> None:
    trained = tiny.fit("metapix", 3, update=update, trainer_options=ON_CUDA | {"precision": precision})
    assert all(bool(torch.isfinite(p).all()) for p in trained.parameters())


@pytest.mark.parametrize("options", [{}, {"update": "fused"}, {"update": "paper"}, {"micro_batches": 2}])
def test_a_captured_meta_update_trains_as_the_usual_one(options: dict[str, Any]) -> None:
    # Dropout, but no batch norm: with a few images of random classes that makes 1e-3 of 1e-15 in six steps.
    network = {"architecture": "deeplabv3plus", "encoder": "resnet18", "options": {}, "norm": "group"}
    settings = network | options | {"virtual_lr": 0.5, "trainer_options": ON_CUDA | {"precision": "64-true"}}
    begin = tiny.method("metapix", **network | options).state_dict()
    usual, captured = (tiny.fit("metapix", 6, cuda_graph=graph, **settings).state_dict() for graph in (False, True))
    for name, expected in usual.items():
        torch.testing.assert_close(captured[name], expected, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
    assert not torch.allclose(begin["weighting.head.weight"].double(), usual["weighting.head.weight"].cpu())


def test_captured_running_statistics_see_every_step() -> None:
    usual, captured = (
        tiny.fit("metapix", 6, lr=0.0, weight_lr=0.0, cuda_graph=graph, trainer_options=ON_CUDA).state_dict()
        for graph in (False, True)
    )
    buffers = [name for name in usual if "running" in name or "num_batches" in name]
    assert buffers
    for name in buffers:
        torch.testing.assert_close(captured[name], usual[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.dropout = nn.Parameter(torch.ones(1000)), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(x * self.weight)


def test_a_capture_takes_new_inputs_and_new_masks_and_leaves_other_sizes_alone() -> None:
    net, draws = Dropped().cuda(), torch.Generator().manual_seed(3)

    def draw() -> int:
        return int(torch.randint(1000, ()))

    def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        one = Replayed(net, x, lambda z: z, draw())
        return one(), one()

    graphed = Graphed(run, draw, seeds=1)
    torch.manual_seed(3)
    for i in range(6):
        x = torch.full((2, 1000), float(i + 1), device="cuda")
        first, second = graphed(x)
        expected = Replayed(net, x, lambda z: z, int(torch.randint(1000, (), generator=draws)))()
        torch.testing.assert_close(first, expected)
        torch.testing.assert_close(second, expected)
    assert graphed.graph is not None
    assert graphed(torch.ones(3, 1000, device="cuda"))[0].shape == (3, 1000)


@pytest.mark.parametrize("option", ["compile", "channels_last"])
def test_faster_settings_train(option: str) -> None:
    trained = tiny.fit("metapix", 2, trainer_options=ON_CUDA, **{option: True})
    assert all(bool(torch.isfinite(p).all()) for p in trained.parameters())


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4).eval(), nn.LayerNorm(5), nn.GroupNorm(2, 4)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_norms_of_a_pass_with_tangents_answer_in_the_dtype_of_an_ordinary_one(
    norm: nn.Module, dtype: torch.dtype
) -> None:
    norm, x = norm.cuda(), torch.randn(2, 4, 3, 5, device="cuda", dtype=dtype)
    with torch.no_grad(), torch.autocast("cuda", torch.float16), fwAD.dual_level(), DualRules():
        value, slope = fwAD.unpack_dual(norm(fwAD.make_dual(x, torch.ones_like(x))))
    with torch.no_grad(), torch.autocast("cuda", torch.float16):
        expected = norm(x)
    assert slope is not None and value.dtype == slope.dtype == expected.dtype
    torch.testing.assert_close(value, expected)


def test_the_means_of_terms_do_not_wait_for_the_device() -> None:
    terms = {"a": torch.ones((), device="cuda"), "b": torch.tensor(float("inf"), device="cuda")}
    torch.cuda.set_sync_debug_mode("error")
    try:
        means = mean_terms(terms)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert non_finite_terms(means) == {"b": float("inf")}
