"""Gradient distances: the published values, naive loops, and the closed-form derivative against autograd."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from segzoo.losses import gradient_distance, gradient_distance_derivative
from segzoo.losses.matching import GradientMetric

METRICS: tuple[Any, ...] = get_args(GradientMetric)
ROWWISE = tuple(metric for metric in METRICS if metric != "global_cosine")
SHAPES: list[tuple[int, ...]] = [(4, 3, 3, 3), (4,), (5, 4, 1, 1), (2, 7), (2,), ()]


def draw(seed: int, shapes: list[tuple[int, ...]] = SHAPES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]


def naive(synthetic: list[Tensor], real: list[Tensor], metric: str) -> float:
    """One row at a time."""
    if metric == "global_cosine":
        g, h = (np.concatenate([t.detach().numpy().ravel() for t in tensors]) for tensors in (synthetic, real))
        return 1 - g @ h / np.linalg.norm(g) / np.linalg.norm(h)
    total = 0.0
    for g, h in zip(synthetic, real, strict=True):
        for x, y in zip(g, h, strict=True) if g.dim() >= 2 else ():
            a, b = x.detach().numpy().ravel(), y.detach().numpy().ravel()
            value = {
                "cosine": lambda a, b: 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b),
                "l2": lambda a, b: np.linalg.norm(a - b),
                "dotprod": lambda a, b: -a @ b,
                "relative": lambda a, b: np.sum((a - b) ** 2) / np.sum(b**2) / 2,
            }[metric](a, b)
            total += value / len(g)
    return total / len(synthetic)


def autograd(synthetic: list[Tensor], real: list[Tensor], metric: GradientMetric) -> list[Tensor]:
    leaves = [g.clone().requires_grad_() for g in synthetic]
    grads = torch.autograd.grad(gradient_distance(leaves, real, metric), leaves, materialize_grads=True)
    return list(grads)


@pytest.mark.parametrize("metric", [metric for metric in ROWWISE if metric != "relative"])
def test_published_values_and_gradients(shared: Path, metric: GradientMetric) -> None:
    golden = np.load(shared / "golden/official.npz")
    synthetic, real = (
        [torch.from_numpy(golden[f"grad_match.{which}{i}"]) for i in range(6)] for which in ("syn", "real")
    )
    expected = float(golden[f"grad_match.{metric}.distance"])
    assert gradient_distance(synthetic, real, metric).item() == pytest.approx(expected, rel=1e-9)
    for derivative in (gradient_distance_derivative, autograd):
        for i, u in enumerate(derivative(synthetic, real, metric)):
            np.testing.assert_allclose(u.numpy(), golden[f"grad_match.{metric}.grad{i}"], rtol=1e-9, atol=1e-14)


shapes = st.lists(
    st.lists(st.integers(1, 4), min_size=0, max_size=4).map(tuple), min_size=1, max_size=5
).filter(lambda shapes: any(len(shape) >= 2 for shape in shapes))  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(shapes=shapes, seed=st.integers(0, 2**31), metric=st.sampled_from(METRICS))
def test_distance_is_the_naive_one_and_its_derivative_autograds(shapes: Any, seed: int, metric: Any) -> None:
    synthetic, real = draw(seed, shapes), draw(seed + 1, shapes)
    assert gradient_distance(synthetic, real, metric).item() == pytest.approx(naive(synthetic, real, metric), rel=1e-9)
    derivative = gradient_distance_derivative(synthetic, real, metric)
    for u, expected, g in zip(derivative, autograd(synthetic, real, metric), synthetic, strict=True):
        assert u.shape == g.shape and not u.requires_grad
        torch.testing.assert_close(u, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_gradcheck_to_both_arguments(metric: GradientMetric) -> None:
    tensors = tuple(t.requires_grad_() for t in draw(0) + draw(1))
    n = len(SHAPES)
    assert torch.autograd.gradcheck(lambda *t: gradient_distance(t[:n], t[n:], metric), tensors)


@pytest.mark.parametrize("metric", ["cosine", "global_cosine"])
@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_cosines_do_not_see_the_scale_and_the_derivative_is_its_inverse(metric: Any, scale: float) -> None:
    synthetic, real = draw(0), draw(1)
    base, u = gradient_distance(synthetic, real, metric), gradient_distance_derivative(synthetic, real, metric)
    scaled = [scale * g for g in synthetic]
    torch.testing.assert_close(gradient_distance(scaled, real, metric), base)
    torch.testing.assert_close(gradient_distance(synthetic, [scale * h for h in real], metric), base)
    torch.testing.assert_close(gradient_distance_derivative(scaled, real, metric), [x / scale for x in u])


@pytest.mark.parametrize("metric", ["cosine", "global_cosine"])
def test_the_derivative_is_orthogonal_to_the_gradient(metric: Any) -> None:
    synthetic, real = draw(0), draw(1)
    pairs = list(zip(gradient_distance_derivative(synthetic, real, metric), synthetic, strict=True))
    assert sum((u * g).sum() for u, g in pairs) == pytest.approx(0, abs=1e-15)
    if metric == "cosine":  # in every row
        for u, g in pairs[:1] + pairs[2:4]:
            torch.testing.assert_close(
                (u * g).flatten(1).sum(1), torch.zeros(len(g), dtype=g.dtype), rtol=0, atol=1e-15
            )


def test_a_step_along_the_derivative_approaches_the_real_gradient() -> None:
    synthetic, real = draw(0), draw(1)
    for metric in METRICS:
        u = gradient_distance_derivative(synthetic, real, metric)
        moved = [g - 1e-3 * x for g, x in zip(synthetic, u, strict=True)]
        slope = (gradient_distance(moved, real, metric) - gradient_distance(synthetic, real, metric)) / 1e-3
        assert slope.item() == pytest.approx(-sum(x.square().sum().item() for x in u), rel=1e-2)


def test_one_dimensional_tensors_are_counted_but_not_compared() -> None:
    synthetic, real = draw(0, [(3, 4), (5,)]), draw(1, [(3, 4), (5,)])
    for metric in ROWWISE:
        alone = gradient_distance(synthetic[:1], real[:1], metric)
        torch.testing.assert_close(gradient_distance(synthetic, real, metric), alone / 2)
        assert not gradient_distance_derivative(synthetic, real, metric)[1].any()
    changed = [real[0], -real[1]]
    assert gradient_distance(synthetic, real, "global_cosine") != gradient_distance(synthetic, changed, "global_cosine")


@pytest.mark.parametrize("metric", METRICS)
def test_whitening_is_a_change_of_the_rows(metric: GradientMetric) -> None:
    synthetic, real = draw(0), draw(1)
    widths = [t[0].numel() if t.dim() >= 2 else None for t in synthetic]
    whitening = [None if n is None else draw(2 + n, [(n, n)])[0] for n in widths]

    def rows(tensors: list[Tensor]) -> list[Tensor]:
        return [t if w is None else t.flatten(1) @ w for t, w in zip(tensors, whitening, strict=True)]

    leaves = [g.clone().requires_grad_() for g in synthetic]
    distance = gradient_distance(leaves, real, metric, whitening)
    assert distance.item() == pytest.approx(naive(rows(synthetic), rows(real), metric), rel=1e-9)
    u = gradient_distance_derivative(synthetic, real, metric, whitening)
    expected = torch.autograd.grad(distance, leaves, materialize_grads=True)
    torch.testing.assert_close(u, list(expected), rtol=1e-9, atol=1e-12)


def test_a_whitened_row_is_a_regression_of_the_errors() -> None:
    """‖(g − ĝ) W‖² is the mean square of the regression's difference, whatever linear map the inputs went through."""
    h, errors = draw(0, [(50, 6), (50, 2)])
    mix = draw(1, [(6, 6)])[0]
    found = []
    for inputs in (h, h @ mix):
        moments = inputs.T @ inputs / 50
        w = torch.linalg.inv(torch.linalg.cholesky(moments)).T
        g, real = (errors[:, i, None] * inputs for i in (0, 1))
        g, real = g.mean(0, keepdim=True), real.mean(0, keepdim=True)
        found.append((((g - real) @ w).square().sum(), gradient_distance([g], [real], "relative", [w])))
        fit = torch.linalg.lstsq(inputs, errors[:, :1] - errors[:, 1:]).solution
        torch.testing.assert_close(found[-1][0], (inputs @ fit).square().mean())
    torch.testing.assert_close(found[0], found[1])


