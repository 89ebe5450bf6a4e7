"""SePiCo (Xie et al., TPAMI 2023, arXiv 2204.08808): self-training, and pixels drawn to the concept of their class.

A projection head maps the encoder's features to unit vectors q. The concepts of a class c come from the teacher's vectors of
labelled source pixels: mean mu_c and variance sigma_c^2 (diagonal) of all seen so far, or a bank of the last batches' means.
The student's vectors of source pixels (their labels) and of target pixels (pseudo labels) are contrasted with them, t = 100:

    proto   l(q, y) = -log softmax_c(q mu_c / t)[y]
    bank    l(q, y) = mean over entries b of class y of  -log e^(q b / t) / (e^(q b / t) + sum_(c != y) e^(mean_m q b_cm / t))
    dist    l(q, y) = log sum_c exp(q mu_c / t + q' Sigma_c q / 2 t^2) - q mu_y / t       infinitely many pairs, in closed form
    L_reg           = 1/(C log C) sum_c log softmax_c(mean q . mu_c / t)
    L               = L_self-training + lambda_cl (L_cl,s + L_cl,t) + lambda_reg (L_reg,s + L_reg,t)

A cell of the feature map has the label that three quarters of its pixels share. Target crops are chosen by the balance of
their pseudo labels. Passes of a step, as published: teacher on the whole target, on its crop and on the source; student on
source, target and mixture. ``fast`` saves a teacher and a student pass: it crops the first pseudo labels, and takes the
target's contrast from the target's part of the mixture.
"""

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.adaptation import ClassBank, ClassStatistics, EmaTeacher, class_balanced_crop, crop
from segzoo.checks import check_range
from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.data.streams import Batch, Stream
from segzoo.distributed import mean_across_ranks
from segzoo.errors import ConfigError
from segzoo.losses import bank_contrast, distribution_contrast, prototype_contrast, prototype_regularizer
from segzoo.methods.base import pixel_count
from segzoo.methods.self_training import SelfTraining, View
from segzoo.models.heads import ProjectionHead, select_features, selected_channels
from segzoo.models.norms import replace_norms


