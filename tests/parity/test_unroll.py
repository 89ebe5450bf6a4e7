"""Several virtual steps against second-order autograd through all of them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from segzoo.bilevel import MissingDerivativeError, SGDStep, UnrolledHypergradient, unrolled_hypergradient
from segzoo.models.segmenter import create_segmenter
from tests.parity.problems import Problem, buffers, problem, relative_error, toy

LR = 0.5


def solve(p: Problem, weights: list[Tensor], **options: Any) -> UnrolledHypergradient:
    sources = [p.source_losses(seed) for seed in range(len(weights))]
    counts = [float(w.numel()) for w in weights]
    return unrolled_hypergradient(sources, p.target_loss(), p.params, weights, counts, LR, **options)


def reference(p: Problem, weights: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """dL_T/dw of every step, by differentiating through the whole chain."""
    leaves = [w.clone().requires_grad_() for w in weights]
    theta: dict[str, Tensor] = dict(p.params)
    with sdpa_kernel(SDPBackend.MATH):
        for seed, w in enumerate(leaves):
            loss = (w * p.source_losses(seed)(theta)).sum() / w.numel()
            g = torch.autograd.grad(
                loss, list(theta.values()), create_graph=True, allow_unused=True, materialize_grads=True
            )
            theta = {name: t - LR * d for (name, t), d in zip(theta.items(), g, strict=True)}
        target_loss = p.target_loss()(theta)
        return list(torch.autograd.grad(target_loss, leaves)), target_loss.detach()


def some_weights(p: Problem, steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.rand(p.weights.shape, generator=generator, dtype=torch.float64) for _ in range(steps)]


NETS = {
    "toy": toy,
    "unet": lambda: problem(create_segmenter("unet", "resnet18", 5), size=32),
    "segformer": lambda: problem(create_segmenter("segformer", "mit_b0", 5), size=32),
}


@pytest.mark.parametrize(("name", "steps"), [("toy", 1), ("toy", 2), ("toy", 3), ("unet", 2), ("segformer", 3)])
def test_the_exact_chain_is_exact(name: str, steps: int) -> None:
    torch.manual_seed(0)
    p = NETS[name]()
    before, weights = buffers(p.net), some_weights(p, steps)
    at = {key: q.detach().clone() for key, q in p.params.items()}
    expected, target_loss = reference(p, weights)
    found = solve(p, weights)
    # Steps of this length multiply rounding, too.
    assert max(relative_error(a, b) for a, b in zip(found.weights, expected, strict=True)) < 1e-10
    assert float(found.target_loss) == pytest.approx(float(target_loss.detach()), rel=1e-12)
    assert all(torch.equal(b, before[key]) for key, b in p.net.named_buffers())
    assert all(torch.equal(q, at[key]) for key, q in p.params.items())


def test_one_step_is_the_hypergradient() -> None:
    p = toy()
    found = solve(p, [p.weights])
    # The toy's losses draw the masks of seed 0 here and of seed 1 there.
    p.source_losses = lambda seed=0: Problem.source_losses(p, 0)  # type: ignore[method-assign]
    assert relative_error(found.weights[0], p.solve("forward", SGDStep(LR)).weights) < 1e-12


def test_the_first_order_chain_is_exact_at_its_last_step_alone() -> None:
    p = toy()
    weights = some_weights(p, 3)
    expected, _ = reference(p, weights)
    errors = [relative_error(a, b) for a, b in zip(solve(p, weights, exact=False).weights, expected, strict=True)]
    assert errors[2] < 1e-12 and errors[0] > errors[1] > 1e-3


def test_group_norm_has_only_the_first_order_chain() -> None:
    p = problem(nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 5, 1)), size=8)
    p.source = (p.source[0], p.source[1][:, 1:-1, 1:-1])
    p.target = (p.target[0], p.target[1][:, 1:-1, 1:-1])
    p.weights = p.weights[:, 1:-1, 1:-1]
    weights = some_weights(p, 2)
    with pytest.raises(MissingDerivativeError, match="first-order chain"):
        solve(p, weights)
    assert torch.isfinite(solve(p, weights, exact=False).weights[0]).all()
