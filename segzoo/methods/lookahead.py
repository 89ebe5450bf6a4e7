"""What methods share that look where a step of the segmenter would lead: the passes, the virtual step, and its limits."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor

from segzoo.bilevel import ClippedStep, Engine, OptimizerStep, Replayed, SGDStep, VirtualStep, any_seed
from segzoo.checks import check_range
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.streams import Batch
from segzoo.errors import ConfigError
from segzoo.methods.joint import WeightedJointTraining
from segzoo.methods.loss import Loss
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.segmentation import pixel_count, valid_pixels
from segzoo.methods.speed import Speed
from segzoo.models.network import Network
from segzoo.models.segmenter import Scope
from segzoo.models.stems import as_source


class LookAheadTraining(WeightedJointTraining):
    """Weighted joint training that knows where one more step on the source would lead.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
        scope: Chooses the part of the segmenter that the virtual step moves.
        virtual: Chooses the step: sgd, or optimizer for that of the real one.
        virtual_lr: Sets the step size alpha of sgd; null takes the learning rate.
        engine: Chooses how the derivative is computed.
        pixel_mean: Chooses what the source loss is the mean of.
    """

    SPEED: ClassVar[tuple[str, ...]] = (*WeightedJointTraining.SPEED, "keep_outputs")

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        network: Network | dict[str, Any] | None = None,
        optimizer: Optimizer | dict[str, Any] | None = None,
        loss: Loss | dict[str, Any] | None = None,
        speed: Speed | dict[str, Any] | None = None,
        scope: Scope = "all",
        virtual: Literal["sgd", "optimizer"] = "sgd",
        virtual_lr: float | None = None,
        engine: Engine = "forward",
        pixel_mean: Literal["valid", "all"] = "valid",
    ) -> None:
        super().__init__(
            label_space=label_space, network=network, optimizer=optimizer, loss=loss, speed=speed, pixel_mean=pixel_mean
        )
        self.virtual, self.scope, self.engine = virtual, scope, engine
        # A virtual step reads the number of every parameter's steps, for which the host would wait.
        self.fuses = virtual == "sgd"
        if virtual_lr is not None:
            check_range("`method.virtual_lr`", virtual_lr, 1e-12)
        self.virtual_lr = self.optimizer_options.lr if virtual_lr is None else virtual_lr

    def setup(self, stage: str) -> None:
        """Refuses strategies that shard the parameters, of which a virtual step needs all, and what it does not look through.

        Raises:
            ConfigError: FSDP; clipping by value before a virtual optimiser's step; second-order graphs in float16.
        """
        if isinstance(self.trainer.strategy, FSDPStrategy | ModelParallelStrategy):
            raise ConfigError(
                f"`trainer.strategy`: {type(self.trainer.strategy).__name__} shards the parameters, and sharded parameters "
                "have no exact hypergradient; use ddp (in code, `segzoo.bilevel` has the engine 'finite_difference' for them)"
            )
        super().setup(stage)
        clips = self.trainer.gradient_clip_val and (self.trainer.gradient_clip_algorithm or "norm") != "norm"
        if clips and self.virtual == "optimizer":
            raise ConfigError(
                "`method.virtual` optimizer looks through clipping by norm alone; leave out `trainer.gradient_clip_algorithm`"
            )
        if self.scaler and self.engine == "double_backward":
            raise ConfigError("`method.engine` double_backward: use `trainer.precision` 32 or bf16-mixed, not float16")

    @property
    def theta(self) -> dict[str, torch.nn.Parameter]:
        """All trainable parameters of the segmenter by name."""
        return self.segmenter.parameters_of("all")

    @property
    def reach(self) -> dict[str, torch.nn.Parameter]:
        """Those of them that the virtual step moves."""
        return self.segmenter.parameters_of(self.scope)

    def source_pass(self, batch: Batch) -> Replayed:
        """The per-pixel losses l_i (B, H, W) of a batch as a function of theta; running statistics stay as they are."""
        label = batch["label"]
        loss = partial(self.pixel_losses, label=label)
        return Replayed(self.segmenter, batch["image"], loss, any_seed(), around=as_source)

    def target_pass(self, batch: Batch, track: bool, count: Tensor | None = None) -> Replayed:
        """L_T of a batch as a function of theta: of pixels, and of areas where `Loss` has one.

        Args:
            batch: or a part of it.
            track: update the running statistics.
            count: the pixels that L_T is the mean of; those of ``batch`` when None.
        """
        label = batch["label"]
        n = pixel_count(valid_pixels(label)) if count is None else count
        loss = partial(self.supervised, label=label, count=n)
        return Replayed(self.segmenter, batch["image"], loss, any_seed(), track)

    def virtual_step(self, params: Mapping[str, Tensor]) -> VirtualStep:
        """The step theta' = theta - S(g) for these parameters of the segmenter."""
        if self.virtual == "sgd":
            return SGDStep(self.virtual_lr)
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        step, clip = OptimizerStep(optimizer, params), self.trainer.gradient_clip_val
        return ClippedStep(step, clip) if clip else step


def split(batch: Batch, parts: int) -> list[Batch]:
    """Images and labels of a batch in ``parts`` batches of about the same size.

    Raises:
        ConfigError: there are more parts than images.
    """
    if parts > len(batch["image"]):
        raise ConfigError(f"`speed.micro_batches` {parts}: the batch has {len(batch['image'])} images")
    pairs = zip(batch["image"].chunk(parts), batch["label"].chunk(parts), strict=True)
    return [{"image": image, "label": label} for image, label in pairs]
