"""The contrasts of pixel features with class concepts, and the regulariser."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segzoo.adaptation import ClassBank, ClassStatistics, downscale_labels, labelled_cells
from segzoo.losses import bank_contrast, distribution_contrast, prototype_contrast, prototype_regularizer

CLASSES, LENGTH, DIM, PIXELS = 5, 4, 6, 23
CONTRASTS = ["proto", "dist", "bank"]


@pytest.fixture
def official(shared):
    return {name: torch.from_numpy(value) for name, value in np.load(shared / "golden/official.npz").items()}


class Problem:
    """Random features and concepts of every kind."""

    def __init__(self, seed=0, classes=CLASSES, pixels=PIXELS):
        g = torch.Generator().manual_seed(seed)
        self.features = F.normalize(torch.randn(pixels, DIM, generator=g, dtype=torch.float64), dim=1)
        self.labels = torch.randint(classes, (pixels,), generator=g)
        self.mean = torch.randn(classes, DIM, generator=g, dtype=torch.float64)
        self.variance = torch.rand(classes, DIM, generator=g, dtype=torch.float64)
        self.bank = torch.randn(classes, LENGTH, DIM, generator=g, dtype=torch.float64)
        self.filled = torch.randint(1, LENGTH + 1, (classes,), generator=g)

    def unsee(self, *classes):
        """Takes the concepts of some classes away; what is left in the tensors must not matter."""
        self.seen = torch.ones(len(self.mean), dtype=torch.bool)
        self.seen[list(classes)] = False
        self.filled = self.filled.masked_fill(~self.seen, 0)
        self.mean[~self.seen] = self.bank[~self.seen] = 1e3
        return self

    def loss(self, kind, temperature=0.7, features=None, labels=None, **options):
        q = self.features if features is None else features
        y = self.labels if labels is None else labels
        if kind == "bank":
            options.pop("seen", None)
            return bank_contrast(q, y, self.bank, self.filled, temperature, **options)
        if kind == "dist":
            return distribution_contrast(q, y, self.mean, self.variance, temperature, **options)
        return prototype_contrast(q, y, self.mean, temperature, **options)


def naive(p, kind, temperature, classes):
    """Pixel by pixel and pair by pair, over the given classes."""
    total = 0.0
    for q, y in zip(p.features, p.labels.tolist(), strict=True):
        if y not in classes:
            continue
        if kind == "bank":
            entries = {c: [float(q @ b) / temperature for b in p.bank[c, : p.filled[c]]] for c in classes}
            negatives = sum(math.exp(np.mean(entries[c])) for c in classes if c != y)
            total += np.mean([-math.log(math.exp(s) / (math.exp(s) + negatives)) for s in entries[y]])
        else:
            spread = [float(q @ torch.diag(v) @ q) / (2 * temperature**2) * (kind == "dist") for v in p.variance]
            logits = [float(q @ m) / temperature for m in p.mean]
            total += math.log(sum(math.exp(logits[c] + spread[c]) for c in classes)) - logits[y]
    return total / len(p.features)


# Values


@pytest.mark.parametrize("kind", CONTRASTS)
@pytest.mark.parametrize("temperature", ["100", "1", "0.1"])
def test_published_contrasts(official, kind, temperature):
    statistics, bank = ClassStatistics(19, 32), ClassBank(19, 32, 5)
    for i in range(7):
        step = official[f"class_stats.step{i}.features"], official[f"class_stats.step{i}.labels"]
        statistics.update(*step)
        bank.update(*step)
    features = official["contrast.features"].requires_grad_()
    cells = labelled_cells(downscale_labels(official["contrast.labels"], (8, 10), 0.75, 19))
    pixels = cells.of(features), cells.labels
    tau = float(temperature)
    loss = {
        "proto": lambda: prototype_contrast(*pixels, statistics.mean, tau),
        "dist": lambda: distribution_contrast(*pixels, statistics.mean, statistics.variance, tau),
        "bank": lambda: bank_contrast(*pixels, bank.bank, bank.filled, tau),
    }[kind]()
    name = f"{kind}_cl.tau{temperature}"
    torch.testing.assert_close(loss, official[f"{name}.loss"], rtol=1e-9, atol=0)
    (grad,) = torch.autograd.grad(loss, features)
    expected = official[f"{name}.grad_features"]
    assert (grad - expected).abs().max() < 1e-9 * expected.abs().max()
    if temperature != "0.1":
        found = prototype_regularizer(pixels[0], statistics.mean, tau)
        torch.testing.assert_close(found, official[f"proto_reg.tau{temperature}.loss"], rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", CONTRASTS)
@pytest.mark.parametrize("temperature", [100.0, 0.7])
@pytest.mark.parametrize("unseen", [(), (1,), (0, 2, 3)])
def test_naive_loops(kind, temperature, unseen):
    p = Problem(1).unsee(*unseen)
    expected = naive(p, kind, temperature, set(range(CLASSES)) - set(unseen))
    assert float(p.loss(kind, temperature, seen=p.seen)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", CONTRASTS)
@pytest.mark.parametrize("unseen", [(), (1,), (0, 2, 3), (0, 1, 2, 3), tuple(range(CLASSES))])
def test_numerical_gradient(kind, unseen):
    p = Problem(2, pixels=7).unsee(*unseen)
    q = p.features.requires_grad_()
    assert torch.autograd.gradcheck(lambda q: p.loss(kind, features=q, seen=p.seen), q)
    (grad,) = torch.autograd.grad(p.loss(kind, seen=p.seen), q)
    assert (grad[~p.seen[p.labels]] == 0).all()


def test_concepts_receive_no_gradient():
    p = Problem()
    p.features.requires_grad_()
    for concept in (p.mean, p.variance, p.bank):
        concept.requires_grad_()
    for kind in CONTRASTS:
        p.loss(kind).backward()
    prototype_regularizer(p.features, p.mean).backward()
    assert p.features.grad is not None and all(t.grad is None for t in (p.mean, p.variance, p.bank))


def test_without_variance_the_distribution_is_a_prototype():
    p = Problem()
    found = distribution_contrast(p.features, p.labels, p.mean, torch.zeros_like(p.variance), 0.3)
    torch.testing.assert_close(found, prototype_contrast(p.features, p.labels, p.mean, 0.3), rtol=1e-14, atol=0)


def test_a_bank_of_one_entry_is_a_prototype():
    p = Problem()
    found = bank_contrast(p.features, p.labels, p.mean.unsqueeze(1), torch.ones(CLASSES, dtype=torch.int64), 0.3)
    torch.testing.assert_close(found, prototype_contrast(p.features, p.labels, p.mean, 0.3), rtol=1e-14, atol=0)


def test_distribution_bounds_the_expectation_over_samples():
    p = Problem(pixels=8)
    noise = torch.randn(40_000, CLASSES, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    concepts = p.mean + p.variance.sqrt() * noise
    for q, y in zip(p.features, p.labels, strict=True):
        logits = concepts @ q / 0.7
        samples = logits.logsumexp(1) - logits[:, y]
        bound = distribution_contrast(q[None], y[None], p.mean, p.variance, 0.7)
        slack = float(bound - samples.mean())
        assert -4 * float(samples.std()) / len(samples) ** 0.5 < slack < 0.5


@pytest.mark.parametrize("kind", CONTRASTS)
def test_close_to_log_c_at_the_published_temperature(kind):
    p = Problem(classes=19)
    p.mean, p.bank, p.variance = F.normalize(p.mean, dim=1), F.normalize(p.bank, dim=2), p.variance / DIM
    assert float(p.loss(kind, 100.0)) == pytest.approx(math.log(19), abs=0.01)


@pytest.mark.parametrize("kind", CONTRASTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_round_the_similarities(kind, dtype):
    p = Problem()
    for name in ("features", "mean", "variance", "bank"):
        setattr(p, name, getattr(p, name).float())
    with torch.autocast("cpu", dtype):
        assert torch.equal(p.loss(kind), p.loss(kind))
        found = p.loss(kind)
    assert torch.equal(found, p.loss(kind))
    half = p.loss(kind, features=p.features.to(dtype))
    assert half.dtype == torch.float32 and float(half) == pytest.approx(float(found), abs=0.01)


@pytest.mark.parametrize("kind", CONTRASTS)
def test_large_logits_do_not_overflow(kind):
    p = Problem()
    q = p.features.float().requires_grad_()
    loss = p.loss(kind, 1e-3, features=q)
    (grad,) = torch.autograd.grad(loss, q)
    assert torch.isfinite(loss) and torch.isfinite(grad).all()


# Pixels


@pytest.mark.parametrize("kind", CONTRASTS)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), cut=st.integers(0, PIXELS))
def test_ranks_share_one_count(kind, seed, cut):
    """The mean over two ranks with any split of the pixels, of which one may have none, is the mean over all."""
    p = Problem(seed)
    q = p.features.requires_grad_()
    parts = [
        p.loss(kind, features=part, labels=y, count=torch.tensor(PIXELS / 2))
        for part, y in zip(q.tensor_split([cut]), p.labels.tensor_split([cut]), strict=True)
    ]
    together, whole = torch.stack(parts).mean(), p.loss(kind)
    torch.testing.assert_close(together, whole)
    torch.testing.assert_close(torch.autograd.grad(together, q), torch.autograd.grad(whole, q))


@pytest.mark.parametrize("count", [None, 0.0, torch.tensor(0), torch.tensor(2.5)])
def test_no_pixels(count):
    p = Problem()
    q = p.features[:0].requires_grad_()
    losses = [p.loss(kind, features=q, labels=p.labels[:0], count=count) for kind in CONTRASTS]
    for loss in [*losses, prototype_regularizer(q, p.mean)]:
        assert loss == 0
        assert torch.autograd.grad(loss, q)[0].shape == (0, DIM)


@pytest.mark.parametrize("kind", CONTRASTS)
def test_the_order_of_pixels_and_entries_does_not_matter(kind):
    p = Problem()
    before = p.loss(kind)
    order = torch.randperm(PIXELS, generator=torch.Generator().manual_seed(1))
    p.features, p.labels, p.bank[p.filled == LENGTH] = (
        p.features[order],
        p.labels[order],
        p.bank[p.filled == LENGTH].flip(1),
    )
    torch.testing.assert_close(p.loss(kind), before)


# Regulariser


@pytest.mark.parametrize("classes", [2, 5, 19])
def test_regularizer_at_equal_similarities(classes):
    p = Problem()
    same = p.mean[:1].expand(classes, -1)
    assert float(prototype_regularizer(p.features, same, 0.1)) == pytest.approx(-1)


def test_regularizer_is_the_formula():
    p = Problem().unsee(1)
    centre = np.mean([q.numpy() for q in p.features], axis=0)
    for seen, classes in ((None, range(CLASSES)), (p.seen, [0, 2, 3, 4])):
        logits = [float(centre @ p.mean[c].numpy()) / 2 for c in classes]
        total = sum(s - math.log(sum(map(math.exp, logits))) for s in logits)
        expected = total / (len(logits) * math.log(len(logits)))
        assert float(prototype_regularizer(p.features, p.mean, 2.0, seen)) == pytest.approx(expected, rel=1e-12)


def test_descending_the_published_sign_makes_the_similarities_less_equal():
    p = Problem(3)

    def entropy(q):
        return torch.distributions.Categorical(logits=q.mean(0) @ p.mean.T).entropy()

    for sign in (1, -1):
        q = p.features.clone().requires_grad_()
        (grad,) = torch.autograd.grad(sign * prototype_regularizer(q, p.mean, 1.0), q)
        change = (entropy(q - 0.1 * grad) - entropy(q)).item()
        assert change * sign < 0
    assert torch.autograd.gradcheck(lambda q: prototype_regularizer(q, p.mean, 1.0), p.features.requires_grad_())


def test_regularizer_with_fewer_than_two_classes():
    p = Problem()
    q = p.features.requires_grad_()
    for alive in ([], [2]):
        seen = torch.zeros(CLASSES, dtype=torch.bool)
        seen[alive] = True
        loss = prototype_regularizer(q, p.mean, 1.0, seen)
        assert loss == 0 and (torch.autograd.grad(loss, q)[0] == 0).all()


# Memory


def test_no_temporary_holds_every_pair_of_a_pixel_and_a_concept():
    """The largest tensor that any operation makes, forward or backward, for sizes at which each product is told apart."""
    pixels, classes, length, dim = 200, 11, 7, 13
    g = torch.Generator().manual_seed(0)
    q = torch.randn(pixels, dim, generator=g, requires_grad=True)
    labels = torch.randint(classes, (pixels,), generator=g)
    mean, variance, bank = (torch.rand(classes, *s, generator=g) for s in ((dim,), (dim,), (length, dim)))
    losses = [
        lambda: prototype_contrast(q, labels, mean),
        lambda: distribution_contrast(q, labels, mean, variance),
        lambda: bank_contrast(q, labels, bank, torch.full((classes,), length)),
    ]
    for loss in losses:
        with Largest() as largest:
            loss().backward()
        assert largest.numel <= pixels * max(classes, length, dim)


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the largest result of any operation."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = result if isinstance(result, tuple | list) else [result]
        self.numel = max(itertools.chain([self.numel], (t.numel() for t in tensors if isinstance(t, torch.Tensor))))
        return result