def test_the_cosine_is_torchs() -> None:
    g, h = draw(0, [(6, 9)])[0], draw(1, [(6, 9)])[0]
    torch.testing.assert_close(gradient_distance([g], [h]), (1 - F.cosine_similarity(g, h, dim=1)).mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("vanishing", [0.0, 1e-9, 1e-30])
@pytest.mark.parametrize("side", ["synthetic", "real", "both", "everything"])
def test_rows_without_a_direction_are_harmless(dtype: torch.dtype, metric: Any, vanishing: float, side: str) -> None:
    synthetic, real = ([t.to(dtype) for t in draw(seed)] for seed in (0, 1))
    before = gradient_distance_derivative(synthetic, real, metric)
    for name, tensors in (("synthetic", synthetic), ("real", real)):
        if side in (name, "both"):
            tensors[0][1] *= vanishing
        elif side == "everything":
            tensors[:] = [t * vanishing for t in tensors]
    u, expected = gradient_distance_derivative(synthetic, real, metric), autograd(synthetic, real, metric)
    for x, y in zip(u, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5 if dtype == torch.float32 else 1e-9, atol=1e-6)
        # Neither NaN nor the 1/‖g‖ of a dead filter, which would drown all others.
        assert x.abs().max() <= 2
    if metric == "cosine":
        if side == "everything":
            assert gradient_distance(synthetic, real).item() == pytest.approx(3 / len(SHAPES))
        else:
            assert not u[0][1].any()
            torch.testing.assert_close(u[0][2], before[0][2])


def test_equal_gradients() -> None:
    for metric in ("cosine", "l2", "relative", "global_cosine"):
        assert gradient_distance(draw(0), draw(0), metric).item() == pytest.approx(0, abs=1e-12)
        assert all(u.abs().max() < 1e-12 for u in gradient_distance_derivative(draw(0), draw(0), metric))


@pytest.mark.parametrize("function", [gradient_distance, gradient_distance_derivative])
def test_what_cannot_be_compared_is_refused(function: Any) -> None:
    with pytest.raises(ValueError, match="unknown gradient metric 'cos': expected one of cosine"):
        function(draw(0), draw(1), "cos")
    with pytest.raises(ValueError, match="gradients of other parameters"):
        function(draw(0), draw(1)[:-1])
    with pytest.raises(ValueError, match=r"shapes \[\(2, 3\)\] against \[\(3, 2\)\]"):
        function([torch.zeros(2, 3)], [torch.zeros(3, 2)])
    for nothing in ([], [torch.ones(3)]):
        with pytest.raises(ValueError, match="nothing to match"):
            function(nothing, nothing)
    with pytest.raises(ValueError, match="nothing to match"):
        function([], [], "global_cosine")
