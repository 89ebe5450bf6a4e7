"""Loggers of a run: ``metrics.csv`` always, TensorBoard and wandb on request."""

import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from segzoo.loggers.metrics_csv import MetricsCsv
from segzoo.loggers.names import parse_names
from segzoo.loggers.wandb_mode import answers, server, wandb_mode


def create_loggers(names: str, folder: Path, config: dict[str, Any]) -> list[Logger]:
    """The loggers of a comma-separated list; ``csv`` is always among them.

    Args:
        names: e.g. ``csv,wandb``.
        folder: the run folder.
        config: the run's configuration, for wandb.

    Raises:
        ConfigError: an unknown name, or variables of wandb that it would refuse.
    """
    wanted = parse_names(names)
    loggers: list[Logger] = [MetricsCsv(folder)]
    if "tensorboard" in wanted:
        from segzoo.loggers.careful import CarefulTensorBoard

        loggers.append(CarefulTensorBoard(save_dir=str(folder), name="tensorboard", version=""))
    if "wandb" in wanted and (mode := _mode(folder)) != "disabled":
        from segzoo.loggers.careful import CarefulWandb

        last = folder / "checkpoints" / "last.ckpt" if config.get("upload_checkpoint") else None
        loggers.append(CarefulWandb(folder, mode, config, last))
    return loggers


def _mode(folder: Path) -> str:
    """That of wandb; offline where its server does not answer."""
    mode, first = wandb_mode(), getattr(rank_zero_only, "rank", 0) == 0
    if not os.environ.get("WANDB_MODE", "").strip():
        os.environ.pop("WANDB_MODE", None)  # wandb refuses an empty one
    if mode in ("online", "shared") and first and not answers(server()):
        from segzoo.loggers.careful import offline_line, warn

        warn(offline_line(str(folder), f"{server()} does not answer"))
        return "offline"
    return mode
