"""Loggers that do not end a training: what goes wrong in one is said once, and it logs nothing more."""

import os
import sys
import textwrap
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from segzoo.compat.training import TENSORBOARD_THREAD, no_experiment, wandb_arguments
from segzoo.errors import ConfigError, SegzooError

INIT_SECONDS = 20.0
"""wandb has for the beginning of a run; its own are 90, and further ones after them."""
FINISH_SECONDS = 300.0
"""It has to send the rest when all is done, which without a network would never end; `wandb sync` sends what is left."""


def careful(method: Callable[..., None]) -> Callable[..., None]:
    """A method of a logger: rank zero alone calls it, an error in it is the logger's last."""

    @wraps(method)
    @rank_zero_only
    def call(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.failed:
            return
        try:
            method(self, *args, **kwargs)
        except SegzooError:
            raise
        except Exception as error:
            stop(self, error)

    return call


def stop(logger: Any, error: Exception) -> None:
    """Says once that a logger logs nothing more, and why."""
    if logger.failed:
        return
    logger.failed = True
    reason = _short(error)
    warn(f"{logger.label} stopped: {reason}; the training goes on, metrics.csv has all numbers")
    logger.give_up()


def _short(error: Exception) -> str:
    """What an error says, in one line; that of a server may be a whole page."""
    return textwrap.shorten(str(error), 240, placeholder=" ...") or type(error).__name__


def warn(text: str) -> None:
    """One line."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


class CarefulTensorBoard(TensorBoardLogger):
    """TensorBoard, which takes pictures by the path of their file as wandb does."""

    label = "TensorBoard"
    failed = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        threading.excepthook = _quiet_writer(threading.excepthook)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of events, made at the first call; one that writes nothing where it cannot be made."""
        try:
            return no_experiment() if self.failed else super().experiment
        except Exception as error:
            stop(self, error)
            return no_experiment()

    def give_up(self) -> None:
        """Nothing is left open that matters."""

    log_metrics = careful(TensorBoardLogger.log_metrics)
    log_hyperparams = careful(TensorBoardLogger.log_hyperparams)
    log_graph = careful(TensorBoardLogger.log_graph)
    save = careful(TensorBoardLogger.save)
    finalize = careful(TensorBoardLogger.finalize)

    @careful
    def log_image(self, key: str, images: list[str], step: int) -> None:
        """Logs a picture of a file."""
        import numpy as np
        from PIL import Image

        for path in images:
            with Image.open(path) as picture:
                self.experiment.add_image(key, np.asarray(picture.convert("RGB")), step, dataformats="HWC")


class CarefulWandb(WandbLogger):
    """wandb, offline when its server cannot be reached.

    Args:
        folder: the run folder.
        mode: online, offline or shared.
        config: the run's configuration.
    """

    label = "wandb"
    failed = False

    def __init__(self, folder: Path, mode: str, config: dict[str, Any]) -> None:
        from wandb import Settings

        wanted = {"quiet": True, "init_timeout": INIT_SECONDS, "finish_timeout": FINISH_SECONDS}
        known: Any = Settings.model_fields  # of the version that is installed
        settings = Settings(
            **{n: value for n, value in wanted.items() if n in known and f"WANDB_{n.upper()}" not in os.environ}
        )
        name = "/".join(folder.parts[-3:])
        super().__init__(project="segzoo", name=name, save_dir=str(folder), config=config, mode=mode, settings=settings)
        wandb_arguments(self).pop("anonymous", None)  # wandb says that it has no effect

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """wandb's run, begun at the first call; one that logs nothing where it cannot begin.

        Raises:
            ConfigError: wandb refuses the key or another setting.
        """
        from wandb.errors import AuthenticationError, CommError, UsageError

        if self.failed:
            return no_experiment()
        try:
            try:
                return super().experiment
            except CommError as error:
                if isinstance(error, AuthenticationError):
                    raise
                warn(offline_line(self.save_dir, _short(error).partition(" Consider ")[0]))
                wandb_arguments(self)["mode"] = "offline"
                return super().experiment
        except (AuthenticationError, UsageError) as error:
            raise ConfigError(f"wandb: {_short(error)}; or set WANDB_MODE=offline") from error
        except Exception as error:
            stop(self, error)
            return no_experiment()

    def give_up(self) -> None:
        """Otherwise wandb would say goodbye, at the end, to a service that is gone, with a traceback."""
        import wandb

        with suppress(Exception):
            wandb.teardown()

    log_metrics = careful(WandbLogger.log_metrics)
    log_hyperparams = careful(WandbLogger.log_hyperparams)
    log_image = careful(WandbLogger.log_image)
    finalize = careful(WandbLogger.finalize)


def _quiet_writer(usual: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A hook for errors in threads: TensorBoard's writer raises its own again where the logger calls it."""

    def hook(args: Any) -> None:
        if type(args.thread).__name__ != TENSORBOARD_THREAD:
            usual(args)

    return hook


def offline_line(folder: str | None, why: str) -> str:
    """What is said of a run that stays on this machine."""
    return f"wandb: {why}; the run is logged offline, send it later with `wandb sync {folder}/wandb/offline-run-*`"
