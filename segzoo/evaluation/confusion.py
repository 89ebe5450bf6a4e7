"""The only accumulator: a confusion matrix on the device of the predictions."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassConfusionMatrix

from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.errors import DataError


class ConfusionMatrix(MulticlassConfusionMatrix):
    """The torchmetrics metric (int64 counts, summed over processes) with another way of counting.

    When deterministic algorithms are on, torchmetrics compares every pixel with each of the C² cells, which
    takes gigabytes for one large image. ``torch.bincount`` adds integers here: any order gives the same sum.
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Counts pixels.

        Args:
            preds: class ids, any shape, integer.
            target: label ids of the same shape, integer; ``ignore_index`` is not counted.

        Raises:
            DataError: a label id that is neither a class nor ``ignore_index``.
        """
        if preds.shape != target.shape:
            raise ValueError(f"predictions {tuple(preds.shape)} and labels {tuple(target.shape)} differ in shape")
        counted = target != self.ignore_index
        cells = target[counted].long() * self.num_classes + preds[counted].long()
        counts = torch.bincount(cells, minlength=self.num_classes**2)
        if len(counts) > self.num_classes**2:
            ids = sorted(set(target[counted].tolist()) - set(range(self.num_classes)))
            raise DataError(
                f"labels hold the ids {ids}, expected 0..{self.num_classes - 1} or {self.ignore_index} "
                "(ignored); check the class map"
            )
        self.confmat += counts.reshape(self.num_classes, self.num_classes)


def confusion_metric(num_classes: int, ignore_index: int = IGNORE_INDEX) -> ConfusionMatrix:
    """An empty confusion matrix; ``compute()`` gives (C, C) int64, rows are the truth."""
    return ConfusionMatrix(num_classes=num_classes, ignore_index=ignore_index)


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corners not aligned, in float32 whatever the precision of the network.

    Args:
        logits: (B, C, h, w).
        size: (H, W) in pixels.

    Returns:
        (B, C, H, W) float32; the logits themselves when they have that size.
    """
    logits = logits.float()
    if logits.shape[-2:] == tuple(size):
        return logits
    return functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def predict_labels(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The class of the largest logit after :func:`resize_logits`: (B, C, h, w) to (B, H, W) int64."""
    # On a CPU four times as fast as argmax over channels; of equal logits both take the first.
    return resize_logits(logits, size).max(1).indices


def count_unusable(logits: Tensor) -> Tensor:
    """How many images (B, C, h, w) have logits that are not finite, on their device; the largest of them is no class."""
    return (~torch.isfinite(logits)).flatten(1).any(dim=1).sum()


def update_confusion(metric: ConfusionMatrix, logits: Tensor, labels: Tensor | Sequence[Tensor]) -> None:
    """Adds a batch: logits are resized to each ground truth's own size, never the other way.

    Args:
        metric: from :func:`confusion_metric`.
        logits: (B, C, h, w).
        labels: (B, H, W), or B tensors (H, W) of any sizes.
    """
    if len(labels) != len(logits):
        raise ValueError(f"{len(labels)} label maps for {len(logits)} predictions")
    # Image by image: the resized logits of a whole batch of large images do not fit into memory.
    for one, label in zip(logits, labels, strict=True):
        height, width = label.shape
        metric.update(predict_labels(one[None], (height, width))[0], label)
