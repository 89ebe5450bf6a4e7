"""MetaPix (Jian & Gao, 2021, arXiv 2110.01777): source pixels weighted so that a step on them helps the target.

A weight network w = W_phi(x_s, y_s) weighs each source pixel. It learns from the target loss after one virtual step of the
segmenter on the weighted source loss:

    L_S(theta, phi) = (1/N) sum_i w_i l_i(theta),      l_i: cross-entropy of source pixel i
    theta'          = theta - alpha grad L_S(theta, phi)                       the virtual step
    phi            <- descend L_T(theta'(phi))                                 the meta objective
    theta          <- descend L_S(theta, stopgrad w) + L_T(theta)              the segmenter

    dL_T / dw_i = -(alpha/N) <grad l_i(theta), grad L_T(theta')>               a pixel gains weight iff it helps

`segzoo.bilevel` gives dL_T/dw exactly and without a second-order graph. All updates leave through one returned loss.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from segzoo.bilevel import (
    Engine,
    Hypergradient,
    OptimizerStep,
    Replayed,
    SGDStep,
    VirtualStep,
    attach_gradient,
    hypergradient,
)
from segzoo.bilevel.normalize import mean_one
from segzoo.data.streams import Batch, Stream
from segzoo.distributed import average_gradients, mean_across_ranks
from segzoo.errors import ConfigError
from segzoo.losses import cross_entropy, pixel_cross_entropy
from segzoo.methods.base import pixel_count, valid_pixels
from segzoo.methods.joint import WeightedJointTraining
from segzoo.models.weighting import ImageWeightNet, PixelWeightNet, WeightNorm


class MetaPix(WeightedJointTraining):
    """Pixel weights learned through a one-step bilevel update.

    Update orders, with the cost of a step in joint steps (forward 1, backward 2, forward-mode pass 3; joint is 6):

    * ``sequential`` (1.5): the virtual step is the source step; the target gradient at theta' serves both updates.
    * ``fused`` (2.0): as published on one pair of batches: the segmenter's target gradient is taken at theta.
    * ``paper`` (2.5): as published, the meta objective on fresh batches of its own. The published code alternates; here both
      updates of a step start from the same (theta, phi), so the segmenter sees weights that are one meta update older.

    Args:
        weights: pixel (U-Net) or image (one weight per image).
        weight_width: channels of the weight network; 64 as published.
        weight_net_norm: instance as published, or group, which keeps differences of contrast between images.
        weight_lr: learning rate of the weight network; it follows no schedule.
        weight_decay_weights: weight decay of the weight network.
        update: sequential, fused or paper.
        virtual: sgd as published, or optimizer: the step that the real optimiser would take, exact through its state.
        virtual_lr: step size alpha of ``sgd``; null for ``lr``. Constant: with a decaying alpha the meta objective fades while
            the weight network keeps its own learning rate.
        weight_norm: mean1: weights divided by their mean, so that only their ratios are learned; none, as published: the
            network may also shrink or grow the source loss as a whole, which a constant could do.
        meta_every: update the weight network every so many steps.
        meta_start: first step that updates it; before, the weights are those of the untrained network.
        meta_split: share of the labelled target images that only the meta objective sees (fused and paper).
        engine: forward (exact, fast), double_backward (exact, reference) or finite_difference (approximate).
        kwargs: see `WeightedJointTraining`.
    """

    slug = "metapix"

    def __init__(
        self,
        *,
        weights: Literal["pixel", "image"] = "pixel",
        weight_width: int = 64,
        weight_net_norm: WeightNorm = "instance",
        weight_lr: float = 1e-3,
        weight_decay_weights: float = 1e-4,
        update: Literal["sequential", "fused", "paper"] = "sequential",
        virtual: Literal["sgd", "optimizer"] = "sgd",
        virtual_lr: float | None = None,
        weight_norm: Literal["none", "mean1"] = "mean1",
        meta_every: int = 1,
        meta_start: int = 0,
        meta_split: float = 0.0,
        engine: Engine = "forward",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= meta_split < 1 or meta_every < 1:
            raise ConfigError(
                f"meta_split must be in [0, 1) and meta_every at least 1, found {meta_split} and {meta_every}"
            )
        if meta_split and update == "sequential":
            raise ConfigError(
                "a held-out meta split needs a target gradient of its own, which 'sequential' does not compute; "
                "use --method.update fused or paper, or --method.meta_split 0"
            )
        net = {"pixel": PixelWeightNet, "image": ImageWeightNet}[weights]
        self.weighting = net(self.num_classes, weight_width, weight_net_norm)
        self.weight_lr, self.weight_decay_weights = weight_lr, weight_decay_weights
        self.update, self.virtual, self.virtual_lr = update, virtual, virtual_lr
        self.weight_norm, self.engine = weight_norm, engine
        self.meta_every, self.meta_start, self.meta_split = meta_every, meta_start, meta_split

    @property
    def streams(self) -> dict[str, Stream]:
        """Source and target; fresh batches for the meta objective with ``paper``, held-out ones with ``meta_split``."""
        fit, held_out = (0.0, 1 - self.meta_split), (1 - self.meta_split, 1.0)
        streams = {"source": Stream("source"), "target": Stream("target", part=fit)}
        if self.update == "paper":
            streams["meta_source"] = Stream("source")
        if self.update == "paper" or self.meta_split:
            streams["meta_target"] = Stream("target", part=held_out if self.meta_split else fit)
        return streams

    def weights(self, source: Batch, logits: Tensor | None = None) -> Tensor:
        """Weights (B, H, W) of a source batch as the segmenter sees them, i.e. after normalisation."""
        return self._normalise(super().weights(source, logits), source["label"])[0]

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """The segmenter's group and one for the weight network, without schedule."""
        net = self.group("weighting", self.weighting, self.weight_lr, self.weight_decay_weights, schedule=False)
        return [*super().optimizer_groups(), net]

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """One update of theta and, every ``meta_every`` steps, of phi; one loss for both."""
        if not self._is_meta_step():
            # Zero gradients, dropped before the optimiser sees them: distributed training expects one per parameter.
            phi = list(self.weighting.parameters())
            joint = super().training_step(batch, batch_idx)
            return joint + attach_gradient(torch.zeros_like(joint), phi, [torch.zeros_like(p) for p in phi])

        if self.update == "paper":
            meta, *_ = self._meta_update(batch["meta_source"], batch["meta_target"])
            return super().training_step(batch, batch_idx) + meta

        source, target = batch["source"], batch["target"]
        meta, hyper, weights = self._meta_update(source, batch.get("meta_target", target))
        self.log_weights(weights, source["label"])
        source_loss = (weights * hyper.pixel_losses).sum() / self.source_count(source["label"])
        theta = self._theta()
        if self.update == "sequential":
            target_loss = hyper.target_loss
            gradient = [hyper.source[name] + hyper.target[name] for name in theta]
        else:
            count = pixel_count(valid_pixels(target["label"]))
            target_loss = cross_entropy(self(target["image"]), target["label"], count)
            gradient = list(hyper.source.values())
        loss = self.total({"source": source_loss, "target": target_loss})
        return loss + meta + attach_gradient(torch.zeros_like(loss), list(theta.values()), gradient)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Between meta updates phi rests: without gradients the optimiser leaves it and its momentum alone."""
        if not self._is_meta_step():
            for p in self.weighting.parameters():
                p.grad = None

    def _is_meta_step(self) -> bool:
        since = self.global_step - self.meta_start
        return since >= 0 and since % self.meta_every == 0

    def _meta_update(self, source: Batch, target: Batch) -> tuple[Tensor, Hypergradient, Tensor]:
        """A zero that carries dL_T(theta')/dphi, what was computed on the way, and the weights."""
        raw = super().weights(source)
        weights, pull_back = self._normalise(raw, source["label"])
        # One seed per batch: the virtual step and its derivative drop the same units.
        seeds = torch.randint(2**31, (2,)).tolist()
        target_count = pixel_count(valid_pixels(target["label"]))
        theta = self._theta()
        hyper = hypergradient(
            self.segmenter,
            Replayed(self.segmenter, source["image"], lambda z: pixel_cross_entropy(z, source["label"]), seeds[0]),
            Replayed(
                self.segmenter,
                target["image"],
                lambda z: cross_entropy(z, target["label"], target_count),
                seeds[1],
                track=self.update == "sequential",
            ),
            theta,
            weights,
            self.source_count(source["label"]),
            self._virtual_step(theta),
            self.engine,
            average_gradients,
        )
        self.check_finite({"meta": hyper.target_loss})
        self.log("meta/target_loss", hyper.target_loss)
        gradient = pull_back(hyper.weights)
        self.log("meta/gradient_norm", gradient.norm())
        return attach_gradient(hyper.target_loss.new_zeros(()), [raw], [gradient]), hyper, weights

    def _virtual_step(self, theta: dict[str, Tensor]) -> VirtualStep:
        if self.virtual == "sgd":
            return SGDStep(self.lr if self.virtual_lr is None else self.virtual_lr)
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return OptimizerStep(optimizer, theta)

    def _theta(self) -> dict[str, Tensor]:
        return {name: p for name, p in self.segmenter.named_parameters() if p.requires_grad}

    def _normalise(self, raw: Tensor, label: Tensor) -> tuple[Tensor, Any]:
        if self.weight_norm == "none":
            return raw.detach(), lambda gradient: gradient
        valid = valid_pixels(label)
        if not self.training:  # pictures are drawn by one rank alone: no collectives
            return mean_one(raw, valid, valid.sum().clamp_min(1), lambda value: value)
        return mean_one(raw, valid, pixel_count(valid), mean_across_ranks)
