"""Losses of overlap against their definitions, the library's own, and what they must not do."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segmentation_models_pytorch.losses import MULTICLASS_MODE, DiceLoss, LovaszLoss
from torch import Tensor

from segzoo.losses import dice_loss, lovasz_loss

CLASSES = 5
both = pytest.mark.parametrize("loss", [dice_loss, lovasz_loss])
Loss = Callable[[Tensor, Tensor], Tensor]


def batch(seed: int, classes: int = CLASSES, held: int = CLASSES, void: float = 0.2) -> tuple[Tensor, Tensor]:
    """Logits of all classes, labels of the first ``held`` ones and void."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, classes, 6, 7, generator=generator)
    labels = torch.randint(held, (2, 6, 7), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < void] = 255
    return logits.requires_grad_(), labels


def naive_dice(logits: Tensor, labels: Tensor) -> Tensor:
    valid = labels != 255
    p, y = logits.softmax(1).movedim(1, -1)[valid], labels[valid]
    losses = []
    for c in y.unique().tolist():
        true = (y == c).to(p.dtype)
        losses.append(1 - 2 * (p[:, c] * true).sum() / (p[:, c].sum() + true.sum()))
    return torch.stack(losses).mean()


def naive_lovasz(logits: Tensor, labels: Tensor) -> Tensor:
    """The convex closure of the set function "IoU lost by the errors so far", term by term."""
    valid = labels != 255
    p, y = logits.softmax(1).movedim(1, -1)[valid], labels[valid]
    losses = []
    for c in y.unique().tolist():
        true = y == c
        errors = torch.where(true, 1 - p[:, c], p[:, c])
        total, wrong, before = p.new_zeros(()), torch.zeros_like(true), 0.0
        for i in errors.argsort(descending=True).tolist():
            wrong[i] = True
            kept, union = int((true & ~wrong).sum()), int((true | wrong).sum())
            total = total + errors[i] * ((1 - kept / union) - before)
            before = 1 - kept / union
        losses.append(total)
    return torch.stack(losses).mean()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, CLASSES), st.floats(0, 0.9))
def test_values_and_gradients_are_those_of_the_definition(seed: int, held: int, void: float) -> None:
    logits, labels = batch(seed, held=held, void=void)
    if not (labels != 255).any():
        return
    for loss, naive in ((dice_loss, naive_dice), (lovasz_loss, naive_lovasz)):
        ours, expected = loss(logits, labels), naive(logits, labels)
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
        (a,), (b,) = torch.autograd.grad(ours, logits), torch.autograd.grad(expected, logits)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
        assert not a.movedim(1, -1)[labels == 255].any()
        assert 0 <= ours.item() <= 1 + 1e-6


def test_they_are_the_librarys_where_every_class_occurs() -> None:
    logits, labels = batch(0)
    torch.testing.assert_close(dice_loss(logits, labels), DiceLoss(MULTICLASS_MODE, ignore_index=255)(logits, labels))
    torch.testing.assert_close(
        lovasz_loss(logits, labels), LovaszLoss(MULTICLASS_MODE, ignore_index=255)(logits, labels)
    )


@both
def test_a_class_that_is_absent_does_not_make_the_loss_smaller(loss: Loss) -> None:
    logits, labels = batch(1, held=2)
    never = logits.detach().clone()
    never[:, 2:] = -100  # as if there were two classes alone
    torch.testing.assert_close(loss(never, labels), loss(never[:, :2], labels))


@both
def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_all(loss: Loss) -> None:
    labels = torch.tensor([[[0, 1], [255, 1]]])
    right = 100.0 * torch.nn.functional.one_hot(labels.clamp_max(1), 2).movedim(-1, 1).float()
    assert float(loss(right, labels)) == pytest.approx(0, abs=1e-6)
    assert float(loss(right.flip(1), labels)) == pytest.approx(1, abs=1e-6)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_without_labelled_pixels_it_is_zero_and_so_is_its_gradient(loss: Loss, dtype: torch.dtype) -> None:
    logits = torch.randn(2, CLASSES, 4, 4).to(dtype).requires_grad_()
    found = loss(logits, torch.full((2, 4, 4), 255))
    found.backward()
    assert found.dim() == 0 and found.item() == 0
    assert logits.grad is not None and not logits.grad.any()


@both
def test_half_precision_computes_in_float32(loss: Loss) -> None:
    logits, labels = batch(2)
    half = logits.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(half, labels)
    expected = loss(half.detach().float().requires_grad_(), labels)
    assert found.dtype == torch.float32 and found.item() == expected.item()


def test_areas_are_those_of_the_whole_batch() -> None:
    logits, labels = batch(3)
    apart = torch.stack([dice_loss(logits[i : i + 1], labels[i : i + 1]) for i in range(2)]).mean()
    assert abs((apart - dice_loss(logits, labels)).item()) > 1e-4
