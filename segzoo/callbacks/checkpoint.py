"""The last checkpoint, which is the result."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from segzoo.callbacks.checkpoint_io import DirectIO, last_good, save_together, spoiled
from segzoo.compat.training import count_as_ended, loops_state, validate_now, validation_is_due
from segzoo.errors import NonFiniteLossError, SaidElsewhere
from segzoo.files import named_errors
from segzoo.loggers.metrics_csv import flush, log_step, metrics_csv


class LastCheckpoint(ModelCheckpoint):
    """Keeps ``<run_dir>/checkpoints/last.ckpt``: every so many steps, after the last one, and when stopped.

    A process that is killed loses at most ``every_n_steps`` steps, and never the previous checkpoint: the new
    one is written beside it and then takes its name, if all of its numbers are finite. What it continues after is in
    ``metrics.csv`` before; a validation that was due and is not there is made good when the run goes on. (Lightning writes
    into the system's temporary folder and moves the file, which is a copy over the old checkpoint when that folder lies on
    another disk.) Being a ``ModelCheckpoint``, it is found by ``ckpt_path="last"``. It adds nothing of its own to the
    checkpoint.

    Args:
        run_dir: the run folder.
        every_n_steps: optimiser steps between two checkpoints.
        keep_steps: at multiples of it a copy stays, ``step<number>.ckpt``; None: only the last one.
    """

    def __init__(self, run_dir: str | Path, every_n_steps: int = 200, keep_steps: int | None = None) -> None:
        # save_top_k=0: none of ModelCheckpoint's own rules applies, the hooks below decide
        super().__init__(dirpath=Path(run_dir) / "checkpoints", filename=self.CHECKPOINT_NAME_LAST, save_top_k=0)
        self.every_n_steps, self.keep_steps = every_n_steps, keep_steps
        self.path = Path(run_dir).resolve() / "checkpoints" / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
        self._saved = -1
        self._loops: dict[str, Any] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Writes checkpoints directly, unless the user or the strategy has a way of their own."""
        super().setup(trainer, pl_module, stage)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = DirectIO()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A resumed run has its checkpoint already; its validation may be missing."""
        self._saved = trainer.global_step
        if logger := metrics_csv(trainer):
            logger.resume(trainer.global_step)
        if trainer.global_step:
            _validate_if_due(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves at multiples of ``every_n_steps`` and at ``max_steps``."""
        # At the last step too, and not only in on_train_end: there the epoch counts as over, here the run can
        # be continued with a larger max_steps exactly as if it had never stopped.
        step, every = trainer.global_step, (self.every_n_steps, self.keep_steps)
        self._loops = None
        if step == trainer.max_steps or any(n and step % n == 0 for n in every):
            self.save(trainer, step_ends=True)
        if validation_is_due(trainer):
            # Whoever stops the validation saves the state before it, so that it is repeated.
            self._loops = loops_state(trainer)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The test of a training that had come to its end before counts steps and epochs as the training's own would have."""
        if self._saved == -1 and trainer.global_step:
            count_as_ended(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves after a training that ended for another reason than ``max_steps``."""
        self.save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Saves when preempted: Lightning raises SIGTERM's exception between two steps, on every process.

        Other exceptions come from the middle of a step, whose half-done state is no state to continue from.
        """
        if isinstance(exception, SIGTERMException) and trainer.training:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing: epochs do not matter."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing is saved: the result does not depend on validation. Its scores are in ``metrics.csv`` from here on."""
        self._loops = None
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            flush(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """A checkpoint from within a validation is one from before it."""
        if self._loops is not None:
            checkpoint["loops"] = self._loops

    def state_dict(self) -> dict[str, Any]:
        """Nothing: paths of one machine do not belong into a checkpoint."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing."""

    def save(self, trainer: L.Trainer, *, step_ends: bool = False) -> None:
        """Saves the state between two steps, unless it is saved already. Every process calls it.

        Args:
            trainer: of the training.
            step_ends: whether this is ``on_train_batch_end``, where the step's metrics are not logged yet.

        Raises:
            NonFiniteLossError: a parameter, a buffer or the optimiser's state is not finite.
            OSError: the file cannot be written; the previous checkpoint is as it was.
        """
        if getattr(trainer, "fast_dev_run", False) or trainer.global_step == self._saved:
            return
        if bad := spoiled(trainer):
            raise NonFiniteLossError(
                f"diverged: '{bad}' is not finite after step {trainer.global_step}; {last_good(self.path)}; "
                "try a smaller `optimizer.lr`, `trainer.gradient_clip_val` 1 or `trainer.precision` 32"
            )
        if step_ends:
            log_step(trainer)
        partial = self.path.with_suffix(".partial")
        error = save_together(trainer, partial)
        if trainer.is_global_zero and error is None:
            error = self._publish(trainer, partial)
        if trainer.is_global_zero and error is not None:
            with suppress(OSError):
                partial.unlink()  # the room may be needed to write down what happened
        if error := trainer.strategy.broadcast(error):
            raise error if trainer.is_global_zero else SaidElsewhere
        self._saved = trainer.global_step
        self.last_model_path = str(self.path)

    def _publish(self, trainer: L.Trainer, partial: Path) -> OSError | None:
        step = trainer.global_step
        kept = self.path.with_name(f"step{step:08}{self.FILE_EXTENSION}")
        copy = kept.with_suffix(".partial")
        try:
            flush(trainer)  # before the checkpoint that continues after these rows
            with named_errors(self.path):
                with partial.open("rb") as file:
                    os.fsync(file.fileno())  # or a power cut could leave the new name without its content
                if self.keep_steps and step % self.keep_steps == 0:
                    shutil.copyfile(partial, copy)
                    copy.replace(kept)
                partial.replace(self.path)
        except OSError as error:
            with suppress(OSError):
                copy.unlink()
            return error
        return None


def _validate_if_due(trainer: L.Trainer) -> None:
    """Makes good a validation after the checkpoint's step, which Lightning takes for done."""
    logger = metrics_csv(trainer)
    done = logger is not None and logger.has(trainer.global_step - 1, "val/")
    if not trainer.strategy.broadcast(done) and validation_is_due(trainer):
        validate_now(trainer)
