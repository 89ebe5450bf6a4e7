"""Hierarchical region selection ("Not all areas are equal", Sun et al., CVPR 2019): source pixels weighted by likeness to real.

Weighting networks D_l judge the segmenter's predictions p = softmax(f(x)) at pixel, region and image level; the score
s_l = sigmoid(D_l(p)) is the probability that a pixel is real. The source learns with the weight that the levels agree on:

    L_S(f) = (1/N) sum_i w_i l_i(f),   w = combine_l s_l(p_s), detached         `RegionSelection.weights`
    L_T(f) = mean l_i(f)                                                        `joint_terms`
    L_W(D) = sum_l mean -log s_l(p_t) + mean -log(1 - s_l(p_s)),  p detached    term "discriminators"
    L_A(f) = lambda sum_l mean -log s_l(p_s),  D frozen                         term "adversarial"

All updates leave through one returned loss: detached predictions keep L_W from the segmenter, detached weights and frozen
discriminators keep the rest from D. l_i is as in `segzoo.methods.joint`, and L_T takes a loss of areas where there is one.

What text of the paper supports: weighting networks at three levels, trained jointly with the segmenter; predictions as their
input (images are worse); a shared output W_1 or one per class W_C; soft weights; "adversarial feature alignment and a
reconstruction loss" in the full system, which are not built here. No code is public. What the networks are trained by, their
layers, what a region is, how the levels combine and every number are our reconstruction: docs/region_selection.md lists each
choice.
"""

from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from segzoo.bilevel import frozen_buffers
from segzoo.checks import check_range
from segzoo.compat.training import trainer_of
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.streams import Batch, Stream
from segzoo.distributed import gather_columns
from segzoo.errors import ConfigError
from segzoo.losses import log_softmax
from segzoo.methods.joint import WeightedJointTraining, source_norms
from segzoo.methods.length import training_steps
from segzoo.methods.loss import Loss
from segzoo.methods.optimizer import Optimizer, parameter_group
from segzoo.methods.segmentation import pixel_count, valid_pixels
from segzoo.methods.speed import Speed
from segzoo.models.discriminators import (
    Combination,
    DomainDiscriminators,
    Level,
    combine_levels,
    domain_auc,
    domain_loss,
    frozen,
)
from segzoo.models.network import Network
from segzoo.models.stems import as_source

SATURATED = (
    "step {step}: the {level} discriminator is saturated (AUC {auc:.3f}, mean score of the source {score:.3f}): it tells the "
    "domains apart, not the better source pixels from the worse; try a smaller `method.discriminator_lr`, a larger "
    "`method.label_smoothing` or `method.temperature`, `method.held_out`, or `method.levels` without it"
)
FLOORED = (
    "step {step}: every source weight is at `method.floor`, so that all pixels count alike: the discriminators are sure that "
    "the source is synthetic; try a lower floor, or what helps against saturation (docs/region_selection.md)"
)


