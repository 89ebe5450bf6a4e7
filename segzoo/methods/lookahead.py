"""What methods that look through a virtual step of the segmenter share: passes, the step, and what it can run on."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor

from segzoo.bilevel import ClippedStep, Engine, Graphed, OptimizerStep, Replayed, SGDStep, VirtualStep
from segzoo.data.streams import Batch
from segzoo.distributed import world_size
from segzoo.errors import ConfigError
from segzoo.losses import cross_entropy, pixel_cross_entropy
from segzoo.methods.base import any_seed, pixel_count, valid_pixels
from segzoo.methods.joint import WeightedJointTraining
from segzoo.models.segmenter import Scope

Result = TypeVar("Result")


class LookAheadTraining(WeightedJointTraining):
    """Weighted joint training that knows where one more step on the source would lead.

    Args:
        virtual: sgd, or optimizer: the step that the real optimiser would take, exact through its state and the trainer's
            gradient_clip_val (of the gradient in ``scope``; the trainer clips those of all networks together).
        virtual_lr: step size alpha of ``sgd``; null for ``lr``. Constant: with a decaying alpha the meta objective fades while
            the weight network keeps its own learning rate.
        scope: the part of the segmenter that the virtual step moves: all, decoder (with the head), or head. Less is cheaper.
        engine: forward (exact, fast), double_backward (exact, reference) or finite_difference (approximate).
        cuda_graph: capture the meta update as a CUDA graph in the third step, and launch it as a whole from then on: the same
            numbers without the time that Python takes to launch kernels, most of a step on a fast GPU. For one GPU, 32 or
            bf16-mixed, virtual sgd, engine forward, scope all; the memory of the meta update stays reserved.
        kwargs: see `WeightedJointTraining`.
    """

    def __init__(
        self,
        *,
        virtual: Literal["sgd", "optimizer"] = "sgd",
        virtual_lr: float | None = None,
        scope: Scope = "all",
        engine: Engine = "forward",
        cuda_graph: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if cuda_graph and (virtual, scope, engine, kwargs.get("compile", False)) != ("sgd", "all", "forward", False):
            raise ConfigError(
                "cuda_graph captures --method.virtual sgd, --method.scope all and --method.engine forward; leave out compile"
            )
        self.cuda_graph = cuda_graph
        self._captured: Graphed[Any] | None = None
        self.virtual, self.scope, self.engine = virtual, scope, engine
        if virtual_lr is not None and not virtual_lr > 0:
            raise ConfigError(f"--method.virtual_lr {virtual_lr}: expected above 0")
        self.virtual_lr = self.lr if virtual_lr is None else virtual_lr

    def setup(self, stage: str) -> None:
        """Refuses strategies that shard the parameters, of which a virtual step needs all, and what it does not look through.

        Raises:
            ConfigError: FSDP; clipping by value before a virtual optimiser's step; second-order graphs in float16.
        """
        if isinstance(self.trainer.strategy, FSDPStrategy | ModelParallelStrategy):
            raise ConfigError(
                f"--trainer.strategy: {type(self.trainer.strategy).__name__} shards the parameters, and sharded parameters "
                "have no exact hypergradient; use ddp (in code, `segzoo.bilevel` has the engine 'finite_difference' for them)"
            )
        super().setup(stage)
        clips = self.trainer.gradient_clip_val and (self.trainer.gradient_clip_algorithm or "norm") != "norm"
        if clips and self.virtual == "optimizer":
            raise ConfigError(
                "--method.virtual optimizer looks through clipping by norm alone; leave out --trainer.gradient_clip_algorithm"
            )
        if self.scaler and self.engine == "double_backward":
            raise ConfigError("--method.engine double_backward: use --trainer.precision 32 or bf16-mixed, not float16")

    def on_train_start(self) -> None:
        """Begins without a captured graph: parameters may lie elsewhere than in an earlier run.

        Raises:
            ConfigError: cuda_graph where nothing can be captured.
        """
        self._captured = None
        if self.cuda_graph and (self.device.type != "cuda" or world_size() > 1 or self.scaler):
            raise ConfigError(
                "cuda_graph needs one GPU and --trainer.precision 32 or bf16-mixed; leave it out, or use "
                "--trainer.accelerator gpu --trainer.devices 1"
            )

    def on_train_end(self) -> None:
        """Gives the memory of the captured graph back."""
        self._captured = None

    def captured(self, compute: Callable[..., Result], seeds: int) -> Callable[..., Result]:
        """A function of tensors as a CUDA graph where that is asked for, else itself.

        Args:
            compute: always the same one; see `Graphed`.
            seeds: how many of the passes below it makes.
        """
        if self.cuda_graph and self._captured is None:
            self._captured = Graphed(compute, any_seed, seeds)
        return self._captured or compute

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
        return Replayed(self.segmenter, batch["image"], lambda z: pixel_cross_entropy(z, label), any_seed())

    def target_pass(self, batch: Batch, track: bool, count: Tensor | None = None) -> Replayed:
        """L_T of a batch as a function of theta.

        Args:
            batch: or a part of it.
            track: update the running statistics.
            count: the pixels that L_T is the mean of; those of ``batch`` when None.
        """
        label = batch["label"]
        n = pixel_count(valid_pixels(label)) if count is None else count
        return Replayed(self.segmenter, batch["image"], lambda z: cross_entropy(z, label, n), any_seed(), track)

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
        raise ConfigError(f"--method.micro_batches {parts}: the batch has {len(batch['image'])} images")
    pairs = zip(batch["image"].chunk(parts), batch["label"].chunk(parts), strict=True)
    return [{"image": image, "label": label} for image, label in pairs]
