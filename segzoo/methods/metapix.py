"""MetaPix (Jian & Gao, 2021, arXiv 2110.01777): source pixels weighted so that a step on them helps the target.

A weight network w = W_phi(x_s, y_s) weighs each source pixel. It learns from the target loss after one virtual step of the
segmenter on the weighted source loss:

    L_S(theta, phi) = (1/N) sum_i w_i l_i(theta),      l_i: loss of source pixel i
    theta'          = theta - alpha grad L_S(theta, phi)                       the virtual step
    phi            <- descend L_T(theta'(phi))                                 the meta objective
    theta          <- descend L_S(theta, stopgrad w) + L_T(theta)              the segmenter

    dL_T / dw_i = -(alpha/N) <grad l_i(theta), grad L_T(theta')>               a pixel gains weight iff it helps

`segzoo.bilevel` gives dL_T/dw exactly and without a second-order graph. All updates leave through one returned loss.
l_i and L_T are as in `segzoo.methods.joint`.
"""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from segzoo.bilevel import Engine, Hypergradient, attach_gradient
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.streams import Batch, Stream
from segzoo.methods.loss import Loss
from segzoo.methods.meta_update import Meta
from segzoo.methods.optimizer import Optimizer, parameter_group
from segzoo.methods.speed import Speed
from segzoo.methods.stages import StagedUpdate, Stages
from segzoo.models.network import Network
from segzoo.models.segmenter import Scope
from segzoo.models.state_dicts import load_part
from segzoo.models.weighting import ImageWeightNet, PixelWeightNet, WeightNorm
from segzoo.options import resolve


