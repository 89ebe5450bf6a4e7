"""Cross-entropy of segmentation."""

import torch
from torch import Tensor
from torch.nn import functional as F


def pixel_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    class_weight: Tensor | None = None,
    focal: float = 0.0,
) -> Tensor:
    """Cross-entropy of every pixel, or its focal loss (Lin et al., ICCV 2017); 0 where the label is ignored.

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W) int64.
        ignore_index: label of void pixels.
        class_weight: factors (C,) of the pixels of every class; None: 1.
        focal: gamma of the factor (1 - p)^gamma, p the probability of the labelled class.

    Returns:
        (B, H, W).
    """
    if class_weight is not None or focal:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    weight = None if class_weight is None else class_weight.to(logits.dtype)
    losses = F.cross_entropy(logits, labels, weight, ignore_index=ignore_index, reduction="none")
    if not focal:
        return losses
    plain = losses if weight is None else F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")
    return losses * _doubt(plain, focal)


def cross_entropy(logits: Tensor, labels: Tensor, count: Tensor | float) -> Tensor:
    """Sum of the pixels' cross-entropy over ``count``, the number of pixels it is the mean of.

    The count is an argument because the valid pixels of *all* ranks must be counted (`segzoo.methods.base.pixel_count`):
    a mean over this rank's own would weight the ranks' pixels differently.
    """
    return pixel_cross_entropy(logits, labels).sum() / count


def class_losses(logits: Tensor, class_weight: Tensor | None = None, focal: float = 0.0) -> Tensor:
    """What `pixel_cross_entropy` would be with each class as the label: -log p_c with its factors.

    Args:
        logits: (B, C, H, W).
        class_weight: see there.
        focal: see there.

    Returns:
        (B, C, H, W).
    """
    losses = -log_softmax(logits)
    if focal:
        losses = losses * _doubt(losses, focal)
    return losses if class_weight is None else losses * class_weight.to(losses.dtype)[:, None, None]


def soft_cross_entropy(logits: Tensor, y: Tensor, class_weight: Tensor | None = None, focal: float = 0.0) -> Tensor:
    """Cross-entropy with soft labels, -(1/N) sum_ic y_ic log p_ic, N the number of pixels.

    Args:
        logits: (B, C, H, W).
        y: class probabilities (B, C, H, W).
        class_weight: see `class_losses`.
        focal: see there.
    """
    return (y * class_losses(logits, class_weight, focal)).sum() / y[:, 0].numel()


def log_softmax(logits: Tensor) -> Tensor:
    """Logarithms of the class probabilities of logits (B, C, H, W), in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)


def _doubt(losses: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma of losses -log p."""
    # At p = 1, as void pixels have it, the slope of a power below 1 is infinite, and times the loss 0 that is NaN.
    doubt: Tensor = (-torch.expm1(-losses)).clamp_min(torch.finfo(losses.dtype).eps) ** gamma
    return doubt
