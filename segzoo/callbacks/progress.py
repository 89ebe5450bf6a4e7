"""Progress in optimiser steps, for a terminal and for a log file."""

import math
import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar


class StepProgress(TQDMProgressBar):
    """One bar over the whole training, whatever its epochs: steps, speed, time left and losses.

    A resumed run starts at its step. Where the output is no terminal, lines are printed instead, at most one in ``seconds``.
    Their speed is of the run's own steps without the first one, which compiles and fills caches, and without validations; once
    one was seen, the time left has those that are to come in it.

    Args:
        seconds: between two lines in a log file.
    """

    REDRAWN = 0.2
    """Seconds between two states of the bar. It shows losses, for which the host waits until a GPU has computed them."""
    BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"

    def __init__(self, seconds: float = 10.0) -> None:
        super().__init__()
        self._seconds = seconds
        self._lines = not sys.stdout.isatty() and "ipykernel" not in sys.modules
        self._first_step, self._step, self._printed = 0, 0, 0.0
        self._started: float | None = None
        self._drawn = 0.0
        self._paused, self._validations, self._validation = 0.0, 0, 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Only rank zero shows anything, and only one of bar and lines."""
        super().setup(trainer, pl_module, stage)
        if self._lines:
            self.disable()
            self._lines = trainer.is_global_zero

    @property
    def total_steps(self) -> int | None:
        """Optimiser steps of the whole training, or ``None`` when nobody knows."""
        return total_steps(self.trainer)

    def on_train_start(self, *args: Any) -> None:
        """Starts at the step of the checkpoint."""
        self._first_step = self._step = self.trainer.global_step
        self._started, self._printed = None, time.monotonic()
        self._validations, self._validation = 0, 0.0
        bar = self.train_progress_bar = self.init_train_tqdm()
        bar.reset(self.total_steps)
        bar.unit = "step"
        bar.initial = bar.n = self._first_step
        bar.refresh()

    def on_train_epoch_start(self, *_: Any) -> None:
        """Nothing: the bar spans all epochs."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves on when an optimiser step was taken."""
        step, total = trainer.global_step, self.total_steps
        bar = self.train_progress_bar
        if self._lines:
            if step == self._step:  # a batch of several, as yet without a step
                return
            self._step, now = step, time.monotonic()
            self._started = now if self._started is None else self._started
            if now - self._printed >= self._seconds or (step == total and self._printed != now):
                self._printed = now
                print(self._line(step, total, now), flush=True)
        elif not bar.disable and step != bar.n:
            bar.n, now = step, time.monotonic()
            if now - self._drawn >= self.REDRAWN or step == total:
                self._drawn = now
                bar.set_postfix(self.get_metrics(trainer, pl_module))  # draws the bar

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on it is no step."""
        super().on_validation_start(trainer, pl_module)
        self._paused = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on it is steps again."""
        super().on_validation_end(trainer, pl_module)
        self._validation, self._validations = time.monotonic() - self._paused, self._validations + 1
        if self._started is not None:
            self._started += self._validation

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Plain name: there is one loader."""
        super().on_validation_batch_start(*args, **kwargs)
        self.val_progress_bar.set_description(self.validation_description, refresh=False)

    def on_test_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Plain name: there is one loader."""
        super().on_test_batch_start(*args, **kwargs)
        self.test_progress_bar.set_description(self.test_description, refresh=False)

    def on_test_start(self, *args: Any) -> None:
        """Says in a log file that the test began."""
        super().on_test_start(*args)
        if self._lines:
            print(f"{self.test_description}: {sum(self.trainer.num_test_batches):.0f} batches", flush=True)

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What was logged with ``prog_bar=True``."""
        return dict(trainer.progress_bar_metrics)  # without Lightning's version number of the log folder

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Prints without breaking the bar."""
        if self._lines:
            print(*args, sep=sep, flush=True)
        else:
            super().print(*args, sep=sep, **kwargs)

    def _line(self, step: int, total: int | None, now: float) -> str:
        timed = step - self._first_step - 1
        parts = [f"step {step}"]
        if total is not None:
            parts = [f"step {step}/{total} ({100 * step // total}%)"]
        if timed > 0 and self._started is not None:
            seconds = max(now - self._started, 1e-9) / timed
            parts.append(f"{1 / seconds:.2f} steps/s")
            if total is not None:
                to_come = self._validations_until(total) * self._validation
                parts.append(f"{clock((total - step) * seconds + to_come)} left")
        return ", ".join([*parts, *(f"{k} {v:.3g}" for k, v in self.trainer.progress_bar_metrics.items())])

    def _validations_until(self, total: int) -> int:
        """Validations that are to come where they come every so many batches."""
        every = self.trainer.val_check_interval
        if not isinstance(every, int) or self.trainer.check_val_every_n_epoch is not None:
            return 0
        before, all_ = (step * self.trainer.accumulate_grad_batches // every for step in (self._first_step, total))
        return max(0, all_ - before - self._validations)


def total_steps(trainer: L.Trainer) -> int | None:
    """Optimiser steps of the whole training, or ``None`` when nobody knows."""
    if trainer.max_steps > 0:
        return trainer.max_steps
    total = trainer.estimated_stepping_batches
    return int(total) if 0 < total < math.inf else None


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