class MetaPix(StagedUpdate):
    """Pixel weights learned through a one-step bilevel update.

    Update orders, with the cost of a step in joint steps (forward 1, backward 2, forward-mode pass 2; joint is 6):

    * ``sequential`` (1.33): the virtual step is the source step; the target gradient at theta' serves both updates.
    * ``fused`` (1.83): as published on one pair of batches: the segmenter's target gradient is taken at theta.
    * ``paper`` (2.33): as published, the meta objective on fresh batches of its own. The published code alternates; here both
      updates of a step start from the same (theta, phi), so the segmenter sees weights that are one meta update older.

    In stages (`segzoo.methods.stages`) a step of the weights costs 1.33, one of the segmenter as much as a joint step.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
        weights: Chooses what gets a weight: every pixel, or every image as a whole.
        weight_width: Sets the number of channels of the weight network; 64 is published. The cost grows with its square.
        weight_stride: Sets the side in pixels of the squares that share one weight; 1 is published, 2 costs a quarter.
        weight_net_norm: Chooses the normalisation layers of the weight network: instance, as published, hides from it whether
            an image is bright or dull; group does not.
        weight_lr: Sets the constant learning rate of the weight network: 1e-4 suits the published 150,000 steps, 1e-3 some
            thousand steps, 1e-2 some hundred.
        weight_net_decay: Sets the weight decay of the weight network.
        normalize: Chooses how weights are normalised: mean1 divides them by their mean, so that only their ratios are learned;
            softmax does the same with the exponentials of the network's logits; none, as published, also lets the network scale
            the whole source loss.
        update: Chooses the virtual step, a look-ahead step on the weighted source after which the target loss judges the
            weights: sequential uses the network's own source step (the whole costs 1.33 joint steps); fused shares only its
            gradient (1.83); paper, as published, uses fresh batches (2.33).
        meta_every: Sets the number of steps from one update of the weight network to the next; more than 1 is cheaper.
        meta_start: Sets the first step that updates the weight network; before it, the untrained network gives the weights.
        held_out: Keeps this share of the labelled target images only for judging the weights, so that the network cannot
            overfit to them; it needs update fused or paper, or stages.
        stages: Trains the two networks in turn, as the published README describes; null trains both in every step. A mapping
            gives the lengths of the stages, in steps or in shares of the training: first joint (the network without weights),
            then weights (the network rests) and segmenter (the weights rest). Its key generations says how often the last two
            come, and lr_factor multiplies the network's learning rate in them.
        scope: Chooses the part of the network that the virtual step changes: all, as published, decoder (with the head) or
            head; a smaller part is cheaper.
        virtual: Chooses the virtual step: sgd, as published, or optimizer, exactly the step that the network's optimiser would
            take, with its state and the trainer's clipping by norm.
        virtual_lr: Sets the constant step size of a virtual step of sgd; null takes the learning rate.
        engine: Chooses how the derivative of the target loss with respect to the weights is computed: forward (exact and fast),
            double_backward (exact, for reference) or finite_difference (approximate).
        pixel_mean: Chooses the pixels over which the source loss is averaged: valid takes the labelled pixels; all, as
            published, takes all pixels and counts ignored ones as 0.
    """

    slug = "metapix"

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        network: Network | dict[str, Any] | None = None,
        optimizer: Optimizer | dict[str, Any] | None = None,
        loss: Loss | dict[str, Any] | None = None,
        speed: Speed | dict[str, Any] | None = None,
        weights: Literal["pixel", "image"] = "pixel",
        weight_width: int = 64,
        weight_stride: int = 1,
        weight_net_norm: WeightNorm = "instance",
        weight_lr: float = 1e-4,
        weight_net_decay: float = 1e-4,
        normalize: Literal["none", "mean1", "softmax"] = "mean1",
        update: Literal["sequential", "fused", "paper"] = "sequential",
        meta_every: int = 1,
        meta_start: int = 0,
        held_out: float = 0.0,
        stages: dict[str, float] | None = None,
        scope: Scope = "all",
        virtual: Literal["sgd", "optimizer"] = "sgd",
        virtual_lr: float | None = None,
        engine: Engine = "forward",
        pixel_mean: Literal["valid", "all"] = "valid",
    ) -> None:
        super().__init__(
            label_space=label_space,
            network=network,
            optimizer=optimizer,
            loss=loss,
            speed=speed,
            scope=scope,
            virtual=virtual,
            virtual_lr=virtual_lr,
            engine=engine,
            pixel_mean=pixel_mean,
        )
        self.update, self.normalize, self.held_out = update, normalize, held_out
        self.meta_every, self.meta_start = meta_every, meta_start
        self.weight_lr, self.weight_net_decay = weight_lr, weight_net_decay
        self.stages = None if stages is None else resolve(Stages, stages, "method.stages")
        self.check_combinations()
        self.per_image = weights == "image"
        net = ImageWeightNet if self.per_image else PixelWeightNet
        self.create_weighting = partial(net, self.num_classes, weight_width, weight_net_norm, weight_stride)
        self.weighting = self.create_weighting()
        start = self.network_options.initial_checkpoint
        if self.stages is not None and not self.stages.weights and start:
            load_part(self.weighting, Path(start), self.label_space.classes, "weighting")

    @property
    def streams(self) -> dict[str, Stream]:
        """Source and target; fresh batches for the meta objective with ``paper``, unseen target images with ``held_out``."""
        fit, held_out = (0.0, 1 - self.held_out), (1 - self.held_out, 1.0)
        streams = {"source": Stream("source"), "target": Stream("target", part=fit)}
        if self.update == "paper":
            streams["meta_source"] = Stream("source")
        if self.update == "paper" or self.held_out:
            streams["meta_target"] = Stream("target", part=held_out if self.held_out else fit)
        return streams

    @property
    def starts(self) -> dict[str, float]:
        """When the weight network begins to learn."""
        return {"meta_start": self.meta_start}

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """The segmenter's groups and one for the weight network, without schedule."""
        group = parameter_group("weighting", self.weighting, self.weight_lr, self.weight_net_decay, schedule=False)
        return [*super().optimizer_groups(), group]

    def panel_maps(self, batch: Batch) -> dict[str, Tensor]:
        """The weights of source images."""
        return {"weight": self.weights(batch)} if "label" in batch else {}

    # The three orders of a step

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """One update of theta and, every ``meta_every`` steps, of phi; one loss for both."""
        if self.trainer.accumulate_grad_batches == 1:
            # Lightning drops them after this method; until then they would lie beside g and v, as large as the network.
            self.zero_grad()
        if self.stages and self.is_meta_step():
            return self.weights_alone(batch)
        if not self.is_meta_step():
            # Zero gradients, dropped before the optimiser sees them: distributed training expects one per parameter.
            phi = list(self.weighting.parameters())
            resting = attach_gradient(torch.zeros((), device=self.device), phi, [torch.zeros_like(p) for p in phi])
            return self.total(self._joint_terms(batch)) + resting
        step = {"sequential": self.sequential, "fused": self.fused, "paper": self.paper}[self.update]
        return step(batch)

    def weights_alone(self, batch: dict[str, Batch]) -> Tensor:
        """The meta update while the segmenter rests: no gradient of its own, no running statistics."""
        meta, _, weights = self.meta_update(batch["source"], batch.get("meta_target", batch["target"]))
        self.log_weights(weights, batch["source"])
        return self._finish({"target": meta.target_loss}, meta)

    def sequential(self, batch: dict[str, Batch]) -> Tensor:
        """The source step is the virtual step: theta moves along g + v, with v = grad L_T at theta'."""
        meta, found, source_loss = self._look_ahead(batch["source"], batch["target"])
        loss = self._finish({"source": source_loss, "target": meta.target_loss}, meta)
        return loss + self._carry(loss, found)

    def fused(self, batch: dict[str, Batch]) -> Tensor:
        """The source step is the virtual step, but the target gradient of theta is its own, at theta."""
        target = batch["target"]
        meta, found, source_loss = self._look_ahead(batch["source"], batch.get("meta_target", target))
        target_loss = self.supervised(self(target["image"]), target["label"])
        loss = self._finish({"source": source_loss, "target": target_loss}, meta)
        return loss + self._carry(loss, found)

    def paper(self, batch: dict[str, Batch]) -> Tensor:
        """The meta objective looks ahead on batches of its own; the segmenter takes a joint step."""
        # First, as the virtual step moves theta and back, which a graph that waits for its backward pass must not see.
        meta = self.meta_update(batch["meta_source"], batch["meta_target"])[0]
        return self._finish(self._joint_terms(batch), meta)

    def _joint_terms(self, batch: dict[str, Batch]) -> dict[str, Tensor]:
        if self.in_stage("joint"):
            source = batch["source"]
            return self.weighted_terms(source["image"].new_ones(source["label"].shape), source, batch["target"])
        with torch.no_grad():
            weights = self.weights(batch["source"])
        self.log_weights(weights, batch["source"])
        return self.weighted_terms(weights, batch["source"], batch["target"])

    def _look_ahead(self, source: Batch, target: Batch) -> tuple[Meta, Hypergradient, Tensor]:
        """The meta update on the batches of the step, and L_S."""
        meta, found, weights = self.meta_update(source, target)
        self.log_weights(weights, source)
        return meta, found, (weights * found.pixel_losses).sum() / self.source_count(source["label"])

    def _carry(self, loss: Tensor, found: Hypergradient) -> Tensor:
        """A zero that carries the gradients which the meta update has computed already."""
        theta = self.theta
        moved = [theta[name] for name in found.gradient]
        return attach_gradient(torch.zeros_like(loss), moved, list(found.gradient.values()))

    def _finish(self, terms: dict[str, Tensor], meta: Meta) -> Tensor:
        """The loss of a step with a meta update; one check, and one wait for the device, for both."""
        # With a scaler (float16) an infinite gradient is no error: the scaler skips the step, this update with it.
        watched = {"meta": meta.target_loss} | ({} if self.scaler else {"meta gradient": meta.norm})
        means = self.check_finite(watched | terms)
        if self.logs_step:
            self.log("meta/target_loss", means["meta"])
        return self.log_sum(terms, means) + meta.carried
