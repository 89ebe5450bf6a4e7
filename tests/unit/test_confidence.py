"""Maximum squares, entropy, their image-wise weights and the guidance of the low-level head."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segzoo.losses import (
    cross_entropy,
    guidance_labels,
    image_class_weights,
    image_weighted_maximum_squares,
    image_weighted_minimum_entropy,
    maximum_squares,
    minimum_entropy,
    multi_level_guidance,
)

PLAIN = [maximum_squares, minimum_entropy]
WEIGHTED = [image_weighted_maximum_squares, image_weighted_minimum_entropy]
ALL = PLAIN + WEIGHTED

seeds = st.integers(0, 2**31)
sizes = st.tuples(st.integers(1, 4), st.integers(2, 6), st.integers(1, 5), st.integers(1, 5))


@pytest.fixture
def official(shared):
    return {name: torch.from_numpy(value) for name, value in np.load(shared / "golden/official.npz").items()}


def logits(*shape, seed=0, scale=2.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def one_hot(classes, height=3, width=4):
    return F.one_hot(torch.arange(height * width) % classes, classes).T.reshape(1, classes, height, width).double()


def uniform(classes):
    return torch.full((1, classes, 3, 4), 1 / classes, dtype=torch.float64)


def naive(loss, probs, valid, ratio=0.2):
    """Pixel by pixel, as the formulas read."""
    batch, classes, height, width = probs.shape
    term = (lambda p: p * p) if "squares" in loss.__name__ else (lambda p: math.log(p) * p)
    total, number = 0.0, 0
    for b in range(batch):
        pixels = [(y, x) for y in range(height) for x in range(width) if valid[b, y, x]]
        predicted = {yx: int(probs[b, :, *yx].argmax()) for yx in pixels}
        number += len(pixels)
        for yx in pixels:
            own = sum(c == predicted[yx] for c in predicted.values())
            weight = 1 / max(own**ratio * len(pixels) ** (1 - ratio), 1) if loss in WEIGHTED else 1
            total -= weight * sum(term(float(p)) for p in probs[b, :, *yx])
    if loss in WEIGHTED:
        return total / (batch * classes)
    return total / (max(number, 1) * classes) * (0.5 if loss is maximum_squares else 1)


# Values


def test_published_maximum_squares(official):
    z = official["maxsquare.logits"].requires_grad_()
    loss = maximum_squares(z.softmax(1))
    torch.testing.assert_close(loss, official["maxsquare.loss"], rtol=1e-9, atol=0)
    (grad,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(grad, official["maxsquare.grad_logits"], rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("ratio", [0.0, 0.2, 1.0])
def test_published_image_weights(official, ratio):
    z = official["maxsquare.logits"].requires_grad_()
    loss = image_weighted_maximum_squares(z.softmax(1), ratio)
    torch.testing.assert_close(loss, official[f"iw_maxsquare.ratio{ratio}.loss"], rtol=1e-6, atol=0)
    (grad,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(grad, official[f"iw_maxsquare.ratio{ratio}.grad_logits"], rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("classes", [2, 19])
def test_bounds(classes):
    assert float(maximum_squares(one_hot(classes))) == pytest.approx(-1 / (2 * classes))
    assert float(maximum_squares(uniform(classes))) == pytest.approx(-1 / (2 * classes**2))
    assert float(minimum_entropy(one_hot(classes))) == 0
    assert float(minimum_entropy(uniform(classes))) == pytest.approx(math.log(classes) / classes)


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("ratio", [0.0, 0.2, 1.0])
def test_naive_loops(loss, ratio):
    probs, valid = logits(3, 4, 5, 6, seed=3).softmax(1), mask(3, 5, 6, seed=4)
    options = {"ratio": ratio} if loss in WEIGHTED else {}
    assert float(loss(probs, valid=valid, **options)) == pytest.approx(naive(loss, probs, valid, ratio), rel=1e-12)
    everything = torch.ones_like(valid)
    assert float(loss(probs, **options)) == pytest.approx(naive(loss, probs, everything, ratio), rel=1e-12)


def test_entropy_of_another_library():
    probs = logits(2, 5, 3, 4).softmax(1)
    entropy = torch.distributions.Categorical(probs.movedim(1, -1)).entropy().mean() / 5
    torch.testing.assert_close(minimum_entropy(probs), entropy)


@pytest.mark.parametrize(("weighted", "factor", "plain"), list(zip(WEIGHTED, [2, 1], PLAIN, strict=True)))
def test_ratio_zero_weighs_all_pixels_alike(weighted, factor, plain):
    probs = logits(1, 19, 6, 7).softmax(1)
    torch.testing.assert_close(weighted(probs, 0.0), factor * plain(probs))


def test_rare_classes_weigh_more():
    """Relative weights N w of shares 0.5, 0.1, 0.01, 0.001 of the pixels at the published ratio."""
    shares = torch.tensor([500, 100, 10, 1, 389])
    predicted = torch.arange(5).repeat_interleave(shares).view(1, 20, 50)
    weights = 1000 * image_class_weights(F.one_hot(predicted).movedim(-1, 1).double())
    found = [float(weights[predicted == c].unique()) for c in range(4)]
    np.testing.assert_allclose(found, [1.15, 1.58, 2.51, 3.98], atol=0.005)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_have_the_dtype_of_the_probabilities_and_no_graph(dtype):
    probs = logits(2, 3, 4, 5).to(dtype).requires_grad_().softmax(1)
    weights = image_class_weights(probs, 0.2, mask(2, 4, 5))
    assert weights.dtype == dtype and not weights.requires_grad
    assert (weights[~mask(2, 4, 5)] == 0).all() and (weights[mask(2, 4, 5)] > 0).all()


def test_as_many_images_as_classes():
    """The published broadcast of weights (B, H, W) to (B, C, H, W) is silently wrong there."""
    probs = logits(4, 4, 4, 4, seed=2).softmax(1)
    expected = naive(image_weighted_maximum_squares, probs, torch.ones(4, 4, 4))
    assert float(image_weighted_maximum_squares(probs)) == pytest.approx(expected, rel=1e-12)


# Gradients


def test_gradients_are_the_closed_forms():
    z = logits(2, 5, 3, 4).requires_grad_()
    p, n = z.softmax(1).detach(), 2 * 3 * 4 * 5
    (squares,) = torch.autograd.grad(maximum_squares(z.softmax(1)), z)
    torch.testing.assert_close(squares, -p * (p - p.square().sum(1, keepdim=True)) / n)
    (entropy,) = torch.autograd.grad(minimum_entropy(z.softmax(1)), z)
    h = -(p * p.log()).sum(1, keepdim=True)
    torch.testing.assert_close(entropy, -p * (p.log() + h) / n)


@pytest.mark.parametrize("loss", ALL)
def test_numerical_gradient(loss):
    z, valid = logits(2, 3, 2, 3, seed=1).requires_grad_(), mask(2, 2, 3, seed=1)
    assert torch.autograd.gradcheck(lambda z: loss(z.softmax(1), valid=valid), z)


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_softmax_has_a_finite_gradient(loss, dtype):
    z = torch.tensor([0.0, 2000.0, -2000.0], dtype=dtype).view(1, 3, 1, 1).requires_grad_()
    assert 0 in z.softmax(1)
    (grad,) = torch.autograd.grad(loss(z.softmax(1)), z)
    assert torch.isfinite(grad).all()
    probs = one_hot(3).to(dtype).requires_grad_()
    (grad,) = torch.autograd.grad(loss(probs), probs)
    assert torch.isfinite(grad).all()


# Valid pixels and batches


@pytest.mark.parametrize("loss", ALL)
@settings(max_examples=30, deadline=None)
@given(seed=seeds, shape=sizes)
def test_pixels_that_do_not_count_change_nothing(loss, seed, shape):
    batch, _, height, width = shape
    valid = mask(batch, height, width, seed=seed)
    probs, others = (logits(*shape, seed=s).softmax(1) for s in (seed, seed + 1))
    changed = torch.where(valid.unsqueeze(1), probs, others).requires_grad_()
    found = loss(changed, valid=valid)
    torch.testing.assert_close(found, loss(probs, valid=valid))
    (grad,) = torch.autograd.grad(found, changed)
    assert (grad[~valid.unsqueeze(1).expand_as(grad)] == 0).all()


@pytest.mark.parametrize("loss", ALL)
@settings(max_examples=30, deadline=None)
@given(seed=seeds, shape=sizes)
def test_valid_pixels_are_an_image_of_their_own(loss, seed, shape):
    _, classes, height, width = shape
    valid = mask(1, height, width, seed=seed)
    probs = logits(1, classes, height, width, seed=seed).softmax(1)
    kept = probs.movedim(1, -1)[valid].T.reshape(1, classes, 1, -1)
    expected = loss(kept) if valid.any() else torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(loss(probs, valid=valid), expected)


@pytest.mark.parametrize("loss", WEIGHTED)
@settings(max_examples=30, deadline=None)
@given(seed=seeds, shape=sizes, ratio=st.floats(0, 1))
def test_a_batch_is_the_mean_of_its_images(loss, seed, shape, ratio):
    batch, _, height, width = shape
    probs, valid = logits(*shape, seed=seed).softmax(1), mask(batch, height, width, seed=seed)
    single = [loss(probs[i : i + 1], ratio, valid[i : i + 1]) for i in range(batch)]
    torch.testing.assert_close(loss(probs, ratio, valid), torch.stack(single).mean())


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("batch", [1, 2])
def test_nothing_valid(loss, batch):
    z = logits(batch, 3, 2, 2).requires_grad_()
    found = loss(z.softmax(1), valid=torch.zeros(batch, 2, 2, dtype=torch.bool))
    (grad,) = torch.autograd.grad(found, z)
    assert found == 0 and (grad == 0).all()


@pytest.mark.parametrize("loss", PLAIN)
def test_ranks_share_one_count(loss):
    """The mean over two ranks with different numbers of pixels is the mean over all pixels."""
    probs, valid = logits(4, 3, 4, 5).softmax(1), mask(4, 4, 5)
    valid[:2] &= mask(2, 4, 5, seed=9)
    parts = [loss(probs[i : i + 2], valid[i : i + 2], count=valid.sum() / 2) for i in (0, 2)]
    torch.testing.assert_close(torch.stack(parts).mean(), loss(probs, valid))
    assert loss(probs, torch.zeros_like(valid), count=torch.tensor(0.0)) == 0


# Multi-level guidance


def heads(seed, shape=(2, 4, 5, 6)):
    high, low = (logits(*shape, seed=s, scale=3.0) for s in (seed, seed + 1))
    return high.softmax(1), low.softmax(1), low


def test_guidance_pixel_by_pixel():
    high, low, z = heads(0)
    valid, losses = mask(2, 5, 6), []
    for b, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(5), torch.arange(6)).tolist():
        p, q = high[b, :, y, x], low[b, :, y, x]
        if valid[b, y, x] and (p.max() > 0.9 or q.max() > 0.9):
            losses.append(-float(z[b, :, y, x].log_softmax(0)[(p + q).argmax()]))
    assert 0 < len(losses) < valid.sum()
    assert float(multi_level_guidance(high, low, z, 0.9, valid)) == pytest.approx(np.mean(losses), rel=1e-12)


def test_either_head_makes_a_pixel_confident():
    sure, unsure = torch.tensor([0.99, 0.01]), torch.tensor([0.4, 0.6])
    high = torch.stack([sure, unsure, unsure, sure], 1).view(1, 2, 1, 4)
    low = torch.stack([unsure, sure.flip(0), unsure, sure.flip(0)], 1).view(1, 2, 1, 4)
    labels = guidance_labels(high, low, 0.95)
    # Third: neither is sure. Fourth: both are, of different classes, and the mean is a tie that goes to the first class.
    assert labels.flatten().tolist() == [0, 1, 255, 0]


def test_guidance_reaches_the_low_logits_alone():
    high, low, z = (t.requires_grad_() for t in heads(3))
    loss = multi_level_guidance(high, low, z, 0.8)
    assert torch.autograd.gradcheck(lambda z: multi_level_guidance(high, low, z, 0.8), z)
    assert torch.autograd.grad(loss, [high, low], allow_unused=True) == (None, None)


def test_guidance_without_a_confident_pixel():
    high, low, z = heads(0)
    z.requires_grad_()
    for loss in (multi_level_guidance(high, low, z, 1.0), multi_level_guidance(high, low, z, 0, mask(2, 5, 6) & False)):
        (grad,) = torch.autograd.grad(loss, z)
        assert loss == 0 and (grad == 0).all()


def test_guidance_with_a_count_over_all_ranks():
    high, low, z = heads(5, (4, 3, 6, 6))
    labels = guidance_labels(high, low, 0.8)
    count = (labels != 255).sum() / 2
    parts = [cross_entropy(z[i : i + 2], labels[i : i + 2], count) for i in (0, 2)]
    torch.testing.assert_close(torch.stack(parts).mean(), multi_level_guidance(high, low, z, 0.8))
