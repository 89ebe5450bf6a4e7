"""MetaPix in stages, as its README has it: parts of a training in which one network learns and the other one rests.

    joint       theta <- descend L_S + L_T, all weights 1                    once, at the beginning
    weights     phi   <- descend L_T(theta'(phi)), from scratch              theta rests
    segmenter   theta <- descend L_S(theta, w) + L_T                         phi rests

`weights` and `segmenter` come again in every generation. Each stage begins with an optimiser that remembers nothing and with a
schedule of its own, as if it were a command of its own; the images go on where the last stage ended. What a step does follows
from its number, so that a resumed training continues in the middle of any stage.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from segzoo.checks import check_range
from segzoo.errors import ConfigError
from segzoo.methods.length import training_steps
from segzoo.methods.meta_update import MetaUpdate
from segzoo.options import check_values

StageName = Literal["joint", "weights", "segmenter"]


class Stage(NamedTuple):
    """One part of a training.

    Attributes:
        name: what learns.
        start: its first step.
        length: in steps.
        generation: how many stages of its name were before it.
    """

    name: StageName
    start: int
    length: int
    generation: int


@dataclass(frozen=True, kw_only=True)
class Stages:
    """How long each stage is, in steps, or in shares of the training if all are below 1; 0 leaves it out.

    Args:
        joint: Gives the length of the first stage; 0 begins with a network that is trained already.
        weights: Gives the length of the stages of the weight network; with 0 it comes from a checkpoint.
        segmenter: Gives the length of the stages of the segmenter.
        generations: Sets how often weights and segmenter take their turns.
        lr_factor: Multiplies the segmenter's learning rate in the stages after the joint one.
    """

    joint: float = 0
    weights: float = 0
    segmenter: float = 0
    generations: float = 1
    lr_factor: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what is no schedule.

        Raises:
            ConfigError: a number outside its range, steps beside shares, or nothing that metapix would do.
        """
        check_values(type(self).__init__, vars(self), "method.stages")
        lengths = {"joint": self.joint, "weights": self.weights, "segmenter": self.segmenter}
        for name, length in lengths.items():
            check_range(f"`method.stages`: {name}", length, 0)
            if length > 1 and length != int(length):
                raise ConfigError(
                    f"`method.stages`: {name} {length}: expected a number of steps, or a share of the training below 1"
                )
        check_range("`method.stages`: lr_factor", self.lr_factor, 0)
        check_range("`method.stages`: generations", self.generations, 1)
        if self.generations != int(self.generations):
            raise ConfigError(f"`method.stages`: generations {self.generations}: expected a whole number")
        if not self.weights and not self.segmenter:
            raise ConfigError(
                "`method.stages` has neither weights nor segmenter; give at least one of them a length, or use the method joint"
            )
        if self.in_shares and any(length >= 1 for length in lengths.values()):
            raise ConfigError(
                f"`method.stages` {lengths}: give the lengths of all stages in steps, or of all in shares below 1"
            )

    @property
    def in_shares(self) -> bool:
        """Whether the lengths are shares of the training."""
        return any(0 < length < 1 for length in (self.joint, self.weights, self.segmenter))

    def plan(self, steps: int | None) -> list[Stage]:
        """The stages in their order.

        Args:
            steps: of the training; None where nobody knows.

        Raises:
            ConfigError: shares of nobody knows what.
        """
        if self.in_shares and steps is None:
            raise ConfigError(
                "`method.stages` are shares of the training and nobody knows how long it is: give `trainer.max_steps`, or "
                "numbers of steps"
            )
        unit = steps if self.in_shares and steps is not None else 1
        turns: list[tuple[StageName, float]] = [("weights", self.weights), ("segmenter", self.segmenter)]
        found, end = [], 0.0
        for generation in range(int(self.generations)):
            first: list[tuple[StageName, float]] = [("joint", self.joint)] if generation == 0 else []
            for name, length in first + turns:
                start, end = end, end + length
                if round(end * unit) > round(start * unit):
                    found.append(Stage(name, round(start * unit), round(end * unit) - round(start * unit), generation))
        return found


