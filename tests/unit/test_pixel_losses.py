"""Cross-entropy with class weights and the focal factor, pixel by pixel."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.bilevel import SGDStep, pixel_jvp
from segzoo.bilevel.passes import Replayed
from segzoo.losses import class_losses, pixel_cross_entropy, soft_cross_entropy
from tests.parity.problems import Problem, problem, relative_error, toy

WEIGHT = torch.tensor([0.5, 1.0, 2.0, 0.25, 3.0])


def batch(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(2, 5, 4, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(5, (2, 4, 6), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = 255
    return logits.to(dtype).requires_grad_(), labels


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 5), st.booleans())
def test_it_is_the_formula_pixel_by_pixel(seed: int, gamma: float, weighted: bool) -> None:
    logits, labels = batch(seed)
    losses = pixel_cross_entropy(logits, labels, class_weight=WEIGHT if weighted else None, focal=gamma)
    for index in range(labels.numel()):
        b, y, x = index // 24, index % 24 // 6, index % 6
        label = int(labels[b, y, x])
        expected = 0.0
        if label != 255:
            scores = logits[b, :, y, x].tolist()
            p = math.exp(scores[label]) / sum(map(math.exp, scores))
            expected = (float(WEIGHT[label]) if weighted else 1.0) * (1 - p) ** gamma * -math.log(p)
        assert float(losses[b, y, x].detach()) == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.25, 1.0, 2.0])
def test_the_focal_factor_is_the_librarys(gamma: float) -> None:
    logits, labels = batch(0)
    kept = labels != 255
    expected = softmax_focal_loss_with_logits(logits, labels.where(kept, 0), gamma, reduction="none")
    torch.testing.assert_close(pixel_cross_entropy(logits, labels, focal=gamma), expected.where(kept, 0))


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_certain_and_void_pixels_have_finite_gradients(gamma: float, dtype: torch.dtype) -> None:
    logits, labels = torch.zeros(1, 5, 1, 4, dtype=dtype), torch.tensor([[[0, 1, 2, 255]]])
    logits[0, 0, 0, 0], logits[0, 0, 0, 1], logits[0, 2, 0, 2] = (
        50000,
        50000,
        3,
    )  # sure and right, sure and wrong, unsure
    logits.requires_grad_()
    losses = pixel_cross_entropy(logits, labels, class_weight=WEIGHT, focal=gamma)
    (slope,) = torch.autograd.grad(losses.sum(), logits)
    assert losses.isfinite().all() and slope.isfinite().all()
    assert losses[0, 0, 0].item() == 0 and losses[0, 0, 1].item() > 1000
    assert not slope[..., 3].any() and slope[..., 1].any() and slope[..., 2].any()


def test_half_precision_is_widened_where_there_are_weights_or_a_factor() -> None:
    logits, labels = batch(1, torch.bfloat16)
    wide = logits.detach().float()
    for options in ({"class_weight": WEIGHT}, {"focal": 2.0}):
        with torch.autocast("cpu", torch.bfloat16):
            found = pixel_cross_entropy(logits, labels, **options)  # type: ignore[arg-type]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, pixel_cross_entropy(wide, labels, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
def test_soft_labels_that_are_hard_are_labels(gamma: float, weight: Tensor | None) -> None:
    logits, labels = batch(2)
    kept = labels != 255
    hard = F.one_hot(labels.where(kept, 0), 5).movedim(-1, 1).double()
    expected = pixel_cross_entropy(logits, labels.where(kept, 0), class_weight=weight, focal=gamma)
    torch.testing.assert_close((hard * class_losses(logits, weight, gamma)).sum(1), expected)
    torch.testing.assert_close(soft_cross_entropy(logits, hard, weight, gamma), expected.mean())


class Focal(Problem):
    """Source losses with class weights and a focal factor."""

    gamma: float

    def source_losses(self, seed: int = 1) -> Replayed:
        image, label = self.source
        return Replayed(
            self.net, image, lambda z: pixel_cross_entropy(z, label, class_weight=WEIGHT, focal=self.gamma), seed
        )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_hypergradient_is_exact(gamma: float) -> None:
    plain = toy()
    p = Focal(plain.net, plain.source, plain.target, plain.weights)
    p.gamma = gamma
    forward, reference = (p.solve(engine, SGDStep(0.5)) for engine in ("forward", "double_backward"))  # type: ignore[arg-type]
    assert relative_error(forward.weights, reference.weights) < 1e-11
    assert relative_error(forward.weights, plain.solve("forward", SGDStep(0.5)).weights) > 1e-2
    assert float(forward.weights[p.source[1] == 255].abs().max()) == 0


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_the_derivative_of_every_class_loss_is_exact(gamma: float) -> None:
    p = problem(nn.Sequential(nn.Conv2d(3, 5, 1)), size=2)
    direction = {name: torch.randn_like(q) for name, q in p.params.items()}

    def losses(params: dict[str, Tensor]) -> Tensor:
        return class_losses(torch.func.functional_call(p.net, params, (p.source[0],)), WEIGHT, gamma)

    found = pixel_jvp(losses, p.params, direction)[1]  # type: ignore[arg-type]
    expected = torch.func.jvp(losses, (p.params,), (direction,))[1]
    torch.testing.assert_close(found, expected)
