"""MaxSquare (Chen, Xue & Cai, ICCV 2019, arXiv 1909.13589): confident predictions on the target, without easy pixels ruling.

Entropy minimisation has gradients that grow where the prediction is already sure. The maximum squares loss grows linearly:

    L_MS = -1/(2 N C) sum_i sum_c p_ic^2                                            p: softmax on an unlabelled target image
    L_IW = -1/C sum_i w_i sum_c p_ic^2,      w_i = 1 / (n_c^a N^(1-a))              c = argmax p_i, n_c its pixels in the image
    L    = CE(source) + lambda_T L_target                                           lambda_T = 0.1, a = 0.2

With ``multi_level`` a second head on the encoder's last but one map is trained by what both heads together are sure of:

    L   += lambda_low CE_low(source) + lambda_T lambda_low CE_low(argmax (p + p_low)/2  where  max p > d  or  max p_low > d)

The published training starts from a network trained on the source (``initial_checkpoint``); ``target_start`` is the same within
one run. `MinEnt` is the baseline that the paper argues against: entropy in the place of squares.

CE(source), of both heads, is the loss that the section ``loss`` says; terms of the target are as published.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from segzoo.checks import check_range
from segzoo.data.label_spaces import IGNORE_INDEX, LabelSpace
from segzoo.data.streams import Batch
from segzoo.errors import ConfigError
from segzoo.losses import (
    cross_entropy,
    guidance_labels,
    image_weighted_maximum_squares,
    image_weighted_minimum_entropy,
    log_softmax,
    maximum_squares,
    minimum_entropy,
)
from segzoo.methods.loss import Loss
from segzoo.methods.optimizer import Optimizer, parameter_group
from segzoo.methods.segmentation import class_shares, pixel_count, valid_pixels
from segzoo.methods.speed import Speed
from segzoo.methods.unsupervised import UnsupervisedAdaptation
from segzoo.models.heads import DilatedHead
from segzoo.models.network import Network
from segzoo.models.state_dicts import load_part


class MaxSquare(UnsupervisedAdaptation):
    """Maximum squares loss on unlabelled target images.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
        target_weight: Sets how much the loss on unlabelled target images counts beside the source's (lambda_T); 0.1 is
            published.
        image_weighting: Weighs pixels by the class histogram of their image's own prediction (L_IW), so that rare classes
            count.
        ratio: Sets how much the image weighting favours rare classes, from 0 (all pixels count alike) to 1 (all predicted
            classes count alike).
        scale: Chooses the size of the target loss: code divides sums by the number of classes C, as published in code; paper
            leaves them as the paper writes them, up to C times as large.
        target_start: Says when the target loss begins, as a step or as a share of the training below 1; before it the network
            learns from the source alone.
        hard_threshold: Replaces the target loss by cross-entropy on the network's own labels where it is surer than this, an
            ablation of the paper; null switches it off.
        multi_level: Trains a second head on an earlier map of the encoder, as in the paper's full system.
        low_weight: Sets how much the second head's losses count (lambda_low); it matters with multi_level alone.
        low_threshold: Sets the probability from which the two heads' common label teaches the second head.
        low_dilations: Lists the dilations of the second head; [6, 12] is what the published code has by a missing indent.
        running_statistics: Chooses what batch norms keep for testing: target keeps the statistics of passes with target pixels,
            both, as published, mixes those of the synthetic images in.
        pixel_mean: Chooses what the source loss is the mean of: valid takes the labelled pixels, all takes all pixels and
            counts void ones as 0.
    """

    slug = "maxsquare"
    plain: ClassVar[Callable[..., Tensor]] = staticmethod(maximum_squares)
    weighted: ClassVar[Callable[..., Tensor]] = staticmethod(image_weighted_maximum_squares)
    weighted_factor: ClassVar[float] = 0.5

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        network: Network | dict[str, Any] | None = None,
        optimizer: Optimizer | dict[str, Any] | None = None,
        loss: Loss | dict[str, Any] | None = None,
        speed: Speed | dict[str, Any] | None = None,
        target_weight: float = 0.1,
        image_weighting: bool = True,
        ratio: float = 0.2,
        scale: Literal["code", "paper"] = "code",
        target_start: float = 0,
        hard_threshold: float | None = None,
        multi_level: bool = False,
        low_weight: float = 0.1,
        low_threshold: float = 0.95,
        low_dilations: tuple[int, ...] = (6, 12, 18, 24),
        running_statistics: Literal["target", "both"] = "target",
        pixel_mean: Literal["valid", "all"] = "valid",
    ) -> None:
        super().__init__(
            label_space=label_space,
            network=network,
            optimizer=optimizer,
            loss=loss,
            speed=speed,
            running_statistics=running_statistics,
            pixel_mean=pixel_mean,
        )
        if not 0 <= ratio <= 1 or not 0 <= low_threshold <= 1:
            raise ConfigError(
                f"`method.ratio` and `method.low_threshold` must be in [0, 1], found {ratio} and {low_threshold}"
            )
        check_range("`method.target_weight`", target_weight, 0)
        if hard_threshold is not None:
            check_range("`method.hard_threshold`", hard_threshold, 0, 1)
        self.target_weight, self.image_weighting, self.ratio = target_weight, image_weighting, ratio
        self.scale, self.target_start, self.hard_threshold = scale, target_start, hard_threshold
        self._shares: dict[str, Tensor] = {}
        self.multi_level, self.low_weight, self.low_threshold = multi_level, low_weight, low_threshold
        if multi_level:
            self.low_head = DilatedHead(self.segmenter.deepest_channels(2)[0], self.num_classes, low_dilations)
            # Of a source phase with this head, i.e. one whose target_start lies after its end.
            if start := self.network_options.initial_checkpoint:
                load_part(self.low_head, Path(start), self.label_space.classes, "low_head", optional=True)

    @property
    def starts(self) -> dict[str, float]:
        """When the target begins to count."""
        return {"target_start": self.target_start}

    @property
    def class_shares(self) -> dict[str, Tensor]:
        """Of the source's labels and of the predictions on the target, in a step that is logged and has them."""
        return self._shares

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """The low-level head learns as fast as the other one."""
        groups = super().optimizer_groups()
        if self.multi_level:
            options = self.optimizer_options
            groups.append(parameter_group("low-level head", self.low_head, options.head_lr, options.weight_decay))
        return groups

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Cross-entropy on the source, confidence on the target."""
        source, target = batch["source"], batch["target"]
        adapting = self.reached("target_start")
        self._shares = {}
        with self.beside_target() if adapting else contextlib.nullcontext():
            logits = self.heads(source["image"])
        terms = {"source": self.supervised(logits[0], source["label"])}
        if self.multi_level:
            terms["source low"] = self.low_weight * self.supervised(logits[1], source["label"])
        if adapting:
            logits = self.heads(target["image"])
            probs = [log_softmax(z).exp() for z in logits]  # not in half precision
            terms["target"] = self.target_weight * self.confidence_loss(logits[0], probs[0])
            if self.multi_level:
                labels = guidance_labels(probs[0], probs[1], self.low_threshold)
                low = cross_entropy(logits[1], labels, pixel_count(valid_pixels(labels)))
                terms["target low"] = self.target_weight * self.low_weight * low
            self.log_means({"target/confidence": probs[0].detach().amax(dim=1).mean()})
            if self.logs_step:
                self._shares = {
                    "prior": class_shares(source["label"], self.num_classes),
                    "predictions": class_shares(probs[0].argmax(dim=1), self.num_classes),
                }
        return self.total(terms)

    def heads(self, image: Tensor) -> list[Tensor]:
        """The logits (B, C, H, W) of the final and, if there is one, of the low-level head."""
        if not self.multi_level:
            return [self(image)]
        size = image.shape[-2:]
        logits, features = self.segmenter.with_features(image)
        low = F.interpolate(
            self.low_head(features[-2]), self.segmenter.padded(size), mode="bilinear", align_corners=True
        )
        return [logits, low[..., : size[0], : size[1]]]

    def confidence_loss(self, logits: Tensor, probs: Tensor) -> Tensor:
        """L_target on (B, C, H, W)."""
        if self.hard_threshold is not None:
            sure, labels = probs.detach().max(dim=1)
            labels = labels.masked_fill(sure <= self.hard_threshold, IGNORE_INDEX)
            return cross_entropy(logits, labels, pixel_count(valid_pixels(labels)))
        loss = self.weighted(probs, self.ratio) if self.image_weighting else self.plain(probs)
        if self.scale == "code":
            return loss
        return loss * self.num_classes * (self.weighted_factor if self.image_weighting else 1.0)


class MinEnt(MaxSquare):
    """The entropy of the prediction in the place of its squares (Vu et al., CVPR 2019, arXiv 1811.12833).

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
        target_weight: Sets the weight of the entropy on unlabelled target images; ADVENT's 0.001, which divides by log C, is
            0.001 C / log C here.
        image_weighting: Weighs pixels by the class histogram of their image's own prediction, as MaxSquare does.
        ratio: Sets how much that weighting favours rare classes, between 0 and 1.
        scale: Chooses the size of the target loss: code divides the entropy by the number of classes C, paper does not.
        target_start: Says when the target loss begins, as a step or as a share of the training below 1; before it the network
            learns from the source alone.
        running_statistics: Chooses what batch norms keep for testing: target keeps the statistics of passes with target pixels,
            both, as published, mixes those of the synthetic images in.
        pixel_mean: Chooses what the source loss is the mean of: valid takes the labelled pixels, all takes all pixels and
            counts void ones as 0.
    """

    slug = "minent"
    plain = staticmethod(minimum_entropy)
    weighted = staticmethod(image_weighted_minimum_entropy)
    weighted_factor = 1.0

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        network: Network | dict[str, Any] | None = None,
        optimizer: Optimizer | dict[str, Any] | None = None,
        loss: Loss | dict[str, Any] | None = None,
        speed: Speed | dict[str, Any] | None = None,
        target_weight: float = 0.1,
        image_weighting: bool = False,
        ratio: float = 0.2,
        scale: Literal["code", "paper"] = "code",
        target_start: float = 0,
        running_statistics: Literal["target", "both"] = "target",
        pixel_mean: Literal["valid", "all"] = "valid",
    ) -> None:
        super().__init__(
            label_space=label_space,
            network=network,
            optimizer=optimizer,
            loss=loss,
            speed=speed,
            target_weight=target_weight,
            image_weighting=image_weighting,
            ratio=ratio,
            scale=scale,
            target_start=target_start,
            running_statistics=running_statistics,
            pixel_mean=pixel_mean,
        )
