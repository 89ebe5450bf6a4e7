"""Labels that the teacher gives to unlabelled images, and how far to trust them."""

from typing import Literal

import torch
from torch import Tensor

from segzoo.distributed import sum_across_ranks
from segzoo.floats import widest


@torch.no_grad()
def pseudo_labels(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest class of every pixel and its softmax probability.

    Args:
        logits: (B, C, H, W); half precision is widened first, since 0.968 is too close to 1 for it.

    Returns:
        labels (B, H, W) int64, every pixel has one; confidence (B, H, W).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    highest, labels = logits.max(dim=1)
    return labels, (highest - logits.logsumexp(dim=1)).exp()


@torch.no_grad()
def fuse_reference(
    probs: Tensor, reference: Tensor, classes: Tensor, weight: float = 0.8, threshold: float = 0.4
) -> Tensor:
    """Probabilities of an image, helped by those of another image of the same place (SePiCo's day images for night ones).

    In the chosen classes, those that do not move, r = w p_ref + (1 - w) p where p_ref > threshold, and (1 - w) p_ref + w p
    elsewhere; all other classes keep p. What comes out does not sum to one.

    Args:
        probs: p, (B, C, H, W).
        reference: p_ref, (B, C, H, W).
        classes: (C,) bool, the chosen ones.
        weight: w.
        threshold: of the reference's probability.

    Returns:
        (B, C, H, W).
    """
    trust = torch.where(reference > threshold, weight, 1 - weight)
    return torch.where(classes[:, None, None], trust * reference + (1 - trust) * probs, probs)


@torch.no_grad()
def confident_share(confidence: Tensor, threshold: float = 0.968) -> Tensor:
    """q, the share of pixels with confidence >= threshold in the batch of all ranks together: a scalar.

    Args:
        confidence: (B, H, W); ranks may hold different numbers of pixels.
        threshold: tau of DACS.
    """
    confident = (confidence >= threshold).sum()
    counts = sum_across_ranks(torch.stack([confident, torch.full_like(confident, confidence.numel())]))
    return (widest(counts[0]) / counts[1]).to(confidence.dtype)


@torch.no_grad()
def pseudo_label_weights(
    confidence: Tensor,
    threshold: float = 0.968,
    ignore_top: int = 0,
    ignore_bottom: int = 0,
    scheme: Literal["share", "pixel"] = "share",
) -> Tensor:
    """Weights of the pseudo-labelled pixels in the loss.

    Args:
        confidence: (B, H, W).
        threshold: of the confidence.
        ignore_top: rows at the top with weight 0: where a rectified image has no scene. They count in the share all the same.
        ignore_bottom: rows at the bottom with weight 0: the bonnet of the ego car.
        scheme: ``share`` is `confident_share` at every pixel, as published; ``pixel`` is 1 where confident and 0 elsewhere.

    Returns:
        (B, H, W), the dtype of ``confidence``.
    """
    if scheme == "pixel":
        weights = (confidence >= threshold).to(confidence.dtype)
    else:
        weights = confident_share(confidence, threshold).expand_as(confidence).clone()
    weights[:, :ignore_top] = 0
    weights[:, max(confidence.shape[1] - ignore_bottom, 0) :] = 0
    return weights
