"""What methods that adapt to unlabelled target images share: the supervised half of their loss."""

import contextlib
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

from torch import Tensor

from segzoo.bilevel import frozen_buffers
from segzoo.data.label_spaces import LabelSpace
from segzoo.methods.base import Resource
from segzoo.methods.loss import Loss
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.segmentation import SegmentationMethod, loss_pixels
from segzoo.methods.speed import Speed
from segzoo.models.network import Network


class UnsupervisedAdaptation(SegmentationMethod):
    """Labelled source, unlabelled target: the data module does not even read the target's masks.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
        running_statistics: Chooses what batch norms keep for testing: target keeps the statistics of passes with target pixels,
            both, as published, mixes those of the synthetic images in.
        pixel_mean: Chooses what losses are the mean of: valid takes the labelled pixels, all takes all pixels and counts void
            ones as 0, as the DAFormer line of work has it.
    """

    resources: ClassVar[tuple[Resource, ...]] = ("source", "unlabelled")

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        network: Network | dict[str, Any] | None = None,
        optimizer: Optimizer | dict[str, Any] | None = None,
        loss: Loss | dict[str, Any] | None = None,
        speed: Speed | dict[str, Any] | None = None,
        running_statistics: Literal["target", "both"] = "target",
        pixel_mean: Literal["valid", "all"] = "valid",
    ) -> None:
        super().__init__(label_space=label_space, network=network, optimizer=optimizer, loss=loss, speed=speed)
        self.running_statistics, self.pixel_mean = running_statistics, pixel_mean

    def beside_target(self) -> AbstractContextManager[None]:
        """For a pass of source images beside one of target images: whether running statistics follow it."""
        return frozen_buffers(self.segmenter) if self.running_statistics == "target" else contextlib.nullcontext()

    def supervised(
        self, logits: Tensor, label: Tensor, weights: Tensor | None = None, count: Tensor | None = None
    ) -> Tensor:
        """See `SegmentationMethod.supervised`; the mean is one of the pixels that ``pixel_mean`` says."""
        return super().supervised(
            logits, label, weights, loss_pixels(label, self.pixel_mean) if count is None else count
        )
