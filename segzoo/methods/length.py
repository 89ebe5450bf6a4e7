"""How long a training is. Batches have no end: an epoch has a length only where the trainer gives it one."""

import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.utilities import rank_zero_warn

from segzoo.checks import check_range
from segzoo.compat.training import validates_by_time
from segzoo.errors import ConfigError

UNSET_EPOCHS = 1000
"""What Lightning makes of a training without any limit."""


def epoch_batches(trainer: L.Trainer) -> int | None:
    """Batches of an epoch; None where epochs have no end. ``overfit_batches`` and ``fast_dev_run`` give a length too."""
    limit = trainer.limit_train_batches
    return limit if isinstance(limit, int) else None


def training_steps(trainer: L.Trainer) -> int | None:
    """Steps of the optimiser after which the training ends; None where it does not say."""
    limits = [trainer.max_steps] if trainer.max_steps >= 0 else []
    batches, epochs = epoch_batches(trainer), trainer.max_epochs
    if batches is not None and epochs is not None and epochs >= 0:
        limits.append(epochs * math.ceil(batches / trainer.accumulate_grad_batches))
    return min(limits, default=None)


def first_step(start: float, steps: int | None) -> int | None:
    """The step at which something begins.

    Args:
        start: its number, or a share of the training between 0 and 1.
        steps: of the training; None where nobody knows.

    Returns:
        None where it is a share of nobody knows what.
    """
    if not 0 < start < 1:
        return int(start)
    return None if steps is None else round(start * steps)


def check_start(option: str, start: float, steps: int | None) -> None:
    """Refuses a start that is no step and no share, or a share of a training without length.

    Args:
        option: what the message calls it.
        start: see `first_step`.
        steps: see there.

    Raises:
        ConfigError: one of these.
    """
    check_range(option, start, 0)
    if start > 1 and start != int(start):
        raise ConfigError(f"{option} {start}: expected the number of a step, or a share of the training below 1")
    if first_step(start, steps) is None:
        raise ConfigError(
            f"{option} {start} is a share of the training and nobody knows how long it is: give `trainer.max_steps`, or the "
            "number of a step"
        )


def check_length(trainer: Any) -> None:
    """Refuses a training without end, shares of endless batches, and options that count epochs where none ends.

    Raises:
        ConfigError: one of these; the message names the option.
    """
    unset = trainer.max_steps == -1 and trainer.max_epochs == UNSET_EPOCHS
    if epoch_batches(trainer) is None:
        for option in ("overfit_batches", "limit_train_batches"):
            share = getattr(trainer, option)
            if share not in (0, 1):
                raise ConfigError(
                    f"`trainer.{option}` {share}: training batches have no end, of which there is no share; give a number of "
                    "batches, e.g. 100"
                )
        for option, value, instead in _counting_epochs(trainer):
            if value is not None and not (option == "max_epochs" and unset):
                raise ConfigError(
                    f"`trainer.{option}` {value} counts epochs, and an epoch of training batches has no end; {instead}, or "
                    "give epochs a length with `trainer.limit_train_batches` N"
                )
        once = isinstance(trainer.val_check_interval, float) and not validates_by_time(trainer)
        if once and trainer.limit_val_batches != 0:
            rank_zero_warn(
                "no validation during the training: one per epoch was asked for, and an epoch of training batches has no end; "
                "`trainer.val_check_interval` N is one every N batches"
            )
    if training_steps(trainer) == 0 or trainer.limit_train_batches == 0:
        raise ConfigError(
            "`trainer.max_steps`, max_epochs or limit_train_batches is 0: nothing would be trained, and random weights scored"
        )
    stops = any(isinstance(callback, Timer | EarlyStopping) for callback in trainer.callbacks)
    if training_steps(trainer) is None and not stops:
        raise ConfigError("nothing would end this training: give it `trainer.max_steps` N or `trainer.max_time`")


def _counting_epochs(trainer: Any) -> list[tuple[str, int | None, str]]:
    # Option, its value where somebody gave one, and what to give instead. Lightning sets min_epochs with min_steps.
    epochs, at_least = trainer.max_epochs, trainer.min_epochs or 0
    own_minimum = at_least > (1 if trainer.min_steps is not None else 0)
    every = trainer.check_val_every_n_epoch
    return [
        ("max_epochs", epochs if epochs is not None and epochs >= 0 else None, "use `trainer.max_steps` N"),
        ("min_epochs", at_least if own_minimum else None, "use `trainer.min_steps` N"),
        ("check_val_every_n_epoch", None if every in (None, 1) else every, "use `trainer.val_check_interval` N"),
        ("reload_dataloaders_every_n_epochs", trainer.reload_dataloaders_every_n_epochs or None, "leave it out"),
    ]
