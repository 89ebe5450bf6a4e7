"""The last checkpoint, which is the result."""

import os
import shutil
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException


class LastCheckpoint(ModelCheckpoint):
    """Keeps ``<run_dir>/checkpoints/last.ckpt``: every so many steps, after the last one, and when preempted.

    A process that is killed loses at most ``every_n_steps`` steps, and never the previous checkpoint: the new
    one is written beside it and then takes its name. (Lightning writes into the system's temporary folder and
    moves the file, which is a copy over the old checkpoint when that folder lies on another disk.) Being a
    ``ModelCheckpoint``, it is found by ``ckpt_path="last"``. It adds nothing of its own to the checkpoint.

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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A resumed run has its checkpoint already."""
        self._saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves at multiples of ``every_n_steps`` and at ``max_steps``."""
        # At the last step too, and not only in on_train_end: there the epoch counts as over, here the run can
        # be continued with a larger max_steps exactly as if it had never stopped.
        step, every = trainer.global_step, (self.every_n_steps, self.keep_steps)
        if step == trainer.max_steps or any(n and step % n == 0 for n in every):
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves after a training that ended for another reason than ``max_steps``."""
        self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Saves when preempted: Lightning raises SIGTERM's exception between two steps, on every process.

        Other exceptions come from the middle of a step, whose half-done state is no state to continue from.
        """
        if isinstance(exception, SIGTERMException) and trainer.training:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing: epochs do not matter."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing: the result does not depend on validation."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: paths of one machine do not belong into a checkpoint."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing."""

    def _save(self, trainer: L.Trainer) -> None:
        if getattr(trainer, "fast_dev_run", False) or trainer.global_step == self._saved:
            return
        self._saved = trainer.global_step
        partial = self.path.with_suffix(".partial")
        trainer.save_checkpoint(partial, weights_only=False)  # every process takes part
        if trainer.is_global_zero:
            with partial.open("rb") as file:
                os.fsync(file.fileno())  # or a power cut could leave the new name without its content
            if self.keep_steps and self._saved % self.keep_steps == 0:
                shutil.copyfile(partial, self.path.with_name(f"step{self._saved:08}{self.FILE_EXTENSION}"))
            partial.replace(self.path)
        trainer.strategy.barrier("last checkpoint")
        self.last_model_path = str(self.path)