class StagedUpdate(MetaUpdate):
    """Gives each step its stage, and each stage a new beginning; without ``stages`` it changes nothing.

    Attributes:
        stages: None to train both networks in every step.
        create_weighting: makes a weight network with initial weights.
    """

    stages: Stages | None
    create_weighting: Callable[[], nn.Module]

    @property
    def stage(self) -> Stage | None:
        """That of the present step; None without stages."""
        if self.stages is None:
            return None
        return _of_step(self.stages.plan(training_steps(self.trainer)), self.global_step)

    def in_stage(self, name: StageName) -> bool:
        """Whether the present step is of a stage of this name."""
        return (stage := self.stage) is not None and stage.name == name

    def is_meta_step(self) -> bool:
        """Whether phi learns in this step."""
        return super().is_meta_step() if self.stages is None else self.in_stage("weights")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """The first step of a stage forgets what the optimiser remembers, and the weights of the last generation."""
        stage = self.stage
        if stage is not None and 0 < stage.start == self.global_step and self.begins_step(batch_idx):
            optimizer = self.optimizers(use_pl_optimizer=False)
            assert isinstance(optimizer, torch.optim.Optimizer)
            optimizer.state.clear()
            if stage.name == "weights" and stage.generation > 0:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(self._step_seed("weighting"))
                    self.weighting.load_state_dict(self.create_weighting().state_dict())
        super().on_train_batch_start(batch, batch_idx)

    def source_loss(self, weights: Tensor, logits: Tensor, label: Tensor) -> Tensor:
        """See `WeightedJointTraining`; in the stage ``joint`` with the loss of overlap, as `JointTraining` has it."""
        pixels = super().source_loss(weights, logits, label)
        return pixels + self.overlap_loss(logits, label) if self.in_stage("joint") else pixels

    def rate(self) -> Callable[[int], float]:
        """The schedule begins anew with every stage of the segmenter."""
        if self.stages is None:
            return super().rate()
        plan, later = self.stages.plan(training_steps(self.trainer)), self.stages.lr_factor
        factors = {stage: self.optimizer_options.factor(stage.length) for stage in plan}

        def factor(step: int) -> float:
            stage = _of_step(plan, step)
            return factors[stage](step - stage.start) * (1.0 if stage.name == "joint" else later)

        return factor

    def setup(self, stage: str) -> None:
        """Also refuses stages that do not fill the training, or that lack the weights of a network.

        Raises:
            ConfigError: such ones.
        """
        super().setup(stage)
        if stage != "fit" or self.stages is None:
            return
        steps = training_steps(self.trainer)
        last = self.stages.plan(steps)[-1]
        end = last.start + last.length
        if steps is not None and end < steps:
            raise ConfigError(
                f"`method.stages` end after {end} steps, and the training after {steps}; set `trainer.max_steps` to {end}, or "
                "make them longer"
            )
        if steps is not None and end > steps:
            rank_zero_warn(f"`method.stages` are {end} steps long, of which {steps} are trained")
        start = self.network_options.initial_checkpoint or self.trainer.ckpt_path
        if not self.stages.weights and not start:
            raise ConfigError(
                "`method.stages` without weights: the weight network is that of an earlier run of metapix; name its checkpoint "
                "as `network.initial_checkpoint`"
            )

    def check_combinations(self) -> None:
        """Refuses options that do not go together.

        Raises:
            ConfigError: such ones.
        """
        super().check_combinations()
        defaults = {"update": "sequential", "meta_every": 1, "meta_start": 0, "virtual": "sgd"}
        for option, value in defaults.items() if self.stages is not None else ():
            if getattr(self, option) != value:
                raise ConfigError(
                    f"`method.{option}` {getattr(self, option)} says how both networks learn in one step, and with "
                    f"`method.stages` one of them rests; leave it at {value}"
                )
        if self.stages is not None and self.speed.micro_batches > 1:
            raise ConfigError(
                "`speed.micro_batches` divides the steps in which the weight network learns alone, and `method.stages` has "
                "others; use `trainer.accumulate_grad_batches`"
            )


def _of_step(plan: list[Stage], step: int) -> Stage:
    # After the last one, where a training ends by time, it goes on.
    return next((stage for stage in plan if step < stage.start + stage.length), plan[-1])
