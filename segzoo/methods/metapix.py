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
from torch.utils.checkpoint import checkpoint

from segzoo.bilevel import Hypergradient, attach_gradient, hypergradient, unrolled_hypergradient
from segzoo.data.streams import Batch, Stream
from segzoo.distributed import average_gradients, world_size
from segzoo.errors import ConfigError
from segzoo.losses import cross_entropy
from segzoo.methods.base import pixel_count, valid_pixels
from segzoo.methods.lookahead import split
from segzoo.methods.online import OnlineWeights
from segzoo.models.weighting import ImageWeightNet, PixelWeightNet, WeightNorm

# What the segmenter's own update takes over from the meta update; `paper` has batches of its own for it.
REUSE: dict[str, Literal["nothing", "g", "g + v"]] = {"sequential": "g + v", "fused": "g", "paper": "nothing"}


class MetaPix(OnlineWeights):
    """Pixel weights learned through a one-step bilevel update.

    Update orders, with the cost of a step in joint steps (forward 1, backward 2, forward-mode pass 2; joint is 6):

    * ``sequential`` (1.33): the virtual step is the source step; the target gradient at theta' serves both updates.
    * ``fused`` (1.83): as published on one pair of batches: the segmenter's target gradient is taken at theta.
    * ``paper`` (2.33): as published, the meta objective on fresh batches of its own. The published code alternates; here both
      updates of a step start from the same (theta, phi), so the segmenter sees weights that are one meta update older.

    Args:
        weights: pixel (U-Net), image (one weight per image), or online: no network, see `OnlineWeights`, at the cost of
            ``sequential``.
        weight_width: channels of the weight network; 64 as published.
        weight_stride: side of the squares of pixels that share a weight; 1 as published, 2 costs a quarter.
        weight_net_norm: instance as published, or group, which keeps differences of contrast between images.
        weight_lr: learning rate of the weight network; it follows no schedule.
        weight_decay_weights: weight decay of the weight network.
        update: sequential, fused or paper.
        unroll: number of virtual steps, each on a source batch of its own (paper, sgd).
        unroll_chain: exact, or first_order: without the curvature between the steps, which group norm does not offer.
        weight_norm: mean1: weights divided by their mean, so that only their ratios are learned; softmax: the same with the
            exponentials of the network's logits; none, as published: the network may also shrink or grow the source loss as
            a whole, which a constant could do.
        meta_every: update the weight network every so many steps.
        meta_start: first step that updates it; before, the weights are those of the untrained network.
        meta_split: share of the labelled target images that only the meta objective sees (fused and paper).
        micro_batches: parts in which a batch goes through the segmenter (sequential): the memory of a part and, with a norm
            that does not couple images, the result of the whole; batch norms track every part. (accumulate_grad_batches looks
            ahead from each part alone.)
        keep_outputs: the forward-mode pass takes up what large layers returned in the source pass before it, for the memory of
            these maps; without, or with micro_batches, which are there to save memory, it costs 3 instead of 2.
        kwargs: see `LookAheadTraining`; published: virtual sgd, scope all.
    """

    slug = "metapix"

    def __init__(
        self,
        *,
        weights: Literal["pixel", "image", "online"] = "pixel",
        weight_width: int = 64,
        weight_stride: int = 1,
        weight_net_norm: WeightNorm = "instance",
        weight_lr: float = 1e-3,
        weight_decay_weights: float = 1e-4,
        update: Literal["sequential", "fused", "paper"] = "sequential",
        unroll: int = 1,
        unroll_chain: Literal["exact", "first_order"] = "exact",
        weight_norm: Literal["none", "mean1", "softmax"] = "mean1",
        meta_every: int = 1,
        meta_start: int = 0,
        meta_split: float = 0.0,
        micro_batches: int = 1,
        keep_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        chosen = (update, unroll, weight_norm, meta_every, meta_start, meta_split, micro_batches)
        inherited = (self.virtual, self.engine, self.cuda_graph)
        plain = ("sequential", 1, "mean1", 1, 0, 0, 1), ("sgd", "forward", False)
        if weights == "online" and (chosen, inherited) != plain:
            raise ConfigError(
                "online weights are no network's: leave out update, unroll, weight_norm, meta_every, meta_start, meta_split, "
                "micro_batches, virtual, engine, cuda_graph"
            )
        if not 0 <= meta_split < 1 or meta_every < 1 or unroll < 1:
            raise ConfigError(
                "meta_split must be in [0, 1), meta_every and unroll at least 1, "
                f"found {meta_split}, {meta_every} and {unroll}"
            )
        if meta_split and update == "sequential":
            raise ConfigError(
                "a held-out meta split needs a target gradient of its own, which 'sequential' does not compute; "
                "use --method.update fused or paper, or --method.meta_split 0"
            )
        whole = update != "sequential" or meta_every > 1 or meta_start > 0
        if micro_batches < 1 or (micro_batches > 1 and whole):
            raise ConfigError(
                f"micro_batches {micro_batches}: a positive number, with --method.update sequential at every step; use "
                "--trainer.accumulate_grad_batches elsewhere"
            )
        if unroll > 1 and (update, self.virtual, self.engine, self.cuda_graph) != ("paper", "sgd", "forward", False):
            raise ConfigError(
                f"unroll {unroll}: several virtual steps need --method.update paper, --method.virtual sgd and "
                "--method.engine forward, without cuda_graph"
            )
        self.online = weights == "online"
        if not self.online:
            net = PixelWeightNet if weights == "pixel" else ImageWeightNet
            self.weighting = net(self.num_classes, weight_width, weight_net_norm, weight_stride)
        self.weight_lr, self.weight_decay_weights = weight_lr, weight_decay_weights
        self.update, self.unroll, self.unroll_chain, self.weight_norm = update, unroll, unroll_chain, weight_norm
        self.meta_every, self.meta_start, self.meta_split = meta_every, meta_start, meta_split
        self.micro_batches, self.keep_outputs = micro_batches, keep_outputs

    @property
    def streams(self) -> dict[str, Stream]:
        """Source and target; fresh batches for the meta objective with ``paper``, held-out ones with ``meta_split``."""
        fit, held_out = (0.0, 1 - self.meta_split), (1 - self.meta_split, 1.0)
        streams = {"source": Stream("source"), "target": Stream("target", part=fit)}
        if self.update == "paper":
            streams |= {name: Stream("source") for name in self._meta_sources}
        if self.update == "paper" or self.meta_split:
            streams["meta_target"] = Stream("target", part=held_out if self.meta_split else fit)
        return streams

    @property
    def starts(self) -> dict[str, int]:
        """When the weight network begins to learn."""
        return {"meta_start": self.meta_start}

    def setup(self, stage: str) -> None:
        """Refuses weights that can only be one.

        Raises:
            ConfigError: a weight per image, divided by its mean, with one image in a batch.
        """
        super().setup(stage)
        images = getattr(getattr(self.trainer, "datamodule", None), "batch_size", 2) * world_size()
        if stage == "fit" and self.hparams["weights"] == "image" and self.weight_norm != "none" and images == 1:
            raise ConfigError(
                "--method.weights image: the mean-one weight of a single image is always 1; use --data.batch_size 2 or more, "
                "or --method.weight_norm none"
            )

    def weights(self, source: Batch, logits: Tensor | None = None) -> Tensor:
        """Weights (B, H, W) of a source batch as the segmenter sees them, i.e. after normalisation."""
        return self._normalise(self._raw_weights(source), source["label"])[0]

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """The segmenter's group and one for the weight network, without schedule."""
        groups = super().optimizer_groups()
        if not self.online:
            decay = self.weight_decay_weights
            groups.append(self.group("weighting", self.weighting, self.weight_lr, decay, schedule=False))
        return groups

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """One update of theta and, every ``meta_every`` steps, of phi; one loss for both."""
        if self.trainer.accumulate_grad_batches == 1:
            # Lightning drops them after this method; until then they would lie beside g and v, as large as the network.
            self.zero_grad()
        if self.online:
            return self.online_step(batch["source"], batch["target"], self.keep_outputs)
        if not self._is_meta_step():
            # Zero gradients, dropped before the optimiser sees them: distributed training expects one per parameter.
            phi = list(self.weighting.parameters())
            joint = super().training_step(batch, batch_idx)
            return joint + attach_gradient(torch.zeros_like(joint), phi, [torch.zeros_like(p) for p in phi])
        if self.update == "paper":
            # First, as the virtual step moves theta and back, which a graph that waits for its backward pass must not see.
            if self.unroll > 1:
                meta = self._unrolled_update(batch)
            else:
                meta = self._meta_update(batch["meta_source"], batch["meta_target"])[0]
            return super().training_step(batch, batch_idx) + meta

        source, target = batch["source"], batch["target"]
        meta, hyper, weights = self._meta_update(source, batch.get("meta_target", target))
        self.log_weights(weights, source["label"])
        source_loss = (weights * hyper.pixel_losses).sum() / self.source_count(source["label"])
        target_loss = hyper.target_loss
        if self.update == "fused":
            count = pixel_count(valid_pixels(target["label"]))
            target_loss = cross_entropy(self(target["image"]), target["label"], count)
        loss = self.total({"source": source_loss, "target": target_loss})
        theta = self.theta
        moved = [theta[name] for name in hyper.gradient]
        return loss + meta + attach_gradient(torch.zeros_like(loss), moved, list(hyper.gradient.values()))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Between meta updates phi rests: without gradients the optimiser leaves it and its momentum alone."""
        if not self.online and not self._is_meta_step():
            for p in self.weighting.parameters():
                p.grad = None

    @property
    def _meta_sources(self) -> list[str]:
        return ["meta_source", *(f"meta_source_{k}" for k in range(2, self.unroll + 1))]

    def _is_meta_step(self) -> bool:
        since = self.global_step - self.meta_start
        return since >= 0 and since % self.meta_every == 0

    def _meta_update(self, source: Batch, target: Batch) -> tuple[Tensor, Hypergradient, Tensor]:
        """A zero that carries dL_T(theta')/dphi, what was computed on the way, and the weights."""
        compute = self.captured(self._meta_gradient, seeds=2 * self.micro_batches)
        hyper, weights, slopes = compute(source["image"], source["label"], target["image"], target["label"])
        return self._attach(slopes, hyper.target_loss), hyper, weights

    def _meta_gradient(self, *tensors: Tensor) -> tuple[Hypergradient, Tensor, list[Tensor]]:
        """Of images and labels of source and target: dL_T(theta')/dw and what was computed on the way, w, and dL_T/dphi."""
        source, target = ({"image": image, "label": label} for image, label in (tensors[:2], tensors[2:]))
        raw = self._raw_weights(source)
        weights, pull_back = self._normalise(raw, source["label"])
        reach, parts, track = self.reach, self.micro_batches, self.update == "sequential"
        count = pixel_count(valid_pixels(target["label"]))
        hyper = hypergradient(
            self.segmenter,
            [self.source_pass(part) for part in split(source, parts)],
            [self.target_pass(part, track, count) for part in split(target, parts)],
            reach if self.update == "paper" else self.theta,
            weights,
            self.source_count(source["label"]),
            self.virtual_step(reach),
            self.engine,
            average_gradients,
            scope=reach,
            reuse=REUSE[self.update],
            keep=self.keep_outputs and parts == 1,
            scale=self.loss_scale if self.scaler else None,
        )
        return hyper, weights, self._pull_back([raw], [pull_back(hyper.weights)])

    def _unrolled_update(self, batch: dict[str, Batch]) -> Tensor:
        """A zero that carries dL_T(theta_K)/dphi, after K virtual steps."""
        if self.scaler:
            raise ConfigError("unroll: several virtual steps need --trainer.precision 32 or bf16-mixed, not float16")
        sources = [batch[name] for name in self._meta_sources]
        raw = [self._raw_weights(source) for source in sources]
        normalised = [self._normalise(one, source["label"]) for one, source in zip(raw, sources, strict=True)]
        result = unrolled_hypergradient(
            [self.source_pass(source) for source in sources],
            self.target_pass(batch["meta_target"], track=False),
            self.reach,
            [weights for weights, _ in normalised],
            [self.source_count(source["label"]) for source in sources],
            self.virtual_lr,
            self.unroll_chain == "exact",
            average_gradients,
        )
        gradients = [pull_back(g) for (_, pull_back), g in zip(normalised, result.weights, strict=True)]
        return self._attach(self._pull_back(raw, gradients), result.target_loss)

    def _pull_back(self, raw: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """From the gradients of the network's outputs to those of phi."""
        scale = self.loss_scale
        phi = torch.autograd.grad(raw, list(self.weighting.parameters()), [scale * gradient for gradient in gradients])
        return list(phi) if scale == 1.0 else [g / scale for g in phi]

    def _attach(self, gradients: list[Tensor], target_loss: Tensor) -> Tensor:
        norm = torch.nn.utils.get_total_norm(gradients)
        # With a scaler (float16) an infinite gradient is no error: the scaler skips the step, this update with it.
        means = self.check_finite({"meta": target_loss} | ({} if self.scaler else {"meta gradient": norm}))
        if self.logs_step:
            whole = average_gradients({str(k): g for k, g in enumerate(gradients)})
            norm = torch.nn.utils.get_total_norm(list(whole.values()))
            self.log_dict({"meta/target_loss": means["meta"], "meta/gradient_norm": norm})
        return attach_gradient(target_loss.new_zeros(()), list(self.weighting.parameters()), gradients)

    def _raw_weights(self, source: Batch) -> Tensor:
        image, label = source["image"], source["label"]
        # Its activations are computed twice, rather than kept through all passes of the segmenter.
        weights: Tensor = checkpoint(self.weighting, image, label, use_reentrant=False, preserve_rng_state=False)
        # The network ends in a sigmoid; the odds are the exponential of its logit.
        return weights / (1 - weights).clamp_min(1e-6) if self.weight_norm == "softmax" else weights

    def _normalise(self, raw: Tensor, label: Tensor) -> tuple[Tensor, Any]:
        if self.weight_norm == "none":
            return raw.detach(), lambda gradient: gradient
        return self.to_mean_one(raw, label)
