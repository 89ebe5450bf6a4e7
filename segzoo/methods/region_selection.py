"""Hierarchical region selection ("Not all areas are equal", Sun et al., CVPR 2019): source pixels weighted by likeness to real.

Weighting networks D_l judge the segmenter's predictions p = softmax(f(x)) at pixel, region and image level; the score
s_l = sigmoid(D_l(p)) is the probability that a pixel is real. The source learns with the weight that the levels agree on:

    L_S(f) = (1/N) sum_i w_i l_i(f),   w = combine_l s_l(p_s), detached         `RegionSelection.weights`
    L_T(f) = mean l_i(f)                                                        `joint_terms`
    L_W(D) = sum_l mean -log s_l(p_t) + mean -log(1 - s_l(p_s)),  p detached    term "discriminators"
    L_A(f) = lambda sum_l mean -log s_l(p_s),  D frozen                         term "adversarial"

All updates leave through one returned loss: detached predictions keep L_W from the segmenter, detached weights and frozen
discriminators keep the rest from D.

What text of the paper supports: weighting networks at three levels, trained jointly with the segmenter; predictions as their
input (images are worse); a shared output W_1 or one per class W_C; soft weights; "adversarial feature alignment and a
reconstruction loss" in the full system. No code is public. What they are trained by, their layers, what a region is, how the
levels combine and every number are our reconstruction: docs/region_selection.md lists each choice.
"""

import math
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn import functional as F

from segzoo.bilevel import frozen_buffers
from segzoo.checks import check_range
from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.data.streams import Batch, Stream
from segzoo.distributed import gather_columns
from segzoo.errors import ConfigError
from segzoo.losses import log_softmax
from segzoo.methods.base import pixel_count, valid_pixels
from segzoo.methods.joint import WeightedJointTraining, source_norms
from segzoo.methods.length import training_steps
from segzoo.models.discriminators import (
    Combination,
    DomainDiscriminators,
    Level,
    PixelDiscriminator,
    Reconstructor,
    combine_levels,
    domain_auc,
    domain_loss,
    frozen,
)
from segzoo.models.regions import label_components, require_superpixels, superpixels

SATURATED = (
    "step {step}: the {level} discriminator is saturated (AUC {auc:.3f}, mean score of the source {score:.3f}): it tells the "
    "domains apart, not the better source pixels from the worse; try a smaller --method.discriminator_lr, a larger "
    "--method.label_smoothing or --method.temperature, --method.held_out, or --method.levels without it"
)
FLOORED = (
    "step {step}: every source weight is at --method.floor, so that all pixels count alike: the discriminators are sure that "
    "the source is synthetic; try a lower floor, or what helps against saturation (docs/region_selection.md)"
)


