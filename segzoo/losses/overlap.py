"""Losses of the overlap of predicted and labelled areas, in which a class of few pixels counts like one of many.

What is computed does not depend on the labels, so that no host waits for a GPU and a CUDA graph can hold it.
"""

import torch
from segmentation_models_pytorch.losses import MULTICLASS_MODE, DiceLoss
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

    For each class, ``sum_k e_k (J_k - J_{k-1})``: the errors e of all labelled pixels of the batch from the largest to the
    smallest, and the IoU J_k that is lost when the first k of them are wrong. In float32 at least.

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W), integers.
        ignore_index: label of void pixels.

    Returns:
        A scalar; 0 with zero gradient where no pixel has a label.
    """
    classes = logits.shape[1]
    with torch.autocast(logits.device.type, enabled=False):
        scores = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)
    labels, void = labels.flatten(), (labels == ignore_index).flatten()
    true = (labels == torch.arange(classes, device=labels.device)[:, None]) & ~void
    # Void pixels have no error: they come last, where whatever they do to J is multiplied by zero.
    errors = (scores.movedim(1, 0).flatten(1) - true.to(scores.dtype)).abs().masked_fill(void, 0)
    errors, order = errors.sort(dim=1, descending=True)
    slopes, held = _slopes(true.gather(1, order), errors.dtype)
    return (errors * slopes).sum(1).where(held, 0).sum() / held.sum().clamp_min(1)


def _slopes(true: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """J_k - J_{k-1} (C, N) of pixels of the classes or not (C, N) bool, by falling error; and whether a class occurs (C,)."""
    area = true.sum(1, keepdim=True, dtype=torch.int32)
    # One sum along all rows, less what the rows before have: in one dimension a GPU sums in many blocks at once.
    hits = true.flatten().cumsum(0, dtype=torch.int32).view_as(true)
    hits -= area.cumsum(0, dtype=torch.int32) - area
    # In place: each of these is as large as the logits.
    kept = hits.to(dtype).neg_().add_(area)
    union = hits.neg_().add_(torch.arange(1, true.shape[1] + 1, device=true.device, dtype=torch.int32)).add_(area)
    lost = kept.div_(union).neg_().add_(1)
    slopes = lost.clone()
    slopes[:, 1:] -= lost[:, :-1]
    return slopes, area.squeeze(1) > 0
