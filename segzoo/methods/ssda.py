"""Semi-supervised domain adaptation: synthetic images, a few labelled photographs and many unlabelled ones at once.

Self-training (`segzoo.methods.self_training`) whose network also learns from the labelled target images, and whose mixtures
take the classes that are pasted from them as often as from the source:

    L = CE(f(x_s), y_s) + CE(f(x_l), y_l) + (1/N) sum_i q_m,i CE(f(aug(x_m)), y_m)_i
    x_m = M x_d + (1-M) x_u,     d = s or l, each with probability 1/2

Few labels do little for a network and much for its teacher: they show the classes as the camera sees them.
"""

from typing import Any

import torch
from torch import Tensor

from segzoo.adaptation import PseudoLabels
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.streams import Batch, Stream
from segzoo.methods.loss import Loss
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.self_training import SelfTraining
from segzoo.methods.speed import Speed
from segzoo.models.network import Network
from segzoo.nonblocking import sent


class SSDA(SelfTraining):
    """Self-training with all three resources.

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
    """

    slug = "ssda"
    pasted_from = "donor"
    resources = ("source", "labels", "unlabelled")

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
    ) -> None:
        super().__init__(
            label_space=label_space,
            network=network,
            optimizer=optimizer,
            loss=loss,
            speed=speed,
            pseudo=pseudo,
            masked=masked,
            fourier=fourier,
        )

    @property
    def streams(self) -> dict[str, Stream]:
        """Source images drawn by class, the labelled target images, and the others without labels."""
        unlabelled = Stream("target", labelled=False)
        return {"source": Stream("source", by_class=True), "target": Stream("target"), "unlabelled": unlabelled}

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Supervised on source and labelled target, by pseudo labels on the mixture."""
        self.update_teacher(batch_idx)
        labelled, unlabelled = batch["target"], batch["unlabelled"]
        source = self.restyled(batch["source"], unlabelled)
        terms, _ = self.source_terms(source)
        terms["target"] = self.supervised(self(labelled["image"]), labelled["label"])
        if self.teaching:
            view = self.view(unlabelled)
            mixed_terms, _ = self.mixed_terms(view, self.mix(self.donors(source, labelled), view))
            terms |= mixed_terms
        return self.total(terms)

    def donors(self, source: Batch, labelled: Batch) -> Batch:
        """The labelled images whose classes are pasted: of either domain, by a coin for every image of the batch."""
        coins = [float(torch.rand((), generator=g)) < 0.5 for g in self.image_generators("donor", len(source["image"]))]
        chosen = sent(torch.tensor(coins), source["image"].device)
        image = torch.where(chosen[:, None, None, None], source["image"], labelled["image"])
        label = torch.where(chosen[:, None, None], source["label"], labelled["label"])
        names = zip(coins, source.get("name", ()), labelled.get("name", ()), strict=False)
        return {"image": image, "label": label, "name": [one if coin else other for coin, one, other in names]}
