"""Joint training: both domains in one loss, the source with a weight per pixel; here the weight is a constant.

    L = (1/N_S) sum_i w_i l_i(theta) + L_T(theta)

l_i is the loss of a pixel as the section ``loss`` says, with class weights and focal factor. A loss of overlap has no value per
pixel: L_T takes it, L_S only where the weight is a constant, which then multiplies both.

Methods that learn the weights derive from `WeightedJointTraining`. The constant is their control: a learned
weight also scales the source loss as a whole, so compare with the constant that equals its mean.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segzoo.bilevel import frozen_buffers
from segzoo.bilevel.normalize import mean_one
from segzoo.checks import check_range
from segzoo.compat.tensors import BatchNorm
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.streams import Batch
from segzoo.distributed import mean_across_ranks, sum_across_ranks, world_size
from segzoo.floats import widest
from segzoo.methods.loss import Loss
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.segmentation import SegmentationMethod, loss_pixels, pixel_count, valid_pixels
from segzoo.methods.speed import Speed
from segzoo.models.network import Network
from segzoo.models.stems import as_source
from segzoo.models.sync_norm import SyncBatchNorm


class WeightedJointTraining(SegmentationMethod):
    """Weighted source loss plus target loss; subclasses say what weighs.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
        pixel_mean: Chooses what the source loss is the mean of: valid takes the labelled pixels, all takes all pixels and
            counts void ones as 0, as MetaPix published it.
    """

    resources = ("source", "labels")

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        network: Network | dict[str, Any] | None = None,
        optimizer: Optimizer | dict[str, Any] | None = None,
        loss: Loss | dict[str, Any] | None = None,
        speed: Speed | dict[str, Any] | None = None,
        pixel_mean: Literal["valid", "all"] = "valid",
    ) -> None:
        super().__init__(label_space=label_space, network=network, optimizer=optimizer, loss=loss, speed=speed)
        self.pixel_mean = pixel_mean

    def source_count(self, label: Tensor) -> Tensor:
        """N, the denominator of the source loss."""
        return loss_pixels(label, self.pixel_mean)

    def to_mean_one(self, raw: Tensor, label: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Weights (B, H, W) of mean one over the valid pixels of all ranks, and their derivative: see `mean_one`."""
        valid = valid_pixels(label)
        if not self.training:  # pictures are drawn by one rank alone: no collectives
            return mean_one(raw, valid, valid.sum().clamp_min(1), lambda value: value)
        return mean_one(raw, valid, pixel_count(valid), mean_across_ranks)

    def weighted_terms(self, weights: Tensor, source: Batch, target: Batch) -> dict[str, Tensor]:
        """L_S with these weights (B, H, W), and L_T."""
        # The target alone updates the running statistics: it is the domain that is tested.
        with frozen_buffers(self.segmenter), as_source(self.segmenter):
            source_logits = self(source["image"])
        return self.joint_terms(weights, source_logits, source["label"], self(target["image"]), target["label"])

    def joint_terms(
        self, weights: Tensor, source_logits: Tensor, source_label: Tensor, target_logits: Tensor, target_label: Tensor
    ) -> dict[str, Tensor]:
        """The same from logits (B, C, H, W)."""
        source_loss = self.source_loss(weights, source_logits, source_label)
        return {"source": source_loss, "target": self.supervised(target_logits, target_label)}

    def source_loss(self, weights: Tensor, logits: Tensor, label: Tensor) -> Tensor:
        """L_S of logits (B, C, H, W) with weights (B, H, W) of the pixels."""
        return self.supervised(logits, label, weights, self.source_count(label))

    @torch.no_grad()
    def log_weights(self, weights: Tensor, source: Batch) -> None:
        """Logs the mean weight (B, H, W) over the valid pixels of a source batch of all ranks, in all (``weight/mean``).

        Also per class (``weight/class/<name>``) and, of several sources, per source (``weight/source/<name>``). A class or
        source that is absent from the batch has none in this step.
        """
        if not self.logs_step:
            return
        label = source["label"]
        valid = valid_pixels(label)
        groups = [("class", self.label_space.classes, label)]
        if "origin" in source:
            names = tuple(self.trainer.datamodule.source_weights)  # type: ignore[attr-defined]
            groups.append(("source", names, source["origin"][:, None, None].expand_as(label)))
        values, sums, counts = widest(weights[valid]), [], []
        for _, names, index in groups:
            members = index[valid]
            sums.append(values.new_zeros(len(names)).index_add_(0, members, values))
            counts.append(widest(torch.bincount(members, minlength=len(names))))
        totals, pixels = sum_across_ranks(torch.stack([torch.cat(sums), torch.cat(counts)]))
        classes = self.num_classes
        self.log("weight/mean", totals[:classes].sum() / pixels[:classes].sum().clamp_min(1), prog_bar=True)
        keys = [f"weight/{group}/{name}" for group, names, _ in groups for name in names]
        self.log_dict({key: total / n for key, total, n in zip(keys, totals, pixels, strict=True) if n})


class JointTraining(WeightedJointTraining):
    """Both domains in one loss, the same weight for every source pixel.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
        weight: Sets the constant weight of the source loss; below 1 the labelled real images count more.
        pixel_mean: Chooses what the source loss is the mean of: valid takes the labelled pixels, all takes all pixels and
            counts void ones as 0.
    """

    slug = "joint"

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        network: Network | dict[str, Any] | None = None,
        optimizer: Optimizer | dict[str, Any] | None = None,
        loss: Loss | dict[str, Any] | None = None,
        speed: Speed | dict[str, Any] | None = None,
        weight: float = 1.0,
        pixel_mean: Literal["valid", "all"] = "valid",
    ) -> None:
        super().__init__(
            label_space=label_space, network=network, optimizer=optimizer, loss=loss, speed=speed, pixel_mean=pixel_mean
        )
        check_range("`method.weight`", weight, 0)
        self.weight = weight

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """w L_S + L_T."""
        source, target = batch["source"], batch["target"]
        weights = source["image"].new_full(source["label"].shape, self.weight)
        return self.total(self.weighted_terms(weights, source, target))

    def source_loss(self, weights: Tensor, logits: Tensor, label: Tensor) -> Tensor:
        """See `WeightedJointTraining`; a constant weighs the loss of overlap as well."""
        return super().source_loss(weights, logits, label) + self.weight * self.overlap_loss(logits, label)


@contextmanager
def source_norms(segmenter: nn.Module) -> Iterator[None]:
    """The segmenter, in evaluation mode, treats a source batch as in training: batch norms use the batch's own statistics.

    The running ones are the target's. A norm over all ranks keeps them: pictures are drawn by one rank alone.
    """
    norms = [m for m in segmenter.modules() if isinstance(m, BatchNorm) and not m.training]
    norms = [m for m in norms if world_size() == 1 or not isinstance(m, SyncBatchNorm)]
    for norm in norms:
        norm.train()  # frozen ones stay as they are
    try:
        with frozen_buffers(segmenter), as_source(segmenter):
            yield
    finally:
        for norm in norms:
            norm.eval()
