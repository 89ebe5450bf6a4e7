"""Cross-entropy of segmentation."""

from torch import Tensor
from torch.nn import functional as F


def pixel_cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Cross-entropy of every pixel, 0 where the label is ignored.

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W) int64.
        ignore_index: label of void pixels.

    Returns:
        (B, H, W).
    """
    return F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")


def cross_entropy(logits: Tensor, labels: Tensor, count: Tensor | float) -> Tensor:
    """Sum of the pixels' cross-entropy over ``count``, the number of pixels it is the mean of.

    The count is an argument because the valid pixels of *all* ranks must be counted (`segzoo.methods.base.pixel_count`):
    a mean over this rank's own would weight the ranks' pixels differently.
    """
    return pixel_cross_entropy(logits, labels).sum() / count
