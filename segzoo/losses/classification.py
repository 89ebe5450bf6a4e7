"""Cross-entropy of segmentation."""

import torch
from torch import Tensor
from torch.nn import functional as F


def pixel_cross_entropy(
    logits: Tensor, labels: Tensor, ignore_index: int = 255, class_weight: Tensor | None = None
) -> Tensor:
    """Cross-entropy of every pixel, 0 where the label is ignored.

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W) int64.
        ignore_index: label of void pixels.
        class_weight: factors (C,) of the pixels of every class; None: 1.

    Returns:
        (B, H, W).
    """
    return F.cross_entropy(logits, labels, class_weight, ignore_index=ignore_index, reduction="none")


def cross_entropy(logits: Tensor, labels: Tensor, count: Tensor | float) -> Tensor:
    """Sum of the pixels' cross-entropy over ``count``, the number of pixels it is the mean of.

    The count is an argument because the valid pixels of *all* ranks must be counted (`segzoo.methods.base.pixel_count`):
    a mean over this rank's own would weight the ranks' pixels differently.
    """
    return pixel_cross_entropy(logits, labels).sum() / count


def soft_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with soft labels, -(1/N) sum_ic y_ic log p_ic, N the number of pixels.

    Args:
        logits: (B, C, H, W).
        y: class probabilities (B, C, H, W).
    """
    return -(y * log_softmax(logits)).sum() / y[:, 0].numel()


def soft_pixel_cross_entropy(logits: Tensor, probs: Tensor, class_weight: Tensor | None = None) -> Tensor:
    """-sum_c w_c p_c log q_c of every pixel.

    Args:
        logits: (B, C, H, W), those of q.
        probs: p, (B, C, H, W).
        class_weight: w, (C,); None: 1.

    Returns:
        (B, H, W).
    """
    weighted = probs if class_weight is None else probs * class_weight[:, None, None]
    return -(weighted * log_softmax(logits)).sum(dim=1)


def log_softmax(logits: Tensor) -> Tensor:
    """Logarithms of the class probabilities of logits (B, C, H, W), in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)
