"""Pixel weights from the slopes of the batch alone (Ren et al., "Learning to reweight examples", ICML 2018, arXiv 1803.09050).

A pixel weighs what a little more of it would help the target, before any virtual step is taken:

    w_i = relu(-dL_T(theta'(w)) / dw_i) at w = 0,     divided by their mean

At w = 0 the virtual step stays at theta, so that the target gradient there serves both the weights and the segmenter's update.
No network learns the weights, and nothing is remembered from one batch to the next.
l_i and L_T are as in `segzoo.methods.joint`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from segzoo.bilevel import Kept, attach_gradient, pixel_jvp
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.streams import Batch
from segzoo.distributed import average_gradients
from segzoo.methods.lookahead import LookAheadTraining
from segzoo.methods.loss import Loss
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.speed import Speed
from segzoo.models.network import Network
from segzoo.models.segmenter import Scope


class Reweight(LookAheadTraining):
    """Source pixels weighted anew in every batch by how much they help the labelled target images.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
        scope: Chooses the part of the network whose gradients decide the weights: all, decoder (with the head) or head; less is
            cheaper.
        pixel_mean: Chooses what the source loss is the mean of: valid takes the labelled pixels, all takes all pixels and
            counts void ones as 0.
    """

    slug = "reweight"

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        network: Network | dict[str, Any] | None = None,
        optimizer: Optimizer | dict[str, Any] | None = None,
        loss: Loss | dict[str, Any] | None = None,
        speed: Speed | dict[str, Any] | None = None,
        scope: Scope = "all",
        pixel_mean: Literal["valid", "all"] = "valid",
    ) -> None:
        super().__init__(
            label_space=label_space,
            network=network,
            optimizer=optimizer,
            loss=loss,
            speed=speed,
            scope=scope,
            pixel_mean=pixel_mean,
        )
        self._seen: tuple[Batch, Tensor] | None = None

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """One step on the weighted source and the target."""
        if self.trainer.accumulate_grad_batches == 1:
            # Lightning drops them after this method; until then they would lie beside v, as large as the network.
            self.zero_grad()
        source, theta = batch["source"], self.theta
        target_loss, scale = self.target_pass(batch["target"], track=True)(), self.loss_scale
        v = torch.autograd.grad(scale * target_loss, list(theta.values()), allow_unused=True, materialize_grads=True)
        mean = average_gradients({name: g / scale for name, g in zip(theta, v, strict=True)})
        direction = {name: mean[name] for name in self.reach}

        replayed = self.source_pass(source)
        source_pass = Kept(replayed, self.segmenter, self.reach) if self.speed.keep_outputs else replayed
        losses = source_pass()
        helps = pixel_jvp(source_pass, theta, direction)[1].relu()
        if self.scaler:  # an infinite v makes it skip the step; until then the loss has to stay finite
            helps = helps.nan_to_num(0, 0, 0)
        weights = self.to_mean_one(helps, source["label"])[0]
        self.log_weights(weights, source)
        self._seen = (source, weights)

        source_loss = (weights * losses).sum() / self.source_count(source["label"])
        loss = self.total({"source": source_loss, "target": target_loss.detach()})
        return loss + attach_gradient(torch.zeros_like(loss), list(theta.values()), list(mean.values()))

    @property
    def step_pictures(self) -> dict[str, Tensor]:
        """The source images of the last step and their weights, which are of that step alone."""
        if self._seen is None:
            return {}
        source, weights = self._seen
        return {"source": source["image"], "source label": source["label"], "weight": weights}

    @property
    def step_names(self) -> dict[str, Sequence[str]]:
        """The names of the source images."""
        return {} if self._seen is None else {"source": self._seen[0].get("name", ())}
