"""Losses that make the predictions on unlabelled images confident.

Maximum squares and its weighting (Chen, Xue, Cai, "Domain adaptation for semantic segmentation with maximum squares loss",
ICCV 2019), entropy minimisation, and the guidance of a low-level head by the mean of both heads.

The means are those of the published implementation, over pixels *and* classes; the paper's formulas lack the division by C
(and its weighted loss keeps the factor 1/2), so a published coefficient holds for these functions, not for the formulas.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_IGNORE = -100


def maximum_squares(probs: Tensor, valid: Tensor | None = None, *, count: Tensor | float | None = None) -> Tensor:
    """Maximum squares loss ``-1/(2 N C) * sum_pixels sum_c p_c^2``, between -1/(2C) (one-hot) and -1/(2C^2) (uniform).

    Its gradient in p is linear, so that pixels which are already certain do not dominate as they do with the entropy.

    Args:
        probs: softmax output (B, C, H, W).
        valid: (B, H, W) bool, the pixels that count; None for all.
        count: N, the number of pixels the sum is divided by; that of the valid ones unless given. Ranks that hold different
            numbers of them share one.

    Returns:
        A scalar; 0 with zero gradient where no pixel is valid.
    """
    return -0.5 * _pixel_mean(_keep(probs, valid).square().mean(1), valid, count)


def minimum_entropy(probs: Tensor, valid: Tensor | None = None, *, count: Tensor | float | None = None) -> Tensor:
    """Mean entropy in nats over C, ``-1/(N C) * sum_pixels sum_c p_c log p_c``; arguments as in `maximum_squares`.

    ADVENT divides by log C instead of C.
    """
    return _pixel_mean(_self_information(_keep(probs, valid)).mean(1), valid, count)


def image_weighted_maximum_squares(probs: Tensor, ratio: float = 0.2, valid: Tensor | None = None) -> Tensor:
    """Image-wise weighted maximum squares ``-1/(B C) * sum_b sum_pixels w * sum_c p_c^2``, w of `image_class_weights`.

    At ``ratio=0`` and with one image it is twice `maximum_squares`: the published implementation has no factor 1/2 here.

    Args:
        probs: softmax output (B, C, H, W).
        ratio: the exponent alpha: 0 weighs all pixels alike, 1 all predicted classes alike.
        valid: (B, H, W) bool, the pixels that count; None for all.

    Returns:
        A scalar, the mean of the images' losses; an image without a valid pixel has the loss 0.
    """
    weights = image_class_weights(probs, ratio, valid)
    return -(weights * _keep(probs, valid).square().mean(1)).sum() / max(len(probs), 1)


def image_weighted_minimum_entropy(probs: Tensor, ratio: float = 0.2, valid: Tensor | None = None) -> Tensor:
    """Image-wise weighted entropy, ``-1/(B C) * sum_b sum_pixels w * sum_c p_c log p_c``; see the weighted squares."""
    weights = image_class_weights(probs, ratio, valid)
    return (weights * _self_information(_keep(probs, valid)).mean(1)).sum() / max(len(probs), 1)


@torch.no_grad()
def image_class_weights(probs: Tensor, ratio: float = 0.2, valid: Tensor | None = None) -> Tensor:
    """Weight of every pixel by how rare its predicted class is in its own image: ``1 / max(n_c^a * N^(1 - a), 1)``.

    Here n_c is the number of the image's valid pixels that are predicted as c, N the number of all its valid pixels and a the
    ratio. Rare classes gain, and since the histogram is the prediction's no label is needed.

    Args:
        probs: (B, C, H, W).
        ratio: a.
        valid: (B, H, W) bool, the pixels that count; None for all.

    Returns:
        (B, H, W), without graph, 0 at pixels that do not count.
    """
    predicted = probs.argmax(1)
    counted = torch.ones_like(predicted) if valid is None else valid.long()
    histogram = predicted.new_zeros(probs.shape[:2]).scatter_add_(1, predicted.flatten(1), counted.flatten(1))
    n = histogram.to(probs.dtype)
    weights = 1 / (n**ratio * n.sum(1, keepdim=True) ** (1 - ratio)).clamp_min(1)
    return weights.gather(1, predicted.flatten(1)).view_as(predicted) * counted


def multi_level_guidance(
    probs: Tensor, low_probs: Tensor, low_logits: Tensor, threshold: float = 0.95, valid: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the low-level head to the hard labels of the mean of both heads, where either head is confident.

    Args:
        probs: softmax output of the final head, (B, C, H, W).
        low_probs: that of the low-level head.
        low_logits: the low-level head before its softmax; the only argument that receives a gradient.
        threshold: a pixel counts if the largest probability of either head exceeds it.
        valid: (B, H, W) bool, the pixels that may count; None for all.

    Returns:
        The mean over the pixels that count; 0 with zero gradient where there is none.
    """
    labels = guidance_labels(probs, low_probs, threshold, valid, _IGNORE)
    losses = F.cross_entropy(low_logits, labels, ignore_index=_IGNORE, reduction="none")
    return losses.sum() / (labels != _IGNORE).sum().clamp_min(1)


@torch.no_grad()
def guidance_labels(
    probs: Tensor, low_probs: Tensor, threshold: float = 0.95, valid: Tensor | None = None, ignore_index: int = 255
) -> Tensor:
    """The labels (B, H, W) of `multi_level_guidance`, ``ignore_index`` where neither head is confident.

    With them `segzoo.losses.cross_entropy` takes the mean over the confident pixels of all ranks.
    """
    confident = (probs.amax(1) > threshold) | (low_probs.amax(1) > threshold)
    if valid is not None:
        confident &= valid
    return ((probs + low_probs) / 2).argmax(1).masked_fill(~confident, ignore_index)


def _keep(probs: Tensor, valid: Tensor | None) -> Tensor:
    return probs if valid is None else probs.masked_fill(~valid.unsqueeze(1), 0)


def _self_information(probs: Tensor) -> Tensor:
    # The slope of -p log p is infinite at 0, and times the slope 0 of a saturated softmax that is NaN; clamped it is finite.
    return -probs * probs.clamp_min(torch.finfo(probs.dtype).tiny).log()


def _pixel_mean(values: Tensor, valid: Tensor | None, count: Tensor | float | None) -> Tensor:
    if count is None:
        count = values.numel() if valid is None else valid.sum()
    # Without pixels on any rank the sum is 0, and so is the mean.
    return values.sum() / (count + (count == 0))
