"""How a checkpoint reaches the disk."""

import io
import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from segzoo.models.state_dicts import non_finite


class DirectIO(TorchCheckpointIO):
    """Writes a checkpoint straight to its path, and says with the path why that failed.

    Lightning collects it in memory, writes it into the system's temporary folder, which may be full, and moves it; torch hides
    the system's error behind one of its own.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes one file.

        Raises:
            OSError: the system's error, with the file's name.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _Recording(path, "w") as file:
            try:
                torch.save(checkpoint, file)
            except Exception as error:
                if file.error is None:
                    raise
                raise OSError(file.error.errno, os.strerror(file.error.errno or 0), str(path)) from error


class _Recording(io.FileIO):
    error: OSError | None = None

    def write(self, data: Any) -> int:
        """All of it, as a buffered file would; keeps the error, which torch replaces by its own."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += super().write(view[done:]) or 0
        except OSError as error:
            self.error = error
            raise
        return done


def save_together(trainer: L.Trainer, path: Path) -> OSError | None:
    """Writes a checkpoint and tells every process how that went: none waits for one that has failed.

    Args:
        trainer: every process calls this.
        path: the file.

    Returns:
        The error of the process that writes, on all of them.
    """
    error = None
    try:
        trainer.save_checkpoint(path, weights_only=False)
    except OSError as caught:
        error = caught
        trainer.strategy.barrier("Trainer.save_checkpoint")  # where the others are
    return trainer.strategy.broadcast(error)


def spoiled(trainer: L.Trainer) -> str | None:
    """What is not finite in a training's state, on any process. Every process calls it.

    Returns:
        The first parameter, buffer or tensor of an optimiser, by its name; None when all numbers are finite.
    """
    optimizers = {str(i): optimizer.state_dict() for i, optimizer in enumerate(trainer.optimizers)}
    name = non_finite({**trainer.lightning_module.state_dict(), "optimizer": optimizers})
    anywhere = trainer.strategy.reduce_boolean_decision(name is not None, all=False)
    return (name or "a tensor of another process") if anywhere else None


def last_good(path: Path) -> str:
    """Half a sentence on the checkpoint of a run that has diverged.

    Args:
        path: the last checkpoint, if there is one. It is named only if it can be read and all its numbers are finite.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        good, step = non_finite(found["state_dict"]) is None, found["global_step"]
    except Exception:  # torch raises whatever its unpickler and zip reader raise
        good, step = False, 0
    return f"the last good checkpoint is {path}, of step {step}" if good else "there is no good checkpoint before"