class RegionSelection(WeightedJointTraining):
    """Source pixels weighted by how real the prediction on them looks, at three levels.

    Args:
        levels: of pixel, region and image those that weigh.
        outputs: shared (the paper's W_1), or per_class (its W_19): a pixel is judged by the output of its own class.
        judge: what the discriminators see: predictions, or images, which the paper found worse.
        regions: smooth (cells of the region discriminator, interpolated between their centres), cell (constant in each),
            component (mean over connected pixels of one label) or superpixel (mean over those of scikit-image).
        region_cell: side length in pixels of a cell, a power of two from 4 on, and of a superpixel.
        combination: mean of the levels' scores, their prod, or sum_of_losses, a source loss per level.
        density_ratio: s / (1 - s), within 0.1 and 10, instead of s: the importance weight of a calibrated discriminator.
        floor: smallest weight before normalisation, to the power of the levels for their prod; no pixel is lost to a
            discriminator that is sure of itself.
        weight_norm: mean1: weights divided by their mean, so that only their ratios count; none: as they are.
        ramp: share of the training over which the weights grow out of a constant 1.
        adversarial: whether the segmenter learns to make its source predictions look real.
        adversarial_weight: lambda.
        temperature: the predictions that are judged are softmax(logits / temperature); above 1 hides over-confidence.
        label_smoothing: the discriminators should answer 1 - this and this, not 1 and 0.
        held_out: share of the labelled target images that only the discriminators see: predictions on images that were
            trained on are surer than any on the source.
        discriminator_lr: learning rate of discriminators and reconstruction; it follows the schedule.
        discriminator_width: channels of their first layers.
        feature_alignment: weight of a further adversarial term, on the encoder's deepest map; 0 leaves it out.
        reconstruction: weight of the L1 distance of an image rebuilt from the encoder's maps; 0 leaves it out.
        kwargs: see `WeightedJointTraining`.
    """

    slug = "region-selection"
    weighting: DomainDiscriminators

    def __init__(
        self,
        *,
        levels: tuple[Level, ...] = ("pixel", "region", "image"),
        outputs: Literal["shared", "per_class"] = "shared",
        judge: Literal["predictions", "images"] = "predictions",
        regions: Literal["smooth", "cell", "component", "superpixel"] = "smooth",
        region_cell: int = 32,
        combination: Combination = "mean",
        density_ratio: bool = False,
        floor: float = 0.1,
        weight_norm: Literal["none", "mean1"] = "mean1",
        ramp: float = 0.1,
        adversarial: bool = True,
        adversarial_weight: float = 1e-3,
        temperature: float = 1.0,
        label_smoothing: float = 0.1,
        held_out: float = 0.0,
        discriminator_lr: float = 1e-4,
        discriminator_width: int = 64,
        feature_alignment: float = 0.0,
        reconstruction: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not levels or len(set(levels)) < len(levels):
            raise ConfigError(f"--method.levels {list(levels)}: expected some of pixel, region and image, each once")
        if region_cell < 4 or region_cell & (region_cell - 1):
            raise ConfigError(f"--method.region_cell {region_cell}: expected a power of two from 4 on")
        if adversarial and judge == "images":
            raise ConfigError("discriminators of images cannot teach the segmenter: add --method.adversarial false")
        if regions == "superpixel":
            require_superpixels()
        limits = {"floor": (floor, 1), "ramp": (ramp, 1), "held_out": (held_out, 0.99)}
        limits |= {"label_smoothing": (label_smoothing, 0.49), "adversarial_weight": (adversarial_weight, math.inf)}
        limits |= {"feature_alignment": (feature_alignment, math.inf), "reconstruction": (reconstruction, math.inf)}
        for name, (value, most) in limits.items():
            check_range(f"--method.{name}", value, 0, most)
        check_range("--method.temperature", temperature, 1e-3)

        check_range("--method.discriminator_width", discriminator_width, 1)
        inputs, width = (3 if judge == "images" else self.num_classes), discriminator_width
        per_class, smooth = outputs == "per_class", regions != "cell"
        self.weighting = DomainDiscriminators(inputs, self.num_classes, levels, per_class, width, region_cell, smooth)
        if feature_alignment:
            self.feature_discriminator = PixelDiscriminator(self.segmenter.deepest_channels(1)[0], 1, width)
        if reconstruction:
            self.reconstructor = Reconstructor(self.segmenter.deepest_channels(3), width)
        self.judge, self.regions, self.region_cell = judge, regions, region_cell
        self.combination, self.density_ratio = combination, density_ratio
        self.floor = floor ** len(levels) if combination == "prod" else floor
        self.weight_norm = weight_norm
        self.ramp, self.temperature, self.label_smoothing, self.held_out = ramp, temperature, label_smoothing, held_out
        self.adversarial, self.adversarial_weight = adversarial, adversarial_weight
        self.feature_alignment, self.reconstruction = feature_alignment, reconstruction
        self.discriminator_lr = discriminator_lr
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
        """The segmenter's groups and one for each of the other networks."""
        names = ("weighting", "feature_discriminator", "reconstructor")
        own = [(name, getattr(self, name)) for name in names if hasattr(self, name)]
        return super().optimizer_groups() + [self.group(name, net, self.discriminator_lr, 0.0) for name, net in own]

    def weights(self, source: Batch, logits: Tensor | None = None) -> Tensor:
        """Weights (B, H, W) of a source batch as the segmenter sees them; without its ``logits`` it is asked for them."""
        return self._weigh(self._judge_source(source, logits).detach(), source["label"])

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """One update of the segmenter and of the discriminators; one loss for both."""
        source, target = batch["source"], batch["target"]
        real_batch = batch.get("held_out", target)
        # Each domain passes alone, or batch statistics would tell the discriminators which is which.
        with frozen_buffers(self.segmenter):  # the running statistics are the target's
            source_maps, source_logits = self._predict(source["image"])
        target_maps, target_logits = self._predict(target["image"])
        real_logits = target_logits
        if self.held_out:
            with torch.no_grad(), frozen_buffers(self.segmenter):
                real_logits = self(real_batch["image"])

        evidence, regions = self._evidence(source, source_logits), self._find_regions(source)
        synthetic = self.weighting(evidence.detach(), source["label"], regions)
        real = self._judge(real_batch, real_logits)
        weights = self._weigh(synthetic.detach(), source["label"])

        terms = self.joint_terms(weights, source_logits, source["label"], target_logits, target["label"])
        terms["discriminators"] = self._domain_loss(real, True, real_batch["label"], self.label_smoothing)
        terms["discriminators"] += self._domain_loss(synthetic, False, source["label"], self.label_smoothing)
        if self.adversarial:
            fooled = frozen(self.weighting, evidence, source["label"], regions)
            terms["adversarial"] = self.adversarial_weight * self._domain_loss(fooled, True, source["label"])
        if source_maps:
            terms |= self._feature_terms("source", source, source_maps)
            terms |= self._feature_terms("target", target, target_maps)
        loss = self.total(terms)
        self.log_weights(weights, source["label"])
        self._log_discriminators(
            synthetic[:, valid_pixels(source["label"])], real[:, valid_pixels(real_batch["label"])]
        )
        return loss

    def _predict(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """The encoder's maps, if a branch needs them, and the logits."""
        if not self.feature_alignment and not self.reconstruction:
            return [], self(image)
        logits, maps = self.segmenter.with_features(image)
        return maps, logits

    def _evidence(self, batch: Batch, logits: Tensor) -> Tensor:
        """What is judged: p = softmax(f(x) / temperature), or the images."""
        return batch["image"] if self.judge == "images" else log_softmax(logits / self.temperature).exp()

    def _find_regions(self, batch: Batch) -> Tensor | None:
        if self.regions == "component":
            return label_components(batch["label"])
        return superpixels(batch["image"], self.region_cell) if self.regions == "superpixel" else None

    def _judge(self, batch: Batch, logits: Tensor) -> Tensor:
        """The discriminators' logits (L, B, H, W) of "real"; the prediction is detached."""
        evidence = self._evidence(batch, logits).detach()
        judged: Tensor = self.weighting(evidence, batch["label"], self._find_regions(batch))
        return judged

    def _judge_source(self, source: Batch, logits: Tensor | None = None) -> Tensor:
        if logits is None:
            with source_norms(self.segmenter):
                logits = self(source["image"])
        return self._judge(source, logits)

    def _domain_loss(self, logits: Tensor, real: bool, label: Tensor, smoothing: float = 0.0) -> Tensor:
        valid = valid_pixels(label)
        return domain_loss(logits, real, valid, pixel_count(valid), smoothing)

    def _weigh(self, logits: Tensor, label: Tensor) -> Tensor:
        """w from the discriminators' logits: combined, at least ``floor``, ramped, normalised."""
        maps = combine_levels(logits, self.combination, self.density_ratio).clamp_min(self.floor)
        steps = 0.0 if self._trainer is None else self.ramp * (training_steps(self.trainer) or 0)
        maps = torch.lerp(torch.ones_like(maps), maps, min(1.0, self.global_step / steps) if steps > 0 else 1.0)
        if self.weight_norm == "mean1":
            maps = torch.stack([self.to_mean_one(one, label)[0] for one in maps])
        return maps.sum(0)

    def _feature_terms(self, domain: str, batch: Batch, maps: list[Tensor]) -> dict[str, Tensor]:
        """Adversarial alignment of the encoder's deepest map, and the image rebuilt from the three deepest."""
        terms: dict[str, Tensor] = {}
        height, width = batch["image"].shape[-2:]
        padded = self.segmenter.padded((height, width))
        if self.feature_alignment:
            label = F.pad(batch["label"], (0, padded[1] - width, 0, padded[0] - height), value=IGNORE_INDEX)
            cells = F.interpolate(label[:, None].float(), maps[-1].shape[-2:], mode="nearest")[:, 0].long()
            judged = self.feature_discriminator(maps[-1].detach()).movedim(1, 0)
            loss = self._domain_loss(judged, domain == "target", cells, self.label_smoothing)
            terms[f"feature discriminator/{domain}"] = loss
            if domain == "source":
                fooled = frozen(self.feature_discriminator, maps[-1]).movedim(1, 0)
                terms["alignment"] = self.feature_alignment * self._domain_loss(fooled, True, cells)
        if self.reconstruction:
            rebuilt = self.reconstructor(maps[-3:], padded)[..., :height, :width]
            terms[f"reconstruction/{domain}"] = self.reconstruction * F.l1_loss(rebuilt, batch["image"])
        return terms

    @torch.no_grad()
    def _log_discriminators(self, synthetic: Tensor, real: Tensor) -> None:
        """From logits (L, N) and (L, M): AUC and mean source score per level, warning when saturated, extremes of w."""
        if not self.logs_step:
            return
        aucs = [domain_auc(true, fake) for fake, true in zip(synthetic, real, strict=True)]
        synthetic = gather_columns(synthetic)
        for level, auc, fake in zip(self.weighting.levels, aucs, synthetic, strict=True):
            score = fake.sigmoid().mean()
            self.log_dict({f"auc/{level}": auc, f"score/{level}": score})
            if level not in self._saturated and auc > 0.99 and score < self.label_smoothing + 0.05:
                self._saturated.add(level)
                rank_zero_warn(SATURATED.format(step=self.global_step, level=level, auc=auc, score=score))
        if synthetic.numel():
            maps = combine_levels(synthetic[:, None, None], self.combination, self.density_ratio)
            raw = maps.sum(0)
            self.log_dict({"weight/raw": raw.mean(), "weight/raw_min": raw.amin(), "weight/raw_max": raw.amax()})
            if "floor" not in self._saturated and bool((maps <= self.floor).all()):
                self._saturated.add("floor")
                rank_zero_warn(FLOORED.format(step=self.global_step))

    def panel_maps(self, batch: Batch) -> dict[str, Tensor]:
        """The levels' scores of source images."""
        if "label" not in batch:
            return {}
        scores = self._judge_source(batch).sigmoid()
        return {f"{level} score": one for level, one in zip(self.weighting.levels, scores, strict=True)}
