"""What a Lightning trainer, its loops and its loggers keep for themselves. Lightning is imported where it is needed."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import lightning as L
    from lightning.pytorch.callbacks import Timer
    from lightning.pytorch.loggers import WandbLogger
    from lightning.pytorch.profilers import Profiler

TENSORBOARD_THREAD = "_AsyncWriterThread"
"""The class of the thread in which TensorBoard's writer writes."""


# What is logged


def logs_this_step(trainer: "L.Trainer") -> bool:
    """Whether the loggers get the metrics of the present step."""
    return bool(trainer._logger_connector.should_update_logs)


def step_metrics(trainer: "L.Trainer") -> dict[str, Any]:
    """What the loggers would get now, as plain numbers."""
    found = trainer._logger_connector.metrics["log"]
    return {name: value.item() if hasattr(value, "item") else value for name, value in found.items()}


def logged_values(trainer: "L.Trainer") -> Iterable[Any]:
    """What the module logged, one object per name, with ``meta``, ``reset``, ``is_tensor`` and
    ``has_reset``; nothing outside of a loop."""
    return (trainer._results or {}).values()


# Steps


def steps_done(trainer: "L.Trainer") -> int:
    """Steps of the optimiser as the loggers count them: within a step, those before it."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def batches_done(trainer: "L.Trainer") -> int:
    """How many batches a training has used, in all of its epochs and before each resume."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    return int(progress.total.processed)


def count_as_ended(trainer: "L.Trainer") -> None:
    """Makes the counters of a training that was loaded after its end those that it had when it ended."""
    loop = trainer.fit_loop
    loop.epoch_loop._batches_that_stepped = trainer.global_step
    loop.epoch_progress.current.completed = loop.epoch_progress.current.ready


def reduce_gradients(trainer: "L.Trainer", reduce: bool) -> None:
    """Says whether DDP shall take means of the gradients of the next backward pass; buffers are shared out in either case."""
    from torch.nn.parallel import DistributedDataParallel

    model = trainer.strategy.model
    if isinstance(model, DistributedDataParallel):
        model.require_backward_grad_sync = reduce
        model.require_forward_param_sync = True


def accumulates(trainer: "L.Trainer") -> bool:
    """Whether the optimiser waits for another batch before its step."""
    return trainer.fit_loop._should_accumulate()


def loops_state(trainer: "L.Trainer") -> dict[str, Any]:
    """A copy of what a checkpoint says of the loops at this moment."""
    return deepcopy(trainer._checkpoint_connector._get_loops_state_dict())


# Validation


def validation_is_due(trainer: "L.Trainer") -> bool:
    """Whether a validation follows the present step."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def validate_now(trainer: "L.Trainer") -> None:
    """Validates in the midst of a training, as its loop would, and leaves the count of validation batches as it was."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    progress = deepcopy(loop.batch_progress.state_dict())
    trainer.validating = True
    loop.restarting = False
    loop.run()
    trainer.training = True
    loop.batch_progress.load_state_dict(progress)  # Lightning counts the batches itself


def validates_by_time(trainer: "L.Trainer") -> bool:
    """Whether validations are so many minutes apart, and not so many batches."""
    return getattr(trainer, "_val_check_time_interval", None) is not None


# The trainer and what belongs to it


def trainer_of(module: "L.LightningModule") -> "L.Trainer | None":
    """The trainer of a module, None where it has none; ``module.trainer`` is an error then."""
    return module._trainer


def shards_data(trainer: "L.Trainer") -> bool:
    """Whether Lightning would put samplers of its own into the loaders of several processes."""
    return bool(trainer._accelerator_connector.use_distributed_sampler)


def ignore_sigterm(trainer: "L.Trainer") -> None:
    """Takes out Lightning's own handler for SIGTERM, before it is installed; that for SLURM's requeueing stays."""
    trainer._signal_connector._sigterm_notifier_fn = _nothing  # type: ignore[assignment, method-assign]


def time_limit(timer: "Timer") -> float | None:
    """The seconds after which a timer ends the training."""
    return timer._duration


@contextmanager
def observed_processes(observer: Callable[[list[Any]], None]) -> Iterator[None]:
    """The processes that Lightning starts inside are given to ``observer``, those of later trainers to Lightning's own."""
    from lightning.pytorch.strategies.launchers import subprocess_script as script

    before = script._launch_process_observer  # type: ignore[attr-defined]
    script._launch_process_observer = observer  # type: ignore[attr-defined, assignment]
    try:
        yield
    finally:
        script._launch_process_observer = before  # type: ignore[attr-defined]


def profile_name(profiler: "Profiler") -> str:
    """The file within its folder that a profiler writes its table to."""
    return profiler._prepare_filename()


def profiled_rank(profiler: "Profiler") -> int:
    """Which process of its machine a profiler watches."""
    return profiler._local_rank or 0


# Loggers


def wandb_arguments(logger: "WandbLogger") -> dict[str, Any]:
    """What the logger will give to ``wandb.init``, to be changed in place."""
    return logger._wandb_init


def has_experiment(logger: Any) -> bool:
    """Whether a logger of wandb has begun its run, or was given one."""
    return logger._experiment is not None


def no_experiment() -> Any:
    """An experiment that takes whatever is logged and does nothing with it."""
    from lightning.fabric.loggers.logger import _DummyExperiment

    return _DummyExperiment()


def _nothing(*_: Any) -> None:
    pass
