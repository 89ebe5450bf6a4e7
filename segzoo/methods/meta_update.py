"""How a weight network learns through a virtual step of the segmenter: the meta update of MetaPix.

    dL_T(theta')/dphi = sum_i dL_T/dw_i dw_i/dphi,      dL_T/dw_i = -(alpha/N) <grad l_i(theta), grad L_T(theta')>

The first factor comes from `segzoo.bilevel`, the second from a backward pass through the weight network and the normalisation.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segzoo.bilevel import (
    CaptureError,
    Graphed,
    Hypergradient,
    any_seed,
    attach_gradient,
    hypergradient,
)
from segzoo.checks import check_range
from segzoo.compat.training import reduce_gradients
from segzoo.data.streams import Batch
from segzoo.distributed import average_gradients, max_across_ranks, world_size
from segzoo.errors import ConfigError
from segzoo.methods.lookahead import LookAheadTraining, split
from segzoo.methods.segmentation import pixel_count, valid_pixels

# What the segmenter's own update takes over from the meta update; `paper` has batches of its own for it.
Reuse = Literal["nothing", "g", "g + v"]
REUSE: dict[str, Reuse] = {"sequential": "g + v", "fused": "g", "paper": "nothing"}


class Meta(NamedTuple):
    """What a meta update leaves to the step.

    Attributes:
        carried: a zero whose gradient in phi is dL_T(theta')/dphi.
        target_loss: L_T(theta').
        norm: that of the gradient in phi, on this rank.
    """

    carried: Tensor
    target_loss: Tensor
    norm: Tensor


class MetaUpdate(LookAheadTraining):
    """The update of ``weighting``, a network that weighs source pixels by image and label.

    Attributes:
        weighting: phi.
        update: the order of the updates, which decides what the segmenter takes over.
        normalize: what is done with the network's weights.
        meta_every: steps between two updates.
        meta_start: the first step with one.
        held_out: share of the target images that only the meta objective sees.
        per_image: whether all pixels of an image have one weight.
        stages: those of a training in which one of the networks rests; None where there are none.
    """

    SPEED: ClassVar[tuple[str, ...]] = (*LookAheadTraining.SPEED, "cuda_graph", "micro_batches")
    weighting: nn.Module
    update: Literal["sequential", "fused", "paper"]
    normalize: Literal["none", "mean1", "softmax"]
    meta_every: int
    meta_start: int
    held_out: float
    per_image: bool
    stages: object | None
    _captures = False
    _captured: Graphed[Any] | None = None

    def weights(self, source: Batch) -> Tensor:
        """Weights (B, H, W) of a source batch as the segmenter sees them, i.e. after normalisation."""
        return self._normalise(self._raw_weights(source), source["label"])[0]

    def on_train_start(self) -> None:
        """Begins without a captured graph: parameters may lie elsewhere than in an earlier run.

        Raises:
            ConfigError: ``speed.cuda_graph`` true where nothing can be captured.
        """
        self._captured = None
        several = world_size() > 1
        possible = self.device.type == "cuda" and not self.scaler and not (several and dist.get_backend() != "nccl")
        if self.speed.cuda_graph is True and not possible:
            raise ConfigError(
                "`speed.cuda_graph` true needs a GPU for every process and `trainer.precision` 32 or bf16-mixed; leave it out, "
                "or use `trainer.accelerator` gpu"
            )
        # By itself not with several processes: where one fails to capture, the others would wait for it.
        wanted = self.speed.cuda_graph is True or (self.speed.cuda_graph == "auto" and not several)
        self._captures = wanted and possible and not self._why_not_captured()

    def on_train_end(self) -> None:
        """Gives the memory of the captured graph back."""
        if self._captured is not None:
            self._captured.release()
        self._captured = None

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Where all gradients of the step will be means over the ranks already, DDP does not average them once more."""
        super().on_train_batch_start(batch, batch_idx)
        reduce_gradients(self.trainer, not self._averages_all())

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """What follows finds DDP as usual."""
        reduce_gradients(self.trainer, True)

    def _averages_all(self) -> bool:
        # A sequential step carries g + v, whose means the virtual step needed, and the gradient in phi, which is small.
        return world_size() > 1 and self.update == "sequential" and self.is_meta_step()

    def meta_update(self, source: Batch, target: Batch) -> tuple[Meta, Hypergradient, Tensor]:
        """One look ahead: what it leaves to the step, what was computed on the way, and the weights (B, H, W)."""
        tensors = source["image"], source["label"], target["image"], target["label"]
        done = self._captured_gradient(*tensors) if self._captures else None
        found, weights, slopes = done or self._meta_gradient(*tensors)
        return self._attach(slopes, found.target_loss), found, weights

    def _captured_gradient(self, *tensors: Tensor) -> tuple[Hypergradient, Tensor, list[Tensor]] | None:
        """`_meta_gradient` as a CUDA graph; None where that was not demanded and failed, which it is not tried again after."""
        self._captured = self._captured or Graphed(self._meta_gradient, any_seed, 2 * self.speed.micro_batches)
        try:
            return self._captured(*tensors)
        except (CaptureError, torch.OutOfMemoryError) as error:
            # What was not captured yet ran out of memory as usual.
            if self.speed.cuda_graph is True or not self._captured.failed:
                raise
            reason = " ".join(str(error).split())[:300]
        rank_zero_warn(f"`speed.cuda_graph` auto: goes on without a CUDA graph. {reason}")
        self._captures, self._captured = False, None
        return None

    def _meta_gradient(self, *tensors: Tensor) -> tuple[Hypergradient, Tensor, list[Tensor]]:
        """Of images and labels of source and target: dL_T(theta')/dw and what was computed on the way, w, and dL_T/dphi."""
        source, target = ({"image": image, "label": label} for image, label in (tensors[:2], tensors[2:]))
        raw = self._raw_weights(source)
        weights, pull_back = self._normalise(raw, source["label"])
        reach, parts = self.reach, self.speed.micro_batches
        reuse: Reuse = "nothing" if self.stages else REUSE[self.update]  # the segmenter rests where the weights learn
        track = reuse == "g + v"
        count = pixel_count(valid_pixels(target["label"]))
        found = hypergradient(
            self.segmenter,
            [self.source_pass(part) for part in split(source, parts)],
            [self.target_pass(part, track, count) for part in split(target, parts)],
            reach if reuse == "nothing" else self.theta,
            weights,
            self.source_count(source["label"]),
            self.virtual_step(reach),
            self.engine,
            average_gradients,
            scope=reach,
            reuse=reuse,
            keep=self.speed.keep_outputs and parts == 1,
            scale=self.loss_scale if self.scaler else None,
        )
        # From the gradient of the network's outputs to that of phi.
        scale = self.loss_scale
        phi = torch.autograd.grad(raw, list(self.weighting.parameters()), scale * pull_back(found.weights))
        return found, weights, list(phi) if scale == 1.0 else [g / scale for g in phi]

    def _attach(self, gradients: list[Tensor], target_loss: Tensor) -> Meta:
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.logs_step or self._averages_all():
            whole = list(average_gradients({str(k): g for k, g in enumerate(gradients)}).values())
            if self.logs_step:
                self.log("meta/gradient_norm", torch.nn.utils.get_total_norm(whole))
            gradients = whole if self._averages_all() else gradients
        carried = attach_gradient(target_loss.new_zeros(()), list(self.weighting.parameters()), gradients)
        return Meta(carried, target_loss, norm)

    def _raw_weights(self, source: Batch) -> Tensor:
        image, label = source["image"], source["label"]
        # Its activations are computed twice, rather than kept through all passes of the segmenter.
        softmax = self.normalize == "softmax"
        raw: Tensor = checkpoint(self.weighting, image, label, softmax, use_reentrant=False, preserve_rng_state=False)
        if not softmax:
            return raw
        # What is subtracted cancels in the division by the mean, and keeps the exponential finite.
        most = raw.detach().amax()
        return (raw - (max_across_ranks(most) if self.training else most)).exp()

    def _normalise(self, raw: Tensor, label: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        if self.normalize == "none":
            return raw.detach(), lambda gradient: gradient
        return self.to_mean_one(raw, label)

    # When phi rests, and what does not go together

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Between meta updates phi rests: without gradients the optimiser leaves it and its momentum alone."""
        super().on_before_optimizer_step(optimizer)
        if not self.is_meta_step():
            for p in self.weighting.parameters():
                p.grad = None

    def setup(self, stage: str) -> None:
        """Refuses weights that can only be one.

        Raises:
            ConfigError: a weight per image, divided by its mean, with one image in a batch.
        """
        super().setup(stage)
        images = getattr(getattr(self.trainer, "datamodule", None), "batch_size", 2) * world_size()
        if stage == "fit" and self.per_image and self.normalize != "none" and images == 1:
            raise ConfigError(
                "`method.weights` image: the mean-one weight of a single image is always 1; use `data.batch_size` 2 or more, "
                "or `method.normalize` none"
            )

    def is_meta_step(self) -> bool:
        """Whether phi learns in this step."""
        since = self.global_step - self.meta_start
        return since >= 0 and since % self.meta_every == 0

    def check_combinations(self) -> None:
        """Refuses options that do not go together.

        Raises:
            ConfigError: such ones, or a number outside its range.
        """
        check_range("`method.held_out`", self.held_out, 0, 0.99)
        check_range("`method.meta_every`", self.meta_every, 1)
        speed = self.speed
        if speed.cuda_graph is True and (reason := self._why_not_captured()):
            raise ConfigError(f"`speed.cuda_graph` true: {reason}; or set it to auto")
        if self.held_out and self.update == "sequential" and not self.stages:
            raise ConfigError(
                "`method.held_out` needs a target gradient of its own, which 'sequential' does not compute; use "
                "`method.update` fused or paper, or `method.held_out` 0"
            )
        check_range("`speed.micro_batches`", speed.micro_batches, 1)
        if self.loss.overlap != "none" and speed.micro_batches > 1:
            raise ConfigError(
                f"`loss.overlap` {self.loss.overlap} needs the whole batch; leave out `speed.micro_batches`, or set it to none"
            )
        if speed.micro_batches > 1 and (self.update != "sequential" or self.meta_every > 1 or self.meta_start > 0):
            raise ConfigError(
                "`speed.micro_batches` needs `method.update` sequential at every step; use `trainer.accumulate_grad_batches` "
                "elsewhere"
            )

    def _why_not_captured(self) -> str:
        """What the options have that no CUDA graph can hold, as an instruction; empty if nothing."""
        if (self.virtual, self.engine) != ("sgd", "forward") or self.speed.compile:
            return "captured are `method.virtual` sgd and `method.engine` forward; leave out `speed.compile`"
        return ""
