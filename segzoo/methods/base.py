"""What every method shares, whatever it trains: options, seeds, checks of a loss, one optimiser, checkpoints."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, Self

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

import segzoo
from segzoo.callbacks.checkpoint_io import last_good, save_together, spoiled
from segzoo.compat.training import trainer_of
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.resources import count_images
from segzoo.data.sampling import derived_seed, used_batches
from segzoo.data.streams import Stream, usual_streams
from segzoo.distributed import mean_terms, non_finite_terms
from segzoo.errors import ConfigError, NonFiniteLossError
from segzoo.methods.checkpoints import check_progress, check_weights, save_if_none
from segzoo.methods.late_checks import LateChecks, skips_on_device
from segzoo.methods.length import check_length, check_start, first_step, training_steps
from segzoo.methods.logged import LoggedSteps
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.speed import Speed
from segzoo.models.network import Network
from segzoo.options import check_values, resolve

Resource = Literal["source", "labels", "unlabelled"]
"""Labelled synthetic images, the few labelled target images, and unlabelled target images."""


class Method(LoggedSteps):
    """Base of all methods. A method declares its streams and returns one loss from ``training_step``.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        optimizer: Says how the networks learn.
        speed: Says how a step is computed.
    """

    slug: ClassVar[str]
    resources: ClassVar[tuple[Resource, ...]]
    """What the method learns from; the DataModule gives no more."""
    SPEED: ClassVar[tuple[str, ...]] = ("channels_last",)
    """The options of `Speed` that the method can use."""
    fuses = True
    """Whether CUDA may compute the optimiser's step with one kernel for many tensors; its state is then on the device, too."""
    STARTING_POINTS: ClassVar[tuple[str, ...]] = ()
    """Own options that name files of weights, which a trained checkpoint makes superfluous."""

    def __init__(
        self,
        *,
        label_space: LabelSpace | dict[str, Any],
        optimizer: Optimizer | dict[str, Any] | None = None,
        speed: Speed | dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(label_space, LabelSpace | Mapping):
            raise ConfigError(f"label_space {label_space!r}: expected that of the data, `label_space=data.label_space`")
        self.label_space = label_space if isinstance(label_space, LabelSpace) else LabelSpace.from_dict(label_space)
        self.optimizer_options = resolve(Optimizer, optimizer, "optimizer")
        self.speed = resolve(Speed, speed, "speed")
        self.speed.refuse_others(self.SPEED, self.slug)
        # The arguments of the class that is built, in plain types: checkpoints are read with `weights_only`.
        self.save_hyperparameters(ignore=["label_space", *only_of_parents(type(self))])
        shared = ("label_space", "network", "optimizer", "loss", "speed", "night", "pseudo")
        check_values(type(self).__init__, {n: v for n, v in self.hparams.items() if n not in shared}, "method")
        resolved = {"label_space": self.label_space.to_dict(), "optimizer": self.optimizer_options, "speed": self.speed}
        self.save_hyperparameters({name: plain(value) for name, value in {**self.hparams, **resolved}.items()})
        self.run_config: dict[str, Any] | None = None
        self.ignored_rows = (0, 0)
        self._seed = 0
        self._late = LateChecks()
        self._learned_from: dict[str, int | None] = dict.fromkeys(self.resources)
        self._sources: dict[str, dict[str, float]] = {}

    @classmethod
    def restored(cls, options: Mapping[str, Any]) -> Self:
        """The method of a checkpoint's options (``hyper_parameters``), ready for its weights: no other file is opened."""
        kept = {name: value for name, value in options.items() if not name.startswith("_")}
        kept |= dict.fromkeys(cls.STARTING_POINTS)
        if "network" in kept:
            kept["network"] = resolve(Network, kept["network"], "network").without_weights()
        return cls(**kept)

    @property
    def num_classes(self) -> int:
        """Number of classes, void not counted."""
        return self.label_space.num_classes

    @property
    def streams(self) -> dict[str, Stream]:
        """What a training batch holds, by name: ``source``, ``target`` and, beside target labels, ``unlabelled``."""
        return usual_streams(self.resources)

    @property
    def starts(self) -> dict[str, float]:
        """When each term begins that begins late, by its option: a step, or a share of the training below 1."""
        return {}

    def reached(self, option: str) -> bool:
        """Whether the term of one of `starts` takes part in this step."""
        start = self.starts[option]
        first = first_step(start, training_steps(self.trainer) if 0 < start < 1 else None)
        return first is not None and self.global_step >= first

    @property
    def step_pictures(self) -> dict[str, Tensor]:
        """The images (B, 3, H, W), labels and maps (B, H, W) of the last step, by title, for whoever draws them."""
        return {}

    @property
    def step_names(self) -> dict[str, Sequence[str]]:
        """The names of those images of the data that `step_pictures` shows, by the same titles."""
        return {}

    @property
    def class_shares(self) -> dict[str, Tensor]:
        """Shares (C,) of the classes in the last step, for whoever watches them; see `segzoo.callbacks.shown.SharesClasses`."""
        return {}

    @property
    def learned_from(self) -> dict[str, int | None]:
        """The resources with the number of their images in the training, or in that of the checkpoint; None: not counted."""
        trainer = trainer_of(self)
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING and trainer.train_dataloader is not None:
            self._learned_from = count_images(trainer.train_dataloader, self.streams, self.resources)
        return self._learned_from

    @property
    def sources(self) -> dict[str, dict[str, float]]:
        """Images and weight of each of several sources of the training, or of that of the checkpoint; {} for one or none."""
        trainer = trainer_of(self)
        data = getattr(trainer, "datamodule", None)
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING and "source" in self.resources:
            self._sources = getattr(data, "sources", {})
        return self._sources

    def arrange(self, network: nn.Module) -> None:
        """Puts a network into the memory format that ``speed.channels_last`` says."""
        if self.speed.channels_last:
            network.to(memory_format=torch.channels_last)

    # Training

    def setup(self, stage: str) -> None:
        """Refuses what would lose the small steps of averages and weights, and a training or schedule without length.

        Says so where a term begins after the last step: a start that suits long runs is easily left in a short one.

        Raises:
            ConfigError: one of these.
        """
        precision = str(self.trainer.precision)
        if precision in ("bf16-true", "16-true"):
            mixed = precision.replace("true", "mixed")
            raise ConfigError(
                f"`trainer.precision` {precision} keeps the parameters in half precision, which rounds their steps away; use "
                f"{mixed}"
            )
        if stage == "fit":
            self._set_up_training()

    def _set_up_training(self) -> None:
        check_length(self.trainer)
        steps = training_steps(self.trainer)
        for option, start in self.starts.items():
            check_start(f"`method.{option}`", start, steps)
            if steps and steps <= start:
                rank_zero_warn(f"`method.{option}` {start:g} is not reached in {steps} steps")
        options = self.optimizer_options
        if steps is None and options.schedule == "poly" and options.schedule_steps is None:
            raise ConfigError(
                "`optimizer.schedule` poly falls to 0 at the last step and nobody knows it: give `trainer.max_steps` or "
                "`optimizer.schedule_steps`, or `optimizer.schedule` constant"
            )
        data = getattr(self.trainer, "datamodule", None)
        # Other loaders than the DataModule's have no seed; what the weights were drawn from stands for it.
        self._seed = self.trainer.strategy.broadcast(torch.initial_seed()) if data is None else data.seed
        self.ignored_rows = getattr(data, "ignore_top", 0), getattr(data, "ignore_bottom", 0)

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The loss of a step: the sum of its terms, checked by `check_finite` and logged by `log_sum`."""
        return self.log_sum(terms, self.check_finite(terms))

    def log_sum(self, terms: dict[str, Tensor], means: dict[str, Tensor]) -> Tensor:
        """The sum of terms, whose means over the ranks are logged as ``train/<term>`` and ``train/loss``."""
        logged = {name: means[name] for name in terms}
        self.log_dict({f"train/{name}": mean for name, mean in logged.items()})
        self.log("train/loss", torch.stack(list(logged.values())).sum(), prog_bar=True)
        return torch.stack(list(terms.values())).sum()

    def begins_step(self, batch_idx: int) -> bool:
        """Whether a batch is the first of those that one step of the optimiser accumulates."""
        return batch_idx % self.trainer.accumulate_grad_batches == 0

    def check_finite(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The means of terms over the ranks, at the price of one wait for the device.

        With a fused optimiser on CUDA the host does not wait: the device leaves the step out, whose update is then never made,
        and the error comes with the next call, or before a validation, a checkpoint or the end of an epoch.

        Raises:
            NonFiniteLossError: one is NaN or infinite on any rank; the last good parameters are kept.
        """
        means = mean_terms(terms)
        self.finish_checks()
        if self._checks_late():
            self._late.send(self.global_step, means)
        elif bad := non_finite_terms(means):
            self._diverged(self.global_step, bad)
        return {name: mean.to(terms[name].dtype) for name, mean in means.items()}

    def finish_checks(self) -> None:
        """Reads what `check_finite` has left for later.

        Raises:
            NonFiniteLossError: a step that the optimiser left out had a loss that is NaN or infinite.
        """
        if late := self._late.read():
            self._diverged(*late)

    def _checks_late(self) -> bool:
        if self.device.type != "cuda" or self.scaler:
            return False
        optimizer = self.optimizers(use_pl_optimizer=False)
        return isinstance(optimizer, torch.optim.Optimizer) and skips_on_device(optimizer)

    def _diverged(self, step: int, bad: dict[str, float]) -> NoReturn:
        found = ", ".join(f"{name} = {value}" for name, value in bad.items())
        raise NonFiniteLossError(
            f"non-finite loss at step {step}: {found}; {self._save_last_good()}; "
            f"try a smaller `optimizer.lr`, `trainer.gradient_clip_val` 1 or `trainer.precision` 32"
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Has a step left out whose losses `check_finite` will find to be bad later."""
        self._late.guard(optimizer)

    def on_validation_start(self) -> None:
        """No validation before the step ahead of it was checked."""
        self.finish_checks()

    def on_train_epoch_end(self) -> None:
        """See `on_validation_start`: the last step has none behind it that would check it."""
        self.finish_checks()

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """The groups of parameters that learn, each made by `segzoo.methods.optimizer.parameter_group`."""
        raise NotImplementedError

    def rate(self) -> Callable[[int], float]:
        """The factor of the scheduled learning rates by step."""
        return self.optimizer_options.factor(training_steps(self.trainer))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimiser for all networks, in few kernels where it can, and a schedule per step."""
        groups = self.optimizer_groups()
        fused = self.fuses and all(p.is_cuda for group in groups for p in group["params"])
        optimizer = self.optimizer_options.create(groups, fused)
        scheduler = self.optimizer_options.scheduler(optimizer, self.rate())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The scaler of float16, else None. Where it finds an infinite gradient it skips the whole step."""
        scaler: torch.amp.GradScaler | None = getattr(self.trainer.precision_plugin, "scaler", None)
        return scaler

    @property
    def loss_scale(self) -> float:
        """The factor that keeps float16 gradients from vanishing, else 1."""
        return float(self.scaler.get_scale()) if self.scaler else 1.0

    # Seeds

    def on_fit_start(self) -> None:
        """Remembers torch's own generator, which every step seeds: networks that are built later draw as if none had.

        Raises:
            ConfigError: the method is in evaluation mode, which Lightning would leave it in.
        """
        if not self.training:
            raise ConfigError(
                "the method is in evaluation mode, in which it would be trained: call train() on it before the fit"
            )
        self._global_draws = torch.get_rng_state()
        self._late = LateChecks()

    def on_fit_end(self) -> None:
        """See `on_fit_start`; a test that follows says what was learned from, and `segzoo.load` finds the network."""
        save_if_none(self.trainer)
        torch.set_rng_state(self._global_draws)
        self._learned_from, self._sources = self.learned_from, self.sources

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds dropout per (seed, rank, batch), so that a resumed run continues bit for bit."""
        if self.begins_step(batch_idx):
            self.forget_logged()
        torch.manual_seed(self._step_seed(self.global_rank))

    def generator(self, *parts: int | str) -> torch.Generator:
        """A CPU generator that is a function of (seed, step, parts) alone: the same on every rank and after resuming."""
        return torch.Generator().manual_seed(self._step_seed(*parts))

    def image_generators(self, purpose: str, count: int) -> list[torch.Generator]:
        """One per image of this rank's batch, those that one process would give the images of the whole batch."""
        ranks = [i * self.trainer.world_size + self.global_rank for i in range(count)]
        return [self.generator(purpose, number) for number in ranks]

    def _step_seed(self, *parts: int | str) -> int:
        # As many batches were used before this one, by this process or by those whose checkpoint it resumes.
        return derived_seed(self._seed, *parts, used_batches(self.trainer))

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what `segzoo test` and `segzoo predict` need: method, classes, input size and the run's configuration."""
        self.finish_checks()
        size = getattr(getattr(self.trainer, "datamodule", None), "size", None)
        checkpoint["segzoo"] = {
            "method": self.slug,
            "version": segzoo.__version__,
            "label_space": self.label_space.to_dict(),
            "size": None if size is None else list(size),
            "resources": self.learned_from,
            "sources": self.sources,
            "config": self.run_config,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses one that does not fit, is not finite or, to be continued, is not whole: see `segzoo.methods.checkpoints`."""
        path = self.trainer.ckpt_path if trainer_of(self) else None
        name = f"the checkpoint {path}" if path else "the checkpoint"
        check_weights(self, checkpoint, name)
        self._learned_from = checkpoint["segzoo"].get("resources") or self._learned_from
        self._sources = checkpoint["segzoo"].get("sources") or {}
        if trainer_of(self) is None:
            return
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_progress(self, checkpoint, name)
        else:  # to score them, weights are enough: what else is there need not be whole
            for part in ("loops", "callbacks"):
                checkpoint.pop(part, None)

    def _save_last_good(self) -> str:
        # The forward pass of the step that diverged has moved the batch norms' statistics: they may be spoiled already.
        callback = self.trainer.checkpoint_callback
        folder = Path(getattr(callback, "dirpath", None) or self.trainer.default_root_dir)
        path = folder / "last-good.ckpt"
        if spoiled(self.trainer) is None and save_together(self.trainer, path) is None:
            return f"the parameters before this step are in {path}"
        return last_good(folder / "last.ckpt")


def only_of_parents(cls: type) -> set[str]:
    """Options of a class's parents that the class itself has not; none where it hands unknown names on to them."""
    own = inspect.signature(cls).parameters
    if any(p.kind is p.VAR_KEYWORD for p in own.values()):
        return set()
    parents = (inspect.signature(parent.__init__).parameters for parent in cls.__mro__)  # type: ignore[misc]
    return {name for options in parents for name in options} - own.keys()


def plain(value: Any) -> Any:
    """Options in plain types: a dataclass as a dict."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
