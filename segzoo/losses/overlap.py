"""Losses of the overlap of predicted and labelled areas, in which a class of few pixels counts like one of many."""

import torch
from segmentation_models_pytorch.losses import MULTICLASS_MODE, DiceLoss, LovaszLoss
from torch import Tensor


def dice_loss(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """1 - 2 sum_i p_i y_i / (sum_i p_i + sum_i y_i), the mean over the classes that the labels hold.

    The sums are over all labelled pixels of the batch, in float32 at least.

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W) int64.
        ignore_index: label of void pixels.

    Returns:
        A scalar; 0 with zero gradient where no pixel has a label.
    """
    with torch.autocast(logits.device.type, enabled=False):
        scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss: Tensor = DiceLoss(MULTICLASS_MODE, ignore_index=ignore_index)(scores, labels)
    # The library's mean is one over all classes, to which absent ones add 0: few classes in a batch would make it small.
    classes = logits.shape[1]
    held = loss.new_zeros(classes + 1).scatter_(0, labels.masked_fill(labels == ignore_index, classes).flatten(), 1.0)
    return loss * (classes / held[:-1].sum().clamp_min(1))


def lovasz_loss(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Lovász-Softmax (Berman et al., CVPR 2018): a surrogate of 1 - IoU, the mean over the classes that the labels hold.

    The areas are those of all labelled pixels of the batch, in float32.

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W) int64.
        ignore_index: label of void pixels.

    Returns:
        A scalar; 0 with zero gradient where no pixel has a label.
    """
    with torch.autocast(logits.device.type, enabled=False):
        # The library takes nothing wider, and without labelled pixels answers an empty tensor.
        loss: Tensor = LovaszLoss(MULTICLASS_MODE, ignore_index=ignore_index)(logits.float(), labels).sum()
    return loss
