"""Semi-supervised learning without synthetic images: the control for every use of a source.

A few labelled photographs and many unlabelled ones. FixMatch's weak-to-strong consistency (Sohn et al., NeurIPS 2020) in the
form that it has for segmentation, UniMatch V2 (Yang et al., 2024): the moving average of the network labels weakly augmented
images, and the network learns from strongly augmented ones whose boxes show other images of the batch (CutMix):

    L = CE(f(x_l), y_l) + (1/N) sum_i [max p_T >= tau]_i CE(f(strong(cutmix(x_u))), y_T)_i

Who asks whether synthetic images are worth their trouble compares with this: unlabelled photographs alone help, too.
"""

from typing import Any

import torch
from torch import Tensor

from segzoo.adaptation import Mixture, PseudoLabels, View, cut_mix, paste
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.streams import Batch
from segzoo.distributed import previous_in_batch
from segzoo.methods.loss import Loss
from segzoo.methods.mean_teacher import MeanTeacher
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.speed import Speed
from segzoo.models.network import Network
from segzoo.nonblocking import sent


class SemiSupervised(MeanTeacher):
    """Few labelled and many unlabelled target images, and no source.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
        pseudo: Says how the teacher follows the network and how its labels are used, a mapping with ema_decay, ema_buffers,
            start, threshold, weight and alignment (segzoo.adaptation.PseudoLabels).
        masked: Sets how much a further loss counts on unlabelled images with masked blocks, whose content has to be told from
            what is around; 0 leaves it and its pass out.
    """

    slug = "semi-supervised"
    resources = ("labels", "unlabelled")

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
    ) -> None:
        super().__init__(
            label_space=label_space,
            network=network,
            optimizer=optimizer,
            loss=loss,
            speed=speed,
            pseudo=pseudo,
            masked=masked,
        )

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Supervised on the labelled images, by pseudo labels on the others."""
        self.update_teacher(batch_idx)
        labelled = batch["target"]
        terms = {"target": self.supervised(self(labelled["image"]), labelled["label"])}
        if self.teaching:
            view = self.view(batch["unlabelled"])
            mixed_terms, _ = self.mixed_terms(view, self.mix(view))
            terms |= mixed_terms
        return self.total(terms)

    def mix(self, view: View) -> Mixture:
        """CutMix: a box of every image shows another one of the whole batch, with its labels."""
        drawn = cut_mix(view.image.shape[-2:], self.image_generators("cut mix", len(view.image)))
        box = sent(drawn, view.image.device)
        image, labels, weights = (paste(box, previous_in_batch(x), x) for x in (view.image, view.labels, view.weights))
        return Mixture(image, labels, weights, mask=torch.zeros_like(box))