class SePiCo(SelfTraining):
    """Semantic-guided pixel contrast.

    Args:
        contrast: proto, bank or dist.
        temperature: t. At 100 every l is near log C and its gradient small; AdamW makes up for it in the projection alone.
        contrast_weight: lambda_cl.
        contrast_start: first step of the contrast; the concepts are gathered from step 0.
        regularizer_weight: lambda_reg.
        regularizer_sign: 1 as published, though descending L_reg makes similarities less even; -1 evens them. At t = 100
            neither moves anything.
        projection_input: last: the encoder's last map (DeepLabV2); fuse: all maps from stride 4 on (DAFormer).
        projection_dim: length of q.
        projection_hidden: channels between the two layers of the projection; null: those of its input.
        bank_length: entries per class.
        cell_min_ratio: majority that the label of a cell needs.
        unseen: drop: classes without a concept leave the sums; keep, as published: they stay in with similarity 0, and the
            bank begins with a zero vector per class.
        target_contrast: all target pixels, as published, or confident ones.
        balanced_crop: crop the target by the balance of its pseudo labels; else like the source.
        crop_share: area of the target that the crop covers, which is then resized to the source's size; null, as published: a
            crop of the source's size.
        fast: see the module.
        kwargs: see `SelfTraining`.
    """

    slug = "sepico"

    def __init__(
        self,
        *,
        contrast: Literal["proto", "bank", "dist"] = "dist",
        temperature: float = 100.0,
        contrast_weight: float = 1.0,
        contrast_start: int = 3000,
        regularizer_weight: float = 1.0,
        regularizer_sign: Literal[1, -1] = -1,
        projection_input: Literal["last", "fuse"] = "fuse",
        projection_dim: int = 512,
        projection_hidden: int | None = None,
        bank_length: int = 200,
        cell_min_ratio: float = 0.75,
        unseen: Literal["drop", "keep"] = "drop",
        target_contrast: Literal["all", "confident"] = "all",
        balanced_crop: bool = True,
        crop_share: float | None = None,
        fast: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if temperature <= 0 or (crop_share is not None and not 0 < crop_share <= 1):
            raise ConfigError(f"temperature {temperature} must be above 0, crop_share {crop_share} in (0, 1] or null")
        check_range("--method.cell_min_ratio", cell_min_ratio, 0, 1)
        check_range("--method.bank_length", bank_length, 1)
        check_range("--method.projection_dim", projection_dim, 1)
        self.contrast, self.temperature, self.contrast_weight = contrast, temperature, contrast_weight
        self.contrast_start, self.fast = contrast_start, fast
        self.regularizer_weight, self.regularizer_sign = regularizer_weight, regularizer_sign
        self.projection_input, self.cell_min_ratio = projection_input, cell_min_ratio
        self.unseen, self.target_contrast = unseen, target_contrast
        self.balanced_crop, self.crop_share = balanced_crop, crop_share
        channels = selected_channels(self.segmenter.feature_channels, projection_input)
        self.projection = ProjectionHead(channels, projection_dim, projection_hidden)
        replace_norms(self.projection, self.hparams["norm"])
        self.teacher = EmaTeacher(self.student(), self.teacher.decay, self.teacher.average_buffers)
        self.statistics = ClassStatistics(self.num_classes, projection_dim)
        if contrast == "bank":
            self.bank = ClassBank(self.num_classes, projection_dim, bank_length, seed_zero=unseen == "keep")

    @property
    def streams(self) -> dict[str, Stream]:
        """As for self-training; the target comes whole where the crop is chosen here."""
        streams = super().streams
        return streams | {"target": replace(streams["target"], whole=self.balanced_crop)}

    @property
    def starts(self) -> dict[str, int]:
        """When the contrast begins."""
        return {"contrast_start": self.contrast_start}

    def student(self) -> nn.ModuleDict:
        """Segmenter and projection."""
        modules = super().student()
        return nn.ModuleDict({**modules, "projection": self.projection}) if hasattr(self, "projection") else modules

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """The projection learns as fast as the segmenter's head."""
        lr = self.lr * self.head_lr_factor
        return [*super().optimizer_groups(), self.group("projection", self.projection, lr, self.weight_decay)]

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Self-training, with the contrast on source and target."""
        source = batch["source"]
        if self.begins_step(batch_idx):
            self.teacher.update(self.student())
        view = self.view(batch["target"], source["image"].shape[-2:])
        self.gather_concepts(source)
        terms = self.source_terms(source) | self.mixed_terms(source, view)
        if self.contrasting and not self.fast:
            features = self.segmenter.features(self.augment(view.image))
            terms |= self.contrast_terms("target", features, self.target_labels(view))
        return self.total(terms)

    @property
    def contrasting(self) -> bool:
        """Whether the contrast has begun."""
        return self.global_step >= self.contrast_start

    # The target's crop

    def view(self, target: Batch, size: tuple[int, int]) -> View:
        """Target images, cropped to (height, width) by the balance of the teacher's labels."""
        if not self.balanced_crop:
            return super().view(target, size)
        images = [target["image"], *([target["reference"]] if self.uses_references else [])]
        labels, confidence = self.label(*images)
        box = self._box(images[0].shape[-2:], size)
        generators = self.image_generators("balanced crop", len(labels))
        corners = class_balanced_crop(labels, box, generators)
        images = [crop(image, corners, box) for image in images]
        if box != size:
            images = [F.interpolate(image, size, mode="bilinear", align_corners=False) for image in images]
        if self.fast:
            labels, confidence = (
                F.interpolate(crop(x, corners, box)[:, None].double(), size, mode="nearest-exact")[:, 0].to(x.dtype)
                for x in (labels, confidence)
            )
        else:
            labels, confidence = self.label(*images)
        return View(images[0], labels, confidence, self.pseudo_weights(confidence), *images[1:])

    def _box(self, whole: torch.Size, size: tuple[int, int]) -> tuple[int, int]:
        scale = 1.0
        if self.crop_share is not None:
            scale = (self.crop_share * whole[0] * whole[1] / (size[0] * size[1])) ** 0.5
        return min(round(scale * size[0]), whole[0]), min(round(scale * size[1]), whole[1])

    # Concepts and contrast

    @torch.no_grad()
    def gather_concepts(self, source: Batch) -> None:
        """Adds the teacher's vectors of a source batch to the concepts."""
        maps = select_features(self.teacher_segmenter.features(source["image"]), self.projection_input)
        vectors, labels, _ = self._queries(self.teacher.network["projection"](maps), source["label"])
        self.statistics.update(vectors, labels)
        if self.contrast == "bank":
            self.bank.update(vectors, labels)

    def feature_terms(self, domain: str, features: list[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """The contrast in a pass that self-training makes."""
        if domain == "source":
            return self.contrast_terms(domain, features, labels)
        return self.contrast_terms("target", features, labels) if self.fast and self.contrasting else {}

    def target_labels(self, view: View) -> Tensor:
        """Labels (B, H, W) of the target's contrast; void where the pseudo label is not used."""
        unused = view.weights == 0
        if self.target_contrast == "confident":
            unused = unused | (view.confidence < self.threshold)
        return view.labels.masked_fill(unused, IGNORE_INDEX)

    def contrast_terms(self, domain: str, features: list[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """lambda_cl L_cl and lambda_reg L_reg of one domain, from encoder maps and labels (B, H, W)."""
        maps = select_features(features, self.projection_input)
        queries, labels, count = self._queries(self.projection(maps), labels)
        seen = self.statistics.seen if self.unseen == "drop" else None
        mean, t = self.statistics.mean, self.temperature
        if self.contrast == "bank":
            loss = bank_contrast(queries, labels, self.bank.bank, self.bank.filled, t, count=count)
        elif self.contrast == "proto":
            loss = prototype_contrast(queries, labels, mean, t, seen, count=count)
        else:
            loss = distribution_contrast(queries, labels, mean, self.statistics.variance, t, seen, count=count)
        # One mean over the pixels of all ranks, whose gradient reaches those of this rank.
        local = queries.sum(dim=0) / count
        whole = local + (mean_across_ranks(local) - local).detach()
        even = prototype_regularizer(whole[None], mean, t, seen, sign=self.regularizer_sign)
        # Before it begins the projection takes part with weight 0: every process has gradients for all parameters.
        on = float(self.contrasting)
        return {
            f"{domain} contrast": on * self.contrast_weight * loss,
            f"{domain} regularizer": on * self.regularizer_weight * even,
        }

    def _queries(self, vectors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (P, A) and labels (P,) of the cells that have one, and their number per rank."""
        cells = self.cell_labels(labels, vectors.shape[-2:], self.cell_min_ratio)
        kept = cells != IGNORE_INDEX
        return vectors.movedim(1, -1)[kept], cells[kept], pixel_count(kept)
