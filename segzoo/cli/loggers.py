"""Loggers of a run: ``metrics.csv`` always, TensorBoard and wandb on request."""

import netrc
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from segzoo.callbacks.metrics_csv import MetricsCsv
from segzoo.cli.logger_names import parse_names


def create_loggers(names: str, folder: Path, config: dict[str, Any]) -> list[Logger]:
    """The loggers of a comma-separated list; ``csv`` is always among them.

    Args:
        names: e.g. ``csv,wandb``.
        folder: the run folder.
        config: the run's configuration, for wandb.

    Raises:
        ConfigError: an unknown name.
    """
    wanted = parse_names(names)
    loggers: list[Logger] = [MetricsCsv(folder)]
    if "tensorboard" in wanted:
        from lightning.pytorch.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(save_dir=str(folder), name="tensorboard", version=""))
    if "wandb" in wanted:
        from lightning.pytorch.loggers import WandbLogger

        name = "/".join(folder.parts[-3:])
        loggers.append(
            WandbLogger(project="segzoo", name=name, save_dir=str(folder), offline=wandb_offline(), config=config)
        )
    return loggers


def wandb_offline() -> bool:
    """Whether wandb has no account to send to: no key and no login. ``WANDB_MODE`` decides when it is set."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode == "offline"
    if os.environ.get("WANDB_API_KEY"):
        return False
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").partition("://")[2].partition("/")[0]
    try:
        return netrc.netrc().authenticators(host) is None
    except (OSError, netrc.NetrcParseError):
        return True
