"""Contrast of pixel features with class concepts (Xie et al., "SePiCo: semantic-guided pixel contrast", TPAMI 2023).

A concept is what is known of a class in the feature space: its mean, a bank of means, or a Gaussian. Concepts receive no
gradient. With the published temperature of 100 and features of unit norm every contrast is close to log C.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def prototype_contrast(
    features: Tensor,
    labels: Tensor,
    mean: Tensor,
    temperature: float = 100.0,
    seen: Tensor | None = None,
    *,
    count: Tensor | float | None = None,
) -> Tensor:
    """ProtoCL: ``-log softmax_c(q . mu_c / tau)[y]``, mean over the pixels.

    Args:
        features: q, (P, A).
        labels: y, (P,) in 0..C-1.
        mean: mu, (C, A).
        temperature: tau.
        seen: (C,) bool, the classes that have a concept; None for all, as published. The others leave the denominator, and
            pixels with such a label contribute 0.
        count: the number of pixels the mean is of; P unless given. Ranks that hold different numbers of them share one.

    Returns:
        A scalar; 0 with zero gradient without pixels.
    """
    logits = _products(features, mean) / temperature
    losses = _masked(logits, seen).logsumexp(1) - _own(logits, labels)
    return _mean_of_seen(losses, labels, seen, count)


def distribution_contrast(
    features: Tensor,
    labels: Tensor,
    mean: Tensor,
    variance: Tensor,
    temperature: float = 100.0,
    seen: Tensor | None = None,
    *,
    count: Tensor | float | None = None,
) -> Tensor:
    """DistCL: the bound of the contrast with infinitely many samples of Gaussian concepts.

    ``log sum_c exp(q . mu_c / tau + q^2 . sigma_c^2 / (2 tau^2)) - q . mu_y / tau``, mean over the pixels. By Jensen's
    inequality it exceeds the expectation of ``log sum_c exp(q . k_c / tau) - q . k_y / tau`` over k_c ~ N(mu_c, sigma_c^2).

    Args:
        features: q, (P, A).
        labels: y, (P,) in 0..C-1.
        mean: mu, (C, A).
        variance: sigma^2 of each dimension, (C, A).
        temperature: tau.
        seen: as in `prototype_contrast`.
        count: as in `prototype_contrast`.

    Returns:
        A scalar; 0 with zero gradient without pixels.
    """
    similarity = _products(features, mean) / temperature
    spread = _products(features.to(similarity.dtype).square(), variance) / (2 * temperature**2)
    losses = _masked(similarity + spread, seen).logsumexp(1) - _own(similarity, labels)
    return _mean_of_seen(losses, labels, seen, count)


def bank_contrast(
    features: Tensor,
    labels: Tensor,
    bank: Tensor,
    filled: Tensor,
    temperature: float = 100.0,
    *,
    count: Tensor | float | None = None,
) -> Tensor:
    """BankCL: the contrast with each entry of the own class's bank, mean over entries and pixels.

    ``mean_m -log[e^{q . b_ym / tau} / (e^{q . b_ym / tau} + sum_{c != y} e^{mean_m q . b_cm / tau})]``. The negatives need
    only the mean of their banks, so the memory is O(P (C + M)).

    Args:
        features: q, (P, A).
        labels: y, (P,) in 0..C-1.
        bank: b, (C, M, A); class c has its entries in ``bank[c, :filled[c]]``, in any order.
        filled: (C,) number of entries. Classes without any leave the denominator, and pixels with such a label contribute 0.
        temperature: tau.
        count: as in `prototype_contrast`.

    Returns:
        A scalar; 0 with zero gradient without pixels.
    """
    used = torch.arange(bank.shape[1], device=bank.device) < filled.unsqueeze(1)
    mean = bank.masked_fill(~used.unsqueeze(2), 0).sum(1) / filled.clamp_min(1).unsqueeze(1)
    own = F.one_hot(labels, len(bank)).bool()
    similarity = _products(features, mean) / temperature
    negatives = similarity.masked_fill(own | (filled == 0), -math.inf).logsumexp(1)

    # One product per class: gathering each pixel's own bank would copy it P times.
    order = labels.argsort(stable=True)
    sizes = torch.bincount(labels, minlength=len(bank)).tolist()
    total = features[:0].sum()
    groups = zip(features[order].split(sizes), negatives[order].split(sizes), bank, filled.tolist(), strict=True)
    for queries, rest, entries, length in groups:
        if length:
            positives = _products(queries, entries[:length]) / temperature
            total = total - F.logsigmoid(positives - rest.unsqueeze(1)).sum() / length
    return _mean(total, len(labels) if count is None else count)


def prototype_regularizer(
    features: Tensor, mean: Tensor, temperature: float = 100.0, seen: Tensor | None = None
) -> Tensor:
    """L_reg: ``1 / (C log C) * sum_c log softmax_c(Q . mu_c / tau)`` with Q the mean of the features; at most -1.

    Its largest value, -1, is that of equal similarities. Descending the published form therefore makes the similarities *less*
    equal; a regulariser that asks for diversity needs a negative weight. At tau = 100 either is inert.

    Args:
        features: q, (P, A).
        mean: mu, (C, A).
        temperature: tau.
        seen: (C,) bool, the classes to take; None for all, as published.

    Returns:
        A scalar; 0 with zero gradient without pixels or with fewer than two classes.
    """
    if len(features) == 0:
        return features.sum()
    taken = torch.ones_like(mean[:, 0], dtype=torch.bool) if seen is None else seen
    logits = _products(features.mean(0, keepdim=True), mean) / temperature
    number = taken.sum().to(logits.dtype)
    # Not minus infinity: without any class the softmax is one of equal logits, not of nothing.
    shares = logits.masked_fill(~taken, torch.finfo(logits.dtype).min).log_softmax(1).masked_fill(~taken, 0).sum()
    norm = torch.xlogy(number, number).clamp_min(1)  # C log C, which two classes make larger than 1
    return (shares / norm).where(number > 1, 0)


def _products(features: Tensor, concepts: Tensor) -> Tensor:
    """Scalar products (P, C), in the wider of both precisions even under autocast: divided by tau, they differ by little."""
    dtype = torch.promote_types(features.dtype, concepts.dtype)
    with torch.autocast(features.device.type, enabled=False):
        return features.to(dtype) @ concepts.detach().to(dtype).T


def _masked(logits: Tensor, seen: Tensor | None) -> Tensor:
    return logits if seen is None else logits.masked_fill(~seen, -math.inf)


def _own(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1)


def _mean_of_seen(losses: Tensor, labels: Tensor, seen: Tensor | None, count: Tensor | float | None) -> Tensor:
    kept = losses if seen is None else losses.where(seen[labels], 0)
    return _mean(kept.sum(), len(labels) if count is None else count)


def _mean(total: Tensor, count: Tensor | float) -> Tensor:
    # Without pixels on any rank the total is 0, and so is the mean.
    return total / (count + (count == 0))
