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

from segzoo.adaptation import (
    ClassBank,
    ClassStatistics,
    EmaTeacher,
    LabelledCells,
    Night,
    PseudoLabels,
    View,
    cell_labels,
    class_balanced_crop,
    crop,
    crop_box,
    labelled_cells,
)
from segzoo.checks import check_range
from segzoo.data.label_spaces import IGNORE_INDEX, LabelSpace
from segzoo.data.streams import Batch, Stream
from segzoo.distributed import mean_across_ranks
from segzoo.floats import widest
from segzoo.losses import bank_contrast, distribution_contrast, prototype_contrast, prototype_regularizer
from segzoo.methods.loss import Loss
from segzoo.methods.optimizer import Optimizer, parameter_group
from segzoo.methods.segmentation import pixel_count
from segzoo.methods.self_training import SelfTraining
from segzoo.methods.speed import Speed
from segzoo.models.heads import ProjectionHead, select_features, selected_channels
from segzoo.models.network import Network
from segzoo.models.norms import replace_norms


class SePiCo(SelfTraining):
    """Semantic-guided pixel contrast.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
        contrast: Chooses what represents a class, to which its pixels are drawn and from which those of others are pushed:
            proto (the mean of its features), bank (the means of recent batches) or dist (mean and variance, as if infinitely
            many pixels were compared).
        temperature: Divides the similarities of pixels and concepts (t in the paper); at the published 100 the contrast hardly
            pulls, and smaller values make it stronger.
        contrast_weight: Sets how much the contrast counts beside the cross-entropies (lambda_cl); 0 leaves it out.
        contrast_start: Says when the contrast begins, as a step or as a share of the training below 1; the concepts of the
            classes are gathered from the first step on.
        regularizer_weight: Sets how much a term counts that acts on how alike an average pixel is to all classes (lambda_reg):
            1, as published, drives the classes apart in it, negative values make them even; neither moves much at the
            published temperature.
        projection_input: Chooses the encoder's maps that a small network projects to the vectors that are contrasted: last
            takes the deepest (DeepLabV2), fuse all from stride 4 on (DAFormer).
        projection_dim: Sets the length of the vectors that pixels are projected to and contrasted by; 512 is published, 64 is
            enough for toys.
        projection_hidden: Sets the channels between the two layers of the projecting network; null takes as many as its input
            has.
        bank_length: Sets how many of the last batches' means the bank holds for every class.
        unseen: Chooses what happens to a class of which no pixel has been seen yet: drop leaves it out, keep, as published,
            compares with a vector of zeros in its place.
        balanced_crop: Crops target images where their pseudo labels are the most balanced; otherwise at random, like the
            source.
        crop_share: Sets the share of the target image's area that the crop covers before it is resized to the source's size;
            null, as published, takes a crop of the source's size.
        fast: Saves a teacher and a student pass: the first pseudo labels are cropped, and the target's contrast is taken from
            the target's part of the mixture.
        pseudo: Says how the teacher follows the network and how its labels are used, a mapping with ema_decay, ema_buffers,
            start, threshold, weight and alignment (segzoo.adaptation.PseudoLabels).
        mix_scope: Chooses of which classes half are pasted from source onto target images: those of each image, or of the
            whole batch and void too, as published.
        source_augmentation: Chooses the images of the source's own loss: weak as in DAFormer, or strong as in SePiCo.
        running_statistics: Chooses what batch norms keep for testing: target keeps the statistics of passes with target
            pixels; both, as published, mixes those of the synthetic images in.
        pixel_mean: Chooses what losses are the mean of: valid takes the labelled pixels, all, as published, takes all pixels
            and counts void ones as 0.
        night: Adds what SePiCo does for night images, a mapping with classes, weight, threshold, class_balance,
            test_class_balance and frequencies (segzoo.adaptation.Night); null leaves it out.
    """

    slug = "sepico"

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        network: Network | dict[str, Any] | None = None,
        optimizer: Optimizer | dict[str, Any] | None = None,
        loss: Loss | dict[str, Any] | None = None,
        speed: Speed | dict[str, Any] | None = None,
        contrast: Literal["proto", "bank", "dist"] = "dist",
        temperature: float = 100.0,
        contrast_weight: float = 1.0,
        contrast_start: float = 3000,
        regularizer_weight: float = -1.0,
        projection_input: Literal["last", "fuse"] = "fuse",
        projection_dim: int = 512,
        projection_hidden: int | None = None,
        bank_length: int = 200,
        unseen: Literal["drop", "keep"] = "drop",
        balanced_crop: bool = True,
        crop_share: float | None = None,
        fast: bool = False,
        pseudo: PseudoLabels = PseudoLabels(),  # noqa: B008 - frozen
        mix_scope: Literal["image", "batch"] = "image",
        source_augmentation: Literal["weak", "strong"] = "weak",
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
            mix_scope=mix_scope,
            source_augmentation=source_augmentation,
            running_statistics=running_statistics,
            pixel_mean=pixel_mean,
            night=night,
        )
        check_range("`method.temperature`", temperature, 1e-6)
        check_range("`method.crop_share`", 1.0 if crop_share is None else crop_share, 1e-6, 1)
        check_range("`method.bank_length`", bank_length, 1)
        check_range("`method.projection_dim`", projection_dim, 1)
        self.contrast, self.temperature, self.contrast_weight = contrast, temperature, contrast_weight
        self.contrast_start, self.fast = contrast_start, fast
        self.regularizer_weight, self.projection_input, self.unseen = regularizer_weight, projection_input, unseen
        self.balanced_crop, self.crop_share = balanced_crop, crop_share
        channels = selected_channels(self.segmenter.feature_channels, projection_input)
        self.projection = ProjectionHead(channels, projection_dim, projection_hidden)
        replace_norms(self.projection, self.network_options.norm)
        self.teacher = EmaTeacher(self.student(), self.pseudo.ema_decay, self.pseudo.ema_buffers)  # now of both
        self.statistics = ClassStatistics(self.num_classes, projection_dim)
        if contrast == "bank":
            self.bank = ClassBank(self.num_classes, projection_dim, bank_length, seed_zero=unseen == "keep")

    @property
    def streams(self) -> dict[str, Stream]:
        """As for self-training; the target comes whole where the crop is chosen here."""
        streams = super().streams
        return streams | {"target": replace(streams["target"], whole=self.balanced_crop)}

    @property
    def starts(self) -> dict[str, float]:
        """When the contrast begins."""
        return super().starts | {"contrast_start": self.contrast_start}

    def student(self) -> nn.ModuleDict:
        """Segmenter and projection, once there is one."""
        modules = super().student()
        return nn.ModuleDict({**modules, "projection": self.projection}) if "projection" in self._modules else modules

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """The projection learns as fast as the segmenter's head."""
        options = self.optimizer_options
        projection = parameter_group("projection", self.projection, options.head_lr, options.weight_decay)
        return [*super().optimizer_groups(), projection]

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Self-training, with the contrast on source and target."""
        source, target = batch["source"], batch["target"]
        self.update_teacher(batch_idx)
        cells = self.gather_concepts(source)

        terms, source_maps = self.source_terms(source)
        terms |= self.contrast_terms("source", self.projected(source_maps), cells)
        if not self.teaching:
            return self.total(terms)
        crops = self.balanced_crop
        view = self.cropped_view(target, source["label"].shape[-2:]) if crops else self.view(target)
        mixture = self.mix(source, view)
        mixed_terms, mixed_maps = self.mixed_terms(view, mixture)
        terms |= mixed_terms
        if self.contrasting:
            labels = view.labels.masked_fill(view.weights == 0, IGNORE_INDEX)
            if self.fast:
                target_maps, labels = mixed_maps, labels.masked_fill(mixture.mask, IGNORE_INDEX)
            else:
                target_maps = self.segmenter.features(self.augment(view.image))
            vectors = self.projected(target_maps)
            terms |= self.contrast_terms("target", vectors, self.cells(vectors, labels))
        return self.total(terms)

    @property
    def contrasting(self) -> bool:
        """Whether the contrast has begun."""
        return self.teaching and self.reached("contrast_start")

    # The target's crop

    def cropped_view(self, target: Batch, size: tuple[int, int]) -> View:
        """Target images, cropped to (height, width) by the balance of the teacher's labels."""
        images = [target["image"], *([target["reference"]] if self.uses_references else [])]
        labels, confidence = self.label(*images)
        box = crop_box(images[0].shape[-2:], size, self.crop_share)
        corners = class_balanced_crop(labels, box, self.image_generators("balanced crop", len(labels)))
        images = [crop(image, corners, box) for image in images]
        if box != size:
            images = [F.interpolate(image, size, mode="bilinear", align_corners=False) for image in images]
        if self.fast:
            labels, confidence = (
                F.interpolate(widest(crop(x, corners, box))[:, None], size, mode="nearest-exact")[:, 0].to(x.dtype)
                for x in (labels, confidence)
            )
        else:
            labels, confidence = self.label(*images)
        weights = self.pseudo_weights(confidence)
        reference = images[1] if self.uses_references else None
        return View(images[0], labels, confidence, weights, reference, target.get("name", ()))

    # Concepts and contrast

    @torch.no_grad()
    def gather_concepts(self, source: Batch) -> LabelledCells:
        """Adds the teacher's vectors of a source batch to the concepts; returns the cells that have a label."""
        maps = select_features(self.teacher_segmenter.features(source["image"]), self.projection_input)
        vectors = self.teacher.network["projection"](maps)
        cells = self.cells(vectors, source["label"])
        self.statistics.update(cells.of(vectors), cells.labels)
        if self.contrast == "bank":
            self.bank.update(cells.of(vectors), cells.labels)
        return cells

    def projected(self, maps: list[Tensor]) -> Tensor:
        """The student's vectors (B, A, h, w) of encoder maps."""
        vectors: Tensor = self.projection(select_features(maps, self.projection_input))
        return vectors

    def cells(self, vectors: Tensor, labels: Tensor) -> LabelledCells:
        """The cells of vectors (B, A, h, w) that have one of the labels (B, H, W)."""
        return labelled_cells(cell_labels(self.segmenter, labels, vectors.shape[-2:], self.num_classes))

    def contrast_terms(self, domain: str, vectors: Tensor, cells: LabelledCells) -> dict[str, Tensor]:
        """lambda_cl L_cl and lambda_reg L_reg of one domain, from the student's vectors and the cells that have a label."""
        queries, labels = cells.of(vectors), cells.labels
        count = pixel_count(torch.ones_like(labels, dtype=torch.bool))  # all of them have a label
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
        even = prototype_regularizer(whole[None], mean, t, seen)
        # Before it begins the projection takes part with weight 0: every process has gradients for all parameters.
        on = float(self.contrasting)
        return {
            f"{domain} contrast": on * self.contrast_weight * loss,
            f"{domain} regularizer": on * self.regularizer_weight * even,
        }
