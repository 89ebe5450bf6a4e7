"""Options of Lightning's Trainer that need help to do here what they say, or cannot."""

import math
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins import AsyncCheckpointIO
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from segzoo.checks import check_range
from segzoo.compat.training import profile_name, profiled_rank
from segzoo.errors import ConfigError

COUNT_EPOCHS = {
    "GradientAccumulationScheduler": "use --trainer.accumulate_grad_batches",
    "StochasticWeightAveraging": "leave it out",
    "BackboneFinetuning": "leave it out",
}
"""Callbacks of Lightning that act at numbers of epochs, and what to do instead."""
PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
SHOWN, WIDTH = 25, 160  # lines and columns of a profile; all of it is in the file


def prepare_trainer_options(options: dict[str, Any], callbacks: list[Any], run_dir: Path) -> None:
    """Refuses what cannot work, and has a profile written into the run folder, in place.

    Args:
        options: keyword arguments of the Trainer.
        callbacks: those that the user added.
        run_dir: the run folder.

    Raises:
        ConfigError: a callback that counts epochs, or a value that contradicts another or itself.
    """
    for callback in callbacks:
        for cls in type(callback).__mro__:
            if instead := COUNT_EPOCHS.get(cls.__name__):
                raise ConfigError(
                    f"--trainer.callbacks: {cls.__name__} acts after a number of epochs, and training streams have none; "
                    f"{instead}"
                )
    least, most = options.get("min_steps"), options.get("max_steps", -1)
    if least is not None and 0 <= most < least:
        raise ConfigError(f"--trainer.min_steps {least} is more than --trainer.max_steps {most}; leave it out")
    if isinstance(clip := options.get("gradient_clip_val"), int | float) and not clip >= 0:
        raise ConfigError(f"--trainer.gradient_clip_val {clip}: expected 0 or more, or null")
    check_range("--trainer.log_every_n_steps", options.get("log_every_n_steps") or 0, 0)
    check_range("--trainer.num_sanity_val_steps", options.get("num_sanity_val_steps") or 0, -1)
    if isinstance(limit := options.get("max_time"), str) and not set(limit) & set("123456789"):
        raise ConfigError(f"--trainer.max_time {limit}: expected above 0, as days:hours:minutes:seconds")
    plugins = options.get("plugins") or []
    if any(isinstance(one, AsyncCheckpointIO) for one in (plugins if isinstance(plugins, list) else [plugins])):
        raise ConfigError(
            "--trainer.plugins: AsyncCheckpointIO writes later, and a checkpoint must be whole before it counts"
        )
    profiler = options.get("profiler")
    if profiler in PROFILERS:
        options["profiler"] = profiler = PROFILERS[profiler](dirpath=str(run_dir), filename="profile")
    if isinstance(profiler, Profiler):
        # Without a file Lightning writes the table to its log, of which only warnings are shown.
        profiler.filename = profiler.filename or "profile"
        profiler.dirpath = profiler.dirpath or str(run_dir)
        _show(profiler)


def check_test_share(trainer: Any, images: int, batch_size: int) -> None:
    """Refuses a share of the test batches that is none of them; Lightning would after the training.

    Args:
        trainer: the trainer.
        images: number of test images.
        batch_size: images per step and process.

    Raises:
        ConfigError: the share is less than one batch.
    """
    share, batches = trainer.limit_test_batches, math.ceil(images / trainer.world_size / batch_size)
    if isinstance(share, float) and 0 < share < 1 and batches * share < 1:
        raise ConfigError(
            f"--trainer.limit_test_batches {share}: that share of {batches} test batches is none; use at least "
            f"{1 / batches:.2g}, or a number of batches such as 1"
        )


def _show(profiler: Profiler) -> None:
    """Has the beginning of the table printed when it is written."""
    write = profiler.describe

    def describe() -> None:
        lines = [line.rstrip() for line in profiler.summary().splitlines() if line.strip()]
        path = Path(profiler.dirpath or ".") / profile_name(profiler)
        write()
        if lines and not profiled_rank(profiler):
            print("\n".join(_narrow(line) for line in lines[:SHOWN]))
            print(f"profile: {path}")

    profiler.describe = describe  # type: ignore[method-assign]


def _narrow(line: str) -> str:
    """A row of Lightning's table with its first column, up to 150 letters wide, cut to what matters."""
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    if not line.startswith("|") or len(cells) < 2:
        return line[:WIDTH]
    return f"{cells[0][:60]:60}" + "".join(f"  {cell:>16}" for cell in cells[1:])
