"""What methods share that train a segmenter: the network, its optimiser's groups, and how it is scored."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from segzoo.data.datamodule import DomainDataModule
from segzoo.data.label_spaces import IGNORE_INDEX, LabelSpace
from segzoo.data.streams import Batch
from segzoo.distributed import mean_across_ranks
from segzoo.floats import widest
from segzoo.losses import dice_loss, lovasz_loss, pixel_cross_entropy
from segzoo.methods.base import Method, plain
from segzoo.methods.loss import Loss, count_class_weight
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.scoring import ScoredImages
from segzoo.methods.speed import Speed
from segzoo.models.network import Network
from segzoo.models.state_dicts import load_part
from segzoo.options import resolve


class SegmentationMethod(Method, ScoredImages):
    """Base of methods that end in a segmenter, ``segmenter``.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
    """

    SPEED: ClassVar[tuple[str, ...]] = ("compile", "channels_last")
    class_weight: Tensor | None
    """Weights (C,) of the classes in the loss per pixel; None: all alike. A training counts them when it begins."""

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        network: Network | dict[str, Any] | None = None,
        optimizer: Optimizer | dict[str, Any] | None = None,
        loss: Loss | dict[str, Any] | None = None,
        speed: Speed | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(label_space=label_space, optimizer=optimizer, speed=speed)
        self.network_options = resolve(Network, network, "network")
        self.loss = resolve(Loss, loss, "loss")
        self.save_hyperparameters({"network": plain(self.network_options), "loss": plain(self.loss)})
        self.register_buffer("class_weight", None, persistent=False)
        self.segmenter = self.network_options.build(self.num_classes)
        if start := self.network_options.initial_checkpoint:
            load_part(self.segmenter, Path(start), self.label_space.classes)
        self.arrange(self.segmenter)
        if self.speed.compile:
            # Dropout as without compilation: a derivative that is taken eagerly must drop the same units.
            self.segmenter.compile(options={"fallback_random": True})
        self.prepare_scoring(self.num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W), RGB in [0, 1], to logits (B, C, H, W)."""
        logits: Tensor = self.segmenter(image)
        return logits

    def setup(self, stage: str) -> None:
        """Also refuses images of a size that the network does not take, and counts the classes where the loss asks for it.

        Raises:
            ConfigError: such a size, nothing to count in, or see `Method.setup`.
            DataError: a label cannot be read.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, DomainDataModule):
            self.segmenter.check_sizes(self._input_sizes(data, training=stage == "fit"))
        if stage == "fit" and self.loss.class_balance:
            weight = count_class_weight(self.trainer, self.resources, self.loss.class_balance)
            self.class_weight = weight.to(self.device)

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """Those of the segmenter; methods with further networks add theirs."""
        return self.optimizer_options.groups_of(self.segmenter)

    def pixel_losses(self, logits: Tensor, label: Tensor) -> Tensor:
        """The loss (B, H, W) of every pixel of logits (B, C, H, W), as `Loss` says; 0 where it has no label."""
        return pixel_cross_entropy(logits, label, IGNORE_INDEX, self.class_weight, self.loss.focal)

    def overlap_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """The weighted loss of the areas of these images, a scalar without a value per pixel; 0 where none is asked for."""
        if self.loss.overlap == "none":
            return logits.new_zeros(())
        loss = {"dice": dice_loss, "lovasz": lovasz_loss}[self.loss.overlap]
        return self.loss.overlap_weight * loss(logits, label, IGNORE_INDEX)

    def supervised(
        self, logits: Tensor, label: Tensor, weights: Tensor | None = None, count: Tensor | None = None
    ) -> Tensor:
        """The loss of logits (B, C, H, W) with labels (B, H, W): of their pixels, and of the areas that they form.

        Args:
            logits: of the segmenter.
            label: class ids, or void.
            weights: factors (B, H, W) of the pixels' losses. Areas whose pixels count differently have no overlap: with weights
                there is the loss of the pixels alone.
            count: the number of pixels that their loss is the mean of; the labelled ones when None.
        """
        losses = self.pixel_losses(logits, label)
        total = (losses if weights is None else weights * losses).sum()
        mean = total / (pixel_count(valid_pixels(label)) if count is None else count)
        if weights is not None or self.loss.overlap == "none":
            return mean
        return mean + self.overlap_loss(logits, label)

    def panel_maps(self, batch: Batch) -> dict[str, Tensor]:
        """Maps (B, H, W) of a source or target batch by title, which panels show beside the prediction."""
        return {}

    def _input_sizes(self, data: DomainDataModule, training: bool) -> dict[str, tuple[int, int]]:
        """The sizes (height, width) of all images that the segmenter will get, by the options that set them."""
        # During a training validation takes no part in the protocol; its test may.
        sizes = {"`data.size`": data.size} if training else {}
        sizes |= data.protocol.network_sizes(data.size)
        for stream in self.streams.values() if training else ():
            if data.crop_size and not stream.whole:
                sizes["`data.crop_size`"] = data.crop_size
            else:
                sizes[f"`data.{stream.domain}_size`"] = data.train_sizes[stream.domain]
        return sizes


def valid_pixels(label: Tensor) -> Tensor:
    """Which pixels have a label: (B, H, W) bool."""
    return label != IGNORE_INDEX


def pixel_count(mask: Tensor) -> Tensor:
    """The number of True pixels per rank, averaged over the ranks; at least 1.

    With this denominator the mean over the ranks is the mean over all pixels of the global batch.
    """
    return mean_across_ranks(widest(mask.sum())).clamp_min(1.0)


def loss_pixels(label: Tensor, pixel_mean: str) -> Tensor:
    """The number of pixels per rank that a loss on labels (B, H, W) is the mean of: the ``valid`` ones, or ``all``."""
    return pixel_count(valid_pixels(label) if pixel_mean == "valid" else torch.ones_like(label, dtype=torch.bool))


def class_shares(label: Tensor, num_classes: int) -> Tensor:
    """The share (C,) of every class in the labelled pixels of labels (B, H, W); zeros where there are none."""
    counts = widest(torch.bincount(label.flatten().clamp_max(num_classes), minlength=num_classes + 1)[:num_classes])
    return counts / counts.sum().clamp_min(1)
