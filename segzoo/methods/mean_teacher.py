"""What methods share whose network learns from labels that its own moving average gives to unlabelled images.

    theta_T <- a theta_T + (1 - a) theta,     a = min(1 - 1/(t+1), 0.999)                      teacher
    y_i = argmax p_T(x)_i,     q = share of the batch's pixels with max p_T >= 0.968           pseudo labels, one weight
    L_u = (1/N) sum_i q_i CE(f(strong(x))_i, y_i)

The network sees the images strongly augmented and mixed with others, the teacher as they are. With alignment the teacher's
probabilities have the class shares of the true labels (`segzoo.adaptation.alignment`).

CE is the loss per pixel that the section ``loss`` says. On true labels it may have a loss of areas beside it, on pseudo labels,
whose pixels have weights, not.
"""

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segzoo.adaptation import (
    DistributionAlignment,
    EmaTeacher,
    Mixture,
    PseudoLabels,
    View,
    mask_blocks,
    pseudo_label_weights,
    pseudo_labels,
    strong_augment,
)
from segzoo.checks import check_range
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.streams import Batch
from segzoo.errors import ConfigError
from segzoo.losses import log_softmax
from segzoo.methods.loss import Loss, counted_shares
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.speed import Speed
from segzoo.methods.teacher_scores import ScoredTeacher
from segzoo.methods.unsupervised import UnsupervisedAdaptation
from segzoo.models.network import Network
from segzoo.options import resolve

MASKED_SHARE, MASKED_BLOCK = 0.7, 1 / 16
"""Of masked images: the share without content, and the side of a block as a share of the longer side (MIC: 64 of 1024)."""


class MeanTeacher(UnsupervisedAdaptation, ScoredTeacher):
    """A network and the teacher that follows it; subclasses say what they learn from.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
        pseudo: Says how the teacher follows the network and how its labels are used.
        masked: Sets how much the loss on images with masked blocks counts, whose content has to be told from what is around.
        running_statistics: Chooses what batch norms keep for testing, see `UnsupervisedAdaptation`.
        pixel_mean: Chooses what losses are the mean of, see there.
    """

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
        check_range("`method.masked`", masked, 0)
        self.pseudo, self.masked = resolve(PseudoLabels, pseudo, "method.pseudo"), masked
        self.alignment = DistributionAlignment(self.num_classes, self.pseudo.alignment)
        self.teacher = EmaTeacher(self.student(), self.pseudo.ema_decay, self.pseudo.ema_buffers)
        self._seen: tuple[View, Mixture, Tensor] | None = None

    @property
    def starts(self) -> dict[str, float]:
        """When pseudo labels begin to count."""
        return {"pseudo.start": self.pseudo.start}

    @property
    def teaching(self) -> bool:
        """Whether pseudo labels count yet."""
        return self.reached("pseudo.start")

    def _set_up_training(self) -> None:
        super()._set_up_training()
        shares = counted_shares(self.trainer, ["labels" if "labels" in self.resources else "source"])
        if shares is not None:
            self.alignment.prior.copy_(torch.tensor(shares))
        elif self.pseudo.alignment:
            raise ConfigError(
                "`method.pseudo.alignment` needs the class shares of the true labels, which segzoo's data modules count: use "
                "one (segzoo.data.from_folders), or leave the option at 0"
            )

    def beside_target(self) -> AbstractContextManager[None]:
        """See `UnsupervisedAdaptation`; while no target image passes, running statistics follow the source."""
        passes = self.teaching or "labels" in self.resources
        return super().beside_target() if passes else contextlib.nullcontext()

    def student(self) -> nn.ModuleDict:
        """What the teacher averages."""
        return nn.ModuleDict({"segmenter": self.segmenter})

    def update_teacher(self, batch_idx: int) -> None:
        """The teacher's step towards the segmenter, once per step of the optimiser."""
        if self.begins_step(batch_idx):
            self.teacher.update(self.student())

    # Labels

    def view(self, images: Batch) -> View:
        """Unlabelled images with the teacher's labels."""
        image, reference = images["image"], images.get("reference")
        labels, confidence = self.label(image, reference)
        return View(image, labels, confidence, self.pseudo_weights(confidence), reference, images.get("name", ()))

    @torch.no_grad()
    def label(self, image: Tensor, reference: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The teacher's labels of images and its confidence in them, both (B, H, W)."""
        logits = self.teacher_segmenter(image)
        if not self.pseudo.alignment:
            return pseudo_labels(logits)
        confidence, labels = self.alignment(log_softmax(logits).exp()).max(dim=1)
        return labels, confidence

    def pseudo_weights(self, confidence: Tensor) -> Tensor:
        """q, of every pixel (B, H, W)."""
        weights = pseudo_label_weights(confidence, self.pseudo.threshold, *self.ignored_rows, scheme=self.pseudo.weight)
        self.log_means({"pseudo/weight": weights.mean(), "pseudo/confidence": confidence.mean()})
        return weights

    # Losses

    def augment(self, image: Tensor) -> Tensor:
        """Colour jitter and blur; all calls of a step draw the same."""
        return strong_augment(image, self.generator("strong augmentation"))

    def mixed_terms(self, view: View, mixture: Mixture) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Weighted cross-entropy on the mixture and on masked images; and the encoder's maps of the mixture's pass."""
        logits, maps = self.segmenter.with_features(self.augment(mixture.image))
        self._seen = (view, mixture, logits.detach())
        terms = {"mixed": self.supervised(logits, mixture.label, mixture.weights)}
        if self.masked:
            image = self.augment(view.image)
            block = max(1, round(MASKED_BLOCK * max(image.shape[-2:])))
            masked = mask_blocks(image, self.image_generators("masked blocks", len(image)), block, MASKED_SHARE)
            terms["masked"] = self.masked * self.supervised(self(masked), view.labels, view.weights)
        return terms, maps

    # What is shown

    @property
    def class_shares(self) -> dict[str, Tensor]:
        """Shares (C,) of the classes in the true labels; pixels (C,) of the last step's pseudo labels and predictions."""
        if self._seen is None:
            return {}
        view, mixture, logits = self._seen
        counts = {"pseudo labels": view.labels, "predictions": logits.argmax(dim=1)[~mixture.mask]}
        # Pixels, not their shares: ranks hold different numbers of them, and it is the whole batch that is shown.
        shares = {name: torch.bincount(x.flatten(), minlength=self.num_classes).float() for name, x in counts.items()}
        return {"prior": self.alignment.prior} | shares

    @property
    def step_pictures(self) -> dict[str, Tensor]:
        """The images of the last step, by title."""
        if self._seen is None:
            return {}
        view, mixture, logits = self._seen
        pictures = {"target": view.image, "pseudo label": view.labels, "confidence": view.confidence}
        if view.reference is not None:
            pictures["reference"] = view.reference
        mixed = {"mixed": mixture.image, "mixed label": mixture.label, "prediction": logits.argmax(dim=1)}
        return pictures | mixed

    @property
    def step_names(self) -> dict[str, Sequence[str]]:
        """The names of the target images."""
        return {} if self._seen is None else {"target": self._seen[0].names}
