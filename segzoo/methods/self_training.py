"""Self-training with a mean teacher and ClassMix: DACS (Tranheden et al., WACV 2021) as in DAFormer (Hoyer et al., CVPR 2022).

A teacher, the moving average of the segmenter, labels the unlabelled target images. Half the classes of a source image are
pasted onto a target image, and the segmenter learns from the mixture:

    theta_T <- a theta_T + (1 - a) theta,     a = min(1 - 1/(t+1), 0.999)                      teacher
    y_i = argmax p_T(x_t)_i,     q = share of the batch's pixels with max p_T >= 0.968         pseudo labels, one weight
    x_m = M x_s + (1-M) x_t,     y_m likewise,     q_m = M + (1-M) q                           ClassMix
    L   = CE(f(x_s), y_s) + (1/N) sum_i q_m,i CE(f(aug(x_m)), y_m)_i  [+ lambda_fd L_fd]

Source images are drawn by the rarest classes they hold. L_fd keeps the encoder near the one it started from: the distance of
their last maps at source pixels of thing classes (DAFormer's feature distance). Where a target image has a reference, another
image of the same place in better light, the labels of what does not move also follow the teacher's prediction for that one.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.adaptation import (
    EmaTeacher,
    FeatureDistance,
    class_mask,
    class_mix,
    downscale_labels,
    fuse_reference,
    paste,
    pseudo_label_weights,
    pseudo_labels,
    strong_augment,
)
from segzoo.checks import check_range
from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.data.streams import Batch, Stream
from segzoo.errors import ConfigError
from segzoo.evaluation import Scores, confusion_metric, update_confusion
from segzoo.evaluation.history import PRECISION
from segzoo.losses import log_softmax
from segzoo.methods.base import pixel_count
from segzoo.methods.unsupervised import UnsupervisedAdaptation
from segzoo.models.segmenter import Segmenter


@dataclass
class View:
    """Target images as a step uses them.

    Attributes:
        image: (B, 3, H, W), not augmented.
        labels: the teacher's (B, H, W).
        confidence: the probability that it gives them, (B, H, W).
        weights: of their loss, (B, H, W).
        reference: (B, 3, H, W), other images of the same places, if there are any.
    """

    image: Tensor
    labels: Tensor
    confidence: Tensor
    weights: Tensor
    reference: Tensor | None = None


class SelfTraining(UnsupervisedAdaptation):
    """Mean teacher, ClassMix and rare-class sampling.

    Args:
        ema_decay: a; short runs need a shorter memory.
        ema_buffers: average the batch norms' statistics too and let the teacher predict with them; else, as published, it
            normalises by the batch.
        threshold: confidence from which a pixel counts into q.
        pseudo_weight: share: q at every pixel; pixel: 1 where the teacher is sure, else 0.
        ignore_top: rows of the target's crop whose pseudo labels are not used (15 in DAFormer's GTA5 recipe, of 512, where the
            crop is as high as the image).
        ignore_bottom: likewise (120).
        mix_scope: whose classes are pasted, by half: image: those of the image; batch, as DACS published it: those of the
            whole batch, void too.
        source_augmentation: weak (DAFormer) or strong (SePiCo) images for the source's own loss.
        rare_class_temperature: T of P(class) ~ exp((1 - frequency) / T) in drawing source images; null: all alike.
        rare_class_min_share: of its pixels that an image drawn for a class has of it (3000 of 1280x720).
        rare_class_min_crop_ratio: times that many pixels the crop has to hold, in up to ten draws more.
        feature_distance: lambda_fd (0.005 in DAFormer); 0: no second encoder is kept.
        feature_classes: classes whose pixels it is taken over; null: all.
        feature_min_ratio: majority that a class needs in a cell of the map.
        reference_classes: classes whose labels also follow the teacher's prediction for the reference image of a target image
            (SePiCo on Dark Zurich: what does not move, in the day image); null: there are no reference images.
        reference_weight: of that prediction where it is surer than ``reference_threshold``; elsewhere the rest to 1.
        reference_threshold: see there.
        kwargs: see `UnsupervisedAdaptation`.
    """

    slug = "self-training"

    def __init__(
        self,
        *,
        ema_decay: float = 0.999,
        ema_buffers: bool = False,
        threshold: float = 0.968,
        pseudo_weight: Literal["share", "pixel"] = "share",
        ignore_top: int = 0,
        ignore_bottom: int = 0,
        mix_scope: Literal["image", "batch"] = "image",
        source_augmentation: Literal["weak", "strong"] = "weak",
        rare_class_temperature: float | None = 0.01,
        rare_class_min_share: float = 3000 / (1280 * 720),
        rare_class_min_crop_ratio: float = 0.5,
        feature_distance: float = 0.0,
        feature_classes: list[str] | None = None,
        feature_min_ratio: float = 0.75,
        reference_classes: list[str] | None = None,
        reference_weight: float = 0.8,
        reference_threshold: float = 0.4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.threshold, self.pseudo_weight = threshold, pseudo_weight
        self.ignore_top, self.ignore_bottom, self.mix_scope = ignore_top, ignore_bottom, mix_scope
        self.source_augmentation = source_augmentation
        self.rare_class_sampling = (rare_class_temperature, rare_class_min_share, rare_class_min_crop_ratio)
        self.feature_weight, self.feature_min_ratio = feature_distance, feature_min_ratio
        if feature_distance:
            self.feature_distance = FeatureDistance(self.segmenter, self.label_space.classes, feature_classes)
        check_range("--method.ema_decay", ema_decay, 0, 1)
        check_range("--method.ignore_top", ignore_top, 0)
        check_range("--method.ignore_bottom", ignore_bottom, 0)
        check_range("--method.reference_weight", reference_weight, 0, 1)
        check_range("--method.reference_threshold", reference_threshold, 0, 1)
        self.uses_references = reference_classes is not None
        self.reference_weight, self.reference_threshold = reference_weight, reference_threshold
        self.reference_class: Tensor
        still = class_mask("reference_classes", self.label_space.classes, reference_classes)
        self.register_buffer("reference_class", still, persistent=False)
        self.teacher = EmaTeacher(self.student(), ema_decay, ema_buffers)
        self.teacher_confusion = confusion_metric(self.num_classes)
        self._seen: tuple[Tensor, View, Tensor, Tensor, Tensor] | None = None

    @property
    def streams(self) -> dict[str, Stream]:
        """Source images drawn by class, all target images without labels."""
        temperature, share, ratio = self.rare_class_sampling
        source = Stream(
            "source",
            rare_class_temperature=temperature,
            rare_class_min_share=share,
            rare_class_min_crop_ratio=ratio,
        )
        return {"source": source, "target": Stream("target", labelled=False, reference=self.uses_references)}

    def student(self) -> nn.ModuleDict:
        """What the teacher averages."""
        return nn.ModuleDict({"segmenter": self.segmenter})

    @property
    def teacher_segmenter(self) -> Segmenter:
        """The teacher's, in the mode that it predicts in."""
        segmenter = self.teacher.network["segmenter"]
        assert isinstance(segmenter, Segmenter)
        return segmenter

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Supervised on the source, by pseudo labels on the mixture."""
        source = batch["source"]
        if self.begins_step(batch_idx):
            self.teacher.update(self.student())
        view = self.view(batch["target"], source["image"].shape[-2:])
        return self.total(self.source_terms(source) | self.mixed_terms(source, view))

    def view(self, target: Batch, size: tuple[int, int]) -> View:
        """Target images with the teacher's labels; (height, width) of the source is for methods that crop."""
        image, reference = target["image"], target.get("reference")
        labels, confidence = self.label(image, reference)
        return View(image, labels, confidence, self.pseudo_weights(confidence), reference)

    @torch.no_grad()
    def label(self, image: Tensor, reference: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The teacher's labels of images and its confidence in them, both (B, H, W)."""
        logits = self.teacher_segmenter(image)
        if reference is None and self.class_weight is None:
            return pseudo_labels(logits)
        scores = log_softmax(logits).exp()
        if reference is not None:
            other = log_softmax(self.teacher_segmenter(reference)).exp()
            scores = fuse_reference(
                scores, other, self.reference_class, self.reference_weight, self.reference_threshold
            )
        if self.class_weight is not None:
            scores = scores * self.class_weight[:, None, None]
        confidence, labels = scores.max(dim=1)
        return labels, confidence

    def pseudo_weights(self, confidence: Tensor) -> Tensor:
        """q, of every target pixel (B, H, W)."""
        rows = self.ignore_top, self.ignore_bottom
        weights = pseudo_label_weights(confidence, self.threshold, *rows, scheme=self.pseudo_weight)
        self.log_means({"pseudo/weight": weights.mean(), "pseudo/confidence": confidence.mean()})
        return weights

    def source_terms(self, source: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the labelled source, and the feature distance."""
        image, label = source["image"], source["label"]
        if self.source_augmentation == "strong":
            image = self.augment(image)
        with self.source_pass():
            logits, features = self.segmenter.with_features(image)
        terms = {"source": self.supervised(logits, label)}
        if self.feature_weight:
            cells = self.cell_labels(label, features[-1].shape[-2:], self.feature_min_ratio)
            distance, counted = self.feature_distance(image, features[-1], cells)
            terms["feature distance"] = self.feature_weight * (distance * counted).sum() / pixel_count(counted)
        return terms | self.feature_terms("source", features, label)

    def mixed_terms(self, source: Batch, view: View) -> dict[str, Tensor]:
        """Weighted cross-entropy on the mixture."""
        if view.image.shape[-2:] != source["image"].shape[-2:]:
            sizes = "x".join(map(str, view.image.shape[-2:])), "x".join(map(str, source["image"].shape[-2:]))
            raise ConfigError(
                f"target images of {sizes[0]} pixels (HxW) cannot be mixed with source images of {sizes[1]}: give both one "
                "--data.crop_size, or --data.source_size and --data.target_size alike"
            )
        image, label, weights, mask = self.mix(source, view)
        logits, features = self.segmenter.with_features(self.augment(image))
        self._seen = (source["image"], view, image, label, logits.detach())
        target_labels = self.target_labels(view).masked_fill(mask, IGNORE_INDEX)
        terms = {"mixed": self.supervised(logits, label, weights)}
        return terms | self.feature_terms("mixed", features, target_labels)

    def feature_terms(self, domain: str, features: list[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Further losses on the maps of a pass, with labels (B, H, W) of its ``source`` or, if ``mixed``, target pixels."""
        return {}

    def target_labels(self, view: View) -> Tensor:
        """Labels (B, H, W) of target pixels for losses on features."""
        return view.labels

    def mix(self, source: Batch, view: View) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """ClassMix: images, labels, weights of the mixture and M, where it shows the source."""
        label = source["label"]
        generators = self.image_generators("class mix", len(label))
        mask = class_mix(label, generators, self.mix_scope, IGNORE_INDEX)
        image = paste(mask, source["image"], view.image)
        weights = paste(mask, torch.ones_like(view.weights), view.weights)
        return image, paste(mask, label, view.labels), weights, mask

    def augment(self, image: Tensor) -> Tensor:
        """Colour jitter and blur; all calls of a step draw the same."""
        return strong_augment(image, self.generator("strong augmentation"))

    def cell_labels(self, label: Tensor, size: torch.Size, min_ratio: float) -> Tensor:
        """Labels (B, H, W) on the cells of a map (B, h, w) of the padded image; void without a majority of ``min_ratio``."""
        height, width = self.segmenter.padded(label.shape[-2:])
        padded = F.pad(label, (0, width - label.shape[-1], 0, height - label.shape[-2]), value=IGNORE_INDEX)
        return downscale_labels(padded, size, min_ratio, self.num_classes, IGNORE_INDEX)

    # Looking at it

    @property
    def step_pictures(self) -> dict[str, Tensor]:
        """The images of the last step, by title."""
        if self._seen is None:
            return {}
        source, view, mixed, label, logits = self._seen
        pictures = {"source": source, "target": view.image, "pseudo label": view.labels, "confidence": view.confidence}
        if view.reference is not None:
            pictures["reference"] = view.reference
        return pictures | {"mixed": mixed, "mixed label": label, "prediction": logits.argmax(dim=1)}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Also scores the teacher: its labels are what the segmenter learns from."""
        super().validation_step(batch, batch_idx)
        if self.hparams["norm"] == "sync" and not self.teacher.average_buffers:
            return  # its batch norms would also count the images that only keep the ranks in step
        update_confusion(self.teacher_confusion, self.teacher_segmenter(batch["image"]), batch["label"])

    def on_validation_epoch_end(self) -> None:
        """Also logs ``val/teacher_miou`` and ``pseudo/precision/<class>``: how much of what it calls so is so."""
        super().on_validation_epoch_end()
        matrix = self.teacher_confusion.compute().cpu().numpy()
        self.teacher_confusion.reset()
        if not matrix.any():
            return
        scores = Scores(matrix, self.label_space.classes)
        self.log("val/teacher_miou", scores.miou, rank_zero_only=True)
        precision = zip(scores.classes, scores.precision, strict=True)
        called = {f"{PRECISION}{name}": float(value) for name, value in precision if not math.isnan(value)}
        self.log_dict(called, rank_zero_only=True)
