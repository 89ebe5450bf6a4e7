"""Self-training with a mean teacher and ClassMix: DACS (Tranheden et al., WACV 2021) as in DAFormer (Hoyer et al., CVPR 2022).

A teacher, the moving average of the segmenter, labels the unlabelled target images (`segzoo.methods.mean_teacher`). Half the
classes of a source image are pasted onto a target image, and the segmenter learns from the mixture:

    x_m = M x_s + (1-M) x_t,     y_m likewise,     q_m = M + (1-M) q                           ClassMix
    L   = CE(f(x_s), y_s) + (1/N) sum_i q_m,i CE(f(aug(x_m)), y_m)_i  [+ lambda_fd L_fd]

Source images are drawn by the rarest classes they hold. L_fd keeps the encoder near the one it started from: the distance of
their last maps at source pixels of thing classes (DAFormer's feature distance). Where a target image has a reference, another
image of the same place in better light, the labels of what does not move also follow the teacher's prediction for that one.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from segzoo.adaptation import (
    FeatureDistance,
    Mixture,
    Night,
    NightGuidance,
    PseudoLabels,
    View,
    cell_labels,
    class_mix,
    low_frequency_swap,
    paste,
)
from segzoo.checks import check_range
from segzoo.data.label_spaces import IGNORE_INDEX, LabelSpace
from segzoo.data.streams import Batch, Stream
from segzoo.errors import ConfigError
from segzoo.losses import log_softmax
from segzoo.methods.loss import Loss
from segzoo.methods.mean_teacher import MeanTeacher
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.segmentation import pixel_count
from segzoo.methods.speed import Speed
from segzoo.models.network import Network
from segzoo.options import resolve


class SelfTraining(MeanTeacher):
    """Mean teacher, ClassMix and rare-class sampling.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
        pseudo: Says how the teacher follows the network and how its labels are used, a mapping with ema_decay, ema_buffers,
            start, threshold, weight and alignment (segzoo.adaptation.PseudoLabels).
        masked: Sets how much a further loss counts on target images with masked blocks, whose content has to be told from what
            is around (masked image consistency, MIC, has 1); 0 leaves it and its pass out.
        fourier: Gives source images the low frequencies of target images, up to this share of the image's side (FDA: 0.01 to
            0.09); 0 leaves them as they are.
        mix_scope: Chooses of which classes half are pasted from source onto target images: those of each image, or of the
            whole batch and void too, as DACS published it.
        source_augmentation: Chooses the images of the source's own loss: weak as in DAFormer, or strong as in SePiCo.
        feature_distance: Sets how strongly the encoder is kept near its pretrained weights (lambda_fd, 0.005 in DAFormer); 0
            leaves it out and keeps no second encoder.
        feature_classes: Lists the classes whose pixels the feature distance is taken over, things in DAFormer; null takes all.
        running_statistics: Chooses what batch norms keep for testing: target keeps the statistics of passes with target
            pixels; both, as published, mixes those of the synthetic images in.
        pixel_mean: Chooses what losses are the mean of: valid takes the labelled pixels, all takes all pixels and counts void
            ones as 0, as the DAFormer line of work has it.
        night: Adds what SePiCo does for night images, a mapping with classes, weight, threshold, class_balance,
            test_class_balance and frequencies (segzoo.adaptation.Night); null leaves it out.
    """

    slug = "self-training"
    pasted_from = "source"
    """Title of the images in `step_pictures` whose classes are pasted."""

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        network: Network | dict[str, Any] | None = None,
        optimizer: Optimizer | dict[str, Any] | None = None,
        loss: Loss | dict[str, Any] | None = None,
        speed: Speed | dict[str, Any] | None = None,
        pseudo: PseudoLabels = PseudoLabels(),  # noqa: B008 - frozen
        masked: float = 0.0,
        fourier: float = 0.0,
        mix_scope: Literal["image", "batch"] = "image",
        source_augmentation: Literal["weak", "strong"] = "weak",
        feature_distance: float = 0.0,
        feature_classes: list[str] | None = None,
        running_statistics: Literal["target", "both"] = "target",
        pixel_mean: Literal["valid", "all"] = "valid",
        night: Night | None = None,
    ) -> None:
        super().__init__(
            label_space=label_space,
            network=network,
            optimizer=optimizer,
            loss=loss,
            speed=speed,
            pseudo=pseudo,
            masked=masked,
            running_statistics=running_statistics,
            pixel_mean=pixel_mean,
        )
        check_range("`method.feature_distance`", feature_distance, 0)
        check_range("`method.fourier`", fourier, 0, 0.5)
        self.mix_scope, self.source_augmentation, self.fourier = mix_scope, source_augmentation, fourier
        self.feature_weight = feature_distance
        self._pasted: Batch | None = None
        if feature_distance:
            self.feature_distance = FeatureDistance(self.segmenter, self.label_space.classes, feature_classes)
        self.night = (
            None if night is None else NightGuidance(resolve(Night, night, "method.night"), self.label_space.classes)
        )
        if self.night is not None and self.night.class_weight is not None:
            if self.loss.class_balance:
                raise ConfigError(
                    "`loss.class_balance` and `method.night.class_balance` both weigh classes; leave one at 0"
                )
            self.class_weight = self.night.class_weight.clone()

    @property
    def streams(self) -> dict[str, Stream]:
        """Source images drawn by class, all target images without labels."""
        target = Stream("target", labelled=False, reference=self.uses_references)
        return {"source": Stream("source", by_class=True), "target": target}

    @property
    def uses_references(self) -> bool:
        """Whether every target image comes with a reference image of the same place."""
        return self.night is not None and self.night.uses_references

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W), RGB in [0, 1], to logits (B, C, H, W); of balanced probabilities outside training."""
        logits = super().forward(image)
        return logits if self.training or self.night is None else self.night.test_logits(logits)

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Supervised on the source, by pseudo labels on the mixture."""
        self.update_teacher(batch_idx)
        source = self.restyled(batch["source"], batch["target"])
        terms, _ = self.source_terms(source)
        if self.teaching:
            view = self.view(batch["target"])
            mixed_terms, _ = self.mixed_terms(view, self.mix(source, view))
            terms |= mixed_terms
        return self.total(terms)

    def restyled(self, source: Batch, target: Batch) -> Batch:
        """Source images with the light and colour of target images, where that is asked for."""
        if not self.fourier:
            return source
        return source | {"image": low_frequency_swap(source["image"], target["image"], self.fourier)}

    @torch.no_grad()
    def label(self, image: Tensor, reference: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The teacher's labels and confidence, at night with the help of a reference image."""
        if self.night is None:
            return super().label(image, reference)
        other = None if reference is None else log_softmax(self.teacher_segmenter(reference)).exp()
        scores = self.night.scores(log_softmax(self.teacher_segmenter(image)).exp(), other)
        confidence, labels = scores.max(dim=1)
        return labels, confidence

    def source_terms(self, source: Batch) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Cross-entropy on the labelled source and the feature distance; and the encoder's maps of that pass."""
        image, label = source["image"], source["label"]
        if self.source_augmentation == "strong":
            image = self.augment(image)
        with self.beside_target():
            logits, maps = self.segmenter.with_features(image)
        terms = {"source": self.supervised(logits, label)}
        if self.feature_weight:
            cells = cell_labels(self.segmenter, label, maps[-1].shape[-2:], self.num_classes)
            distance, counted = self.feature_distance(image, maps[-1], cells)
            terms["feature distance"] = self.feature_weight * (distance * counted).sum() / pixel_count(counted)
        return terms, maps

    def mix(self, source: Batch, view: View) -> Mixture:
        """ClassMix: half of the classes of labelled images, pasted onto the target images."""
        label = source["label"]
        if view.image.shape[-2:] != label.shape[-2:]:
            sizes = "x".join(map(str, view.image.shape[-2:])), "x".join(map(str, label.shape[-2:]))
            raise ConfigError(
                f"target images of {sizes[0]} pixels (HxW) cannot be mixed with source images of {sizes[1]}: give both one "
                "`data.crop_size`, or `data.source_size` and `data.target_size` alike"
            )
        self._pasted = source
        mask = class_mix(label, self.image_generators("class mix", len(label)), self.mix_scope, IGNORE_INDEX)
        weights = paste(mask, torch.ones_like(view.weights), view.weights)
        image, labels = paste(mask, source["image"], view.image), paste(mask, label, view.labels)
        return Mixture(image, labels, weights, mask)

    @property
    def step_pictures(self) -> dict[str, Tensor]:
        """The images of the last step, by title."""
        pictures = super().step_pictures
        return pictures if self._pasted is None else {self.pasted_from: self._pasted["image"]} | pictures

    @property
    def step_names(self) -> dict[str, Sequence[str]]:
        """The names of the images on both sides of the mixture."""
        names = super().step_names
        return names if self._pasted is None else {self.pasted_from: self._pasted.get("name", ())} | names
