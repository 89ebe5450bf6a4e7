"""Joint training: both domains in one loss, the source with a weight per pixel; here the weight is a constant.

    L = (1/N_S) sum_i w_i l_i(theta) + L_T(theta)

Methods that learn the weights derive from this one and replace ``weighting``. The constant is their control: a learned
weight also scales the source loss as a whole, so compare with the constant that equals its mean.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segzoo.bilevel import frozen_buffers
from segzoo.bilevel.normalize import mean_one
from segzoo.data.streams import Batch
from segzoo.distributed import mean_across_ranks, sum_across_ranks, world_size
from segzoo.losses import cross_entropy, pixel_cross_entropy
from segzoo.methods.base import SegmentationMethod, pixel_count, valid_pixels
from segzoo.models.sync_norm import SyncBatchNorm
from segzoo.models.weighting import ConstantWeight


class WeightedJointTraining(SegmentationMethod):
    """Weighted source loss plus target loss; subclasses set ``weighting``, what weighs.

    Args:
        source_mean: valid: L_S is the mean over labelled pixels; all, as MetaPix published it: over all, void included.
        kwargs: see `SegmentationMethod`.
    """

    supervision = "few"
    weighs: ClassVar[bool] = True
    """Whether there is a weight to look at: one that is not the same for all pixels and steps."""
    weighting: nn.Module
    """What `weights` asks; by default with (image (B, 3, H, W), label (B, H, W)) of a source batch."""

    def __init__(self, *, source_mean: Literal["valid", "all"] = "valid", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source_mean = source_mean

    def source_count(self, label: Tensor) -> Tensor:
        """N, the denominator of the source loss."""
        return pixel_count(
            valid_pixels(label) if self.source_mean == "valid" else torch.ones_like(label, dtype=torch.bool)
        )

    def weights(self, source: Batch, logits: Tensor | None = None) -> Tensor:
        """Weights (B, H, W) of a source batch; ``logits`` are there for methods that weigh by the prediction."""
        weights: Tensor = self.weighting(source["image"], source["label"])
        return weights

    def to_mean_one(self, raw: Tensor, label: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Weights (B, H, W) of mean one over the valid pixels of all ranks, and their derivative: see `mean_one`."""
        valid = valid_pixels(label)
        if not self.training:  # pictures are drawn by one rank alone: no collectives
            return mean_one(raw, valid, valid.sum().clamp_min(1), lambda value: value)
        return mean_one(raw, valid, pixel_count(valid), mean_across_ranks)

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """L_S with the weights held fixed, plus L_T."""
        source, target = batch["source"], batch["target"]
        with torch.no_grad():
            weights = self.weights(source)
        self.log_weights(weights, source["label"])
        # The target alone updates the running statistics: it is the domain that is tested.
        with frozen_buffers(self.segmenter):
            source_logits = self(source["image"])
        return self.total(
            self.joint_terms(weights, source_logits, source["label"], self(target["image"]), target["label"])
        )

    def joint_terms(
        self, weights: Tensor, source_logits: Tensor, source_label: Tensor, target_logits: Tensor, target_label: Tensor
    ) -> dict[str, Tensor]:
        """L_S with these weights, and L_T."""
        losses = pixel_cross_entropy(source_logits, source_label)
        source_loss = (weights * losses).sum() / self.source_count(source_label)
        count = pixel_count(valid_pixels(target_label))
        return {"source": source_loss, "target": cross_entropy(target_logits, target_label, count)}

    @torch.no_grad()
    def log_weights(self, weights: Tensor, label: Tensor) -> None:
        """Logs the mean weight over the valid pixels, in all (``weight/mean``) and per class (``weight/class/<name>``).

        A class that is absent from the batch has none in this step.
        """
        if not self.logs_step:
            return
        valid = valid_pixels(label)
        labels, values = label[valid], weights[valid].double()
        sums = values.new_zeros(self.num_classes).index_add_(0, labels, values)
        counts = torch.bincount(labels, minlength=self.num_classes)
        sums, counts = sum_across_ranks(torch.stack([sums, counts.double()]))
        self.log("weight/mean", sums.sum() / counts.sum().clamp_min(1), prog_bar=True)
        means = {
            f"weight/class/{name}": total / n
            for name, total, n in zip(self.label_space.classes, sums, counts, strict=True)
            if n
        }
        self.log_dict(means)


class JointTraining(WeightedJointTraining):
    """Both domains in one loss, the same weight for every source pixel.

    Args:
        weight: constant weight of the source loss.
        kwargs: see `WeightedJointTraining`.
    """

    slug = "joint"
    weighs = False

    def __init__(self, *, weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weighting = ConstantWeight(weight)

    def log_weights(self, weights: Tensor, label: Tensor) -> None:
        """Nothing: `config.yaml` holds the constant."""


@contextmanager
def source_norms(segmenter: nn.Module) -> Iterator[None]:
    """The segmenter, in evaluation mode, treats a source batch as in training: batch norms use the batch's own statistics.

    The running ones are the target's. A norm over all ranks keeps them: pictures are drawn by one rank alone.
    """
    norms = [m for m in segmenter.modules() if isinstance(m, _BatchNorm) and not m.training]
    norms = [m for m in norms if world_size() == 1 or not isinstance(m, SyncBatchNorm)]
    for norm in norms:
        norm.train()  # frozen ones stay as they are
    try:
        with frozen_buffers(segmenter):
            yield
    finally:
        for norm in norms:
            norm.eval()