class RegionSelection(WeightedJointTraining):
    """Source pixels weighted by how real the prediction on them looks, at three levels.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
        levels: Lists the networks (discriminators) that judge how real the source looks and so give its weights: one per
            pixel, one per region, one per image.
        outputs: Chooses whether a discriminator gives one answer for each class, of which a pixel takes that of its own
            (per_class, the paper's W_19), or one for all classes (shared, its W_1).
        judge: Chooses what the discriminators see: predictions, or images, which the paper found worse.
        region_cell: Sets the side of a region in pixels, a power of two from 4 on.
        combination: Chooses how the levels' scores combine: their mean, or their product (prod).
        floor: Sets the smallest weight, before weights are divided by their mean, so that no pixel is lost to a discriminator
            that is sure of itself; with combination prod it is taken to the power of the levels.
        ramp: Sets the share of the training over which the weights grow out of a constant 1.
        adversarial_weight: Sets how much the segmenter learns to make its source predictions look real (lambda); 0 leaves it
            out.
        temperature: Divides the logits before the discriminators see their softmax; above 1 hides over-confidence.
        label_smoothing: Makes the discriminators aim at answers this far from a plain yes or no, from 0 to 0.49, which keeps
            them unsure.
        held_out: Keeps this share of the labelled target images for the discriminators alone; predictions on images that were
            trained on are surer than any on the source.
        discriminator_lr: Sets the learning rate of the discriminators, which follows the schedule.
        discriminator_width: Sets the channels of the discriminators' first layers.
        pixel_mean: Chooses what the source loss is the mean of: valid takes the labelled pixels, all takes all pixels and
            counts void ones as 0.
    """

    slug = "region-selection"

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        network: Network | dict[str, Any] | None = None,
        optimizer: Optimizer | dict[str, Any] | None = None,
        loss: Loss | dict[str, Any] | None = None,
        speed: Speed | dict[str, Any] | None = None,
        levels: tuple[Level, ...] = ("pixel", "region", "image"),
        outputs: Literal["per_class", "shared"] = "per_class",
        judge: Literal["predictions", "images"] = "predictions",
        region_cell: int = 32,
        combination: Combination = "mean",
        floor: float = 0.1,
        ramp: float = 0.1,
        adversarial_weight: float = 1e-3,
        temperature: float = 1.0,
        label_smoothing: float = 0.1,
        held_out: float = 0.0,
        discriminator_lr: float = 1e-4,
        discriminator_width: int = 64,
        pixel_mean: Literal["valid", "all"] = "valid",
    ) -> None:
        super().__init__(
            label_space=label_space, network=network, optimizer=optimizer, loss=loss, speed=speed, pixel_mean=pixel_mean
        )
        if not levels or len(set(levels)) < len(levels):
            raise ConfigError(f"`method.levels` {list(levels)}: expected some of pixel, region and image, each once")
        if region_cell < 4 or region_cell & (region_cell - 1):
            raise ConfigError(f"`method.region_cell` {region_cell}: expected a power of two from 4 on")
        if adversarial_weight and judge == "images":
            raise ConfigError("discriminators of images cannot teach the segmenter: set `method.adversarial_weight` 0")
        check_range("`method.floor`", floor, 0, 1)
        check_range("`method.ramp`", ramp, 0, 1)
        check_range("`method.held_out`", held_out, 0, 0.99)
        check_range("`method.label_smoothing`", label_smoothing, 0, 0.49)
        check_range("`method.adversarial_weight`", adversarial_weight, 0)
        check_range("`method.temperature`", temperature, 1e-3)
        check_range("`method.discriminator_width`", discriminator_width, 1)

        inputs, per_class = (3 if judge == "images" else self.num_classes), outputs == "per_class"
        width = discriminator_width
        self.weighting = DomainDiscriminators(inputs, self.num_classes, levels, per_class, width, region_cell)
        self.judge, self.combination = judge, combination
        self.floor = floor ** len(levels) if combination == "prod" else floor
        self.ramp, self.temperature, self.label_smoothing, self.held_out = ramp, temperature, label_smoothing, held_out
        self.adversarial_weight, self.discriminator_lr = adversarial_weight, discriminator_lr
        self._saturated: set[str] = set()

    @property
    def streams(self) -> dict[str, Stream]:
        """Source and target, and with ``held_out`` labelled target images for the discriminators alone."""
        if not self.held_out:
            return super().streams
        seen, unseen = (0.0, 1 - self.held_out), (1 - self.held_out, 1.0)
        parts = {"target": Stream("target", part=seen), "held_out": Stream("target", part=unseen)}
        return {"source": Stream("source")} | parts

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """The segmenter's groups and that of the discriminators."""
        return [*super().optimizer_groups(), parameter_group("weighting", self.weighting, self.discriminator_lr, 0.0)]

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """One update of the segmenter and of the discriminators; one loss for both."""
        source, target = batch["source"], batch["target"]
        # Each domain passes alone, or batch statistics would tell the discriminators which is which.
        with frozen_buffers(self.segmenter), as_source(self.segmenter):  # the running statistics are the target's
            source_logits = self(source["image"])
        target_logits = self(target["image"])
        real_batch, real_logits = target, target_logits
        if self.held_out:
            real_batch = batch["held_out"]
            with torch.no_grad(), frozen_buffers(self.segmenter):
                real_logits = self(real_batch["image"])

        evidence = self._evidence(source, source_logits)
        synthetic = self.weighting(evidence.detach(), source["label"])
        real = self._judge(real_batch, real_logits)
        weights = self._weigh(synthetic.detach(), source["label"])

        terms = self.joint_terms(weights, source_logits, source["label"], target_logits, target["label"])
        terms["discriminators"] = self._domain_loss(real, True, real_batch["label"], self.label_smoothing)
        terms["discriminators"] += self._domain_loss(synthetic, False, source["label"], self.label_smoothing)
        if self.adversarial_weight:
            fooled = frozen(self.weighting, evidence, source["label"])
            terms["adversarial"] = self.adversarial_weight * self._domain_loss(fooled, True, source["label"])
        loss = self.total(terms)
        self.log_weights(weights, source)
        self._log_discriminators(synthetic, source["label"], real, real_batch["label"])
        return loss

    def weights(self, source: Batch) -> Tensor:
        """Weights (B, H, W) of a source batch as the segmenter sees them."""
        return self._weigh(self._judge_source(source), source["label"])

    def panel_maps(self, batch: Batch) -> dict[str, Tensor]:
        """The weights of source images, and the levels' scores."""
        if "label" not in batch:
            return {}
        judged = self._judge_source(batch)
        scores = {f"{level} score": one.sigmoid() for level, one in zip(self.weighting.levels, judged, strict=True)}
        return {"weight": self._weigh(judged, batch["label"])} | scores

    def _evidence(self, batch: Batch, logits: Tensor) -> Tensor:
        """What is judged: p = softmax(f(x) / temperature), or the images."""
        return batch["image"] if self.judge == "images" else log_softmax(logits / self.temperature).exp()

    def _judge(self, batch: Batch, logits: Tensor) -> Tensor:
        """The discriminators' logits (L, B, H, W) of "real"; the prediction is detached."""
        judged: Tensor = self.weighting(self._evidence(batch, logits).detach(), batch["label"])
        return judged

    def _judge_source(self, source: Batch) -> Tensor:
        with source_norms(self.segmenter):
            logits = self(source["image"])
        return self._judge(source, logits).detach()

    def _domain_loss(self, logits: Tensor, real: bool, label: Tensor, smoothing: float = 0.0) -> Tensor:
        valid = valid_pixels(label)
        return domain_loss(logits, real, valid, pixel_count(valid), smoothing)

    def _weigh(self, logits: Tensor, label: Tensor) -> Tensor:
        """w from the discriminators' logits (L, B, H, W): of mean one over the valid pixels."""
        return self.to_mean_one(self.raw_weights(logits), label)[0]

    def raw_weights(self, logits: Tensor) -> Tensor:
        """The same before normalisation: the combined score, at least ``floor``, growing out of 1 over the ramp."""
        raw = combine_levels(logits, self.combination).clamp_min(self.floor)
        steps = 0.0 if trainer_of(self) is None else self.ramp * (training_steps(self.trainer) or 0)
        return torch.lerp(torch.ones_like(raw), raw, min(1.0, self.global_step / steps) if steps > 0 else 1.0)

    @torch.no_grad()
    def _log_discriminators(self, synthetic: Tensor, source_label: Tensor, real: Tensor, real_label: Tensor) -> None:
        """From logits (L, B, H, W): AUC and mean source score per level, warning when saturated, extremes of w."""
        if not self.logs_step:
            return
        synthetic, real = synthetic[:, valid_pixels(source_label)], real[:, valid_pixels(real_label)]
        aucs = [domain_auc(true, fake) for fake, true in zip(synthetic, real, strict=True)]
        synthetic = gather_columns(synthetic)
        for level, auc, fake in zip(self.weighting.levels, aucs, synthetic, strict=True):
            score = fake.sigmoid().mean()
            self.log_dict({f"auc/{level}": auc, f"score/{level}": score})
            if level not in self._saturated and auc > 0.99 and score < self.label_smoothing + 0.05:
                self._saturated.add(level)
                rank_zero_warn(SATURATED.format(step=self.global_step, level=level, auc=auc, score=score))
        if synthetic.numel():
            raw = combine_levels(synthetic[:, None, None], self.combination)
            self.log_dict({"weight/raw": raw.mean(), "weight/raw_min": raw.amin(), "weight/raw_max": raw.amax()})
            if "floor" not in self._saturated and bool((raw <= self.floor).all()):
                self._saturated.add("floor")
                rank_zero_warn(FLOORED.format(step=self.global_step))
