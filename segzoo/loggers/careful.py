"""Loggers that do not end a training: what goes wrong in one is said once, and it logs nothing more."""

import csv
import json
import math
import os
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from segzoo.compat.training import TENSORBOARD_THREAD, has_experiment, no_experiment, wandb_arguments
from segzoo.errors import ConfigError, SegzooError
from segzoo.files import write_text

INIT_SECONDS = 20.0
"""wandb has for the beginning of a run; its own are 90, and further ones after them."""
FINISH_SECONDS = 300.0
"""It has to send the rest when all is done, which without a network would never end; `wandb sync` sends what is left."""

SCORE, BEST = "val/miou", "best/"
"""The metric whose best value the summary keeps beside the last, and what its name begins with there."""


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
        checkpoint: file that is sent as an artifact when a training has ended; None sends none.

    Attributes:
        id_file: holds the id of wandb's run and its project: a training that goes on in this folder goes on there, too.
    """

    label = "wandb"
    failed = False

    def __init__(self, folder: Path, mode: str, config: dict[str, Any], checkpoint: Path | None = None) -> None:
        from wandb import Settings

        wanted = {"quiet": True, "init_timeout": INIT_SECONDS, "finish_timeout": FINISH_SECONDS}
        known: Any = Settings.model_fields  # of the version that is installed
        settings = Settings(
            **{n: value for n, value in wanted.items() if n in known and f"WANDB_{n.upper()}" not in os.environ}
        )
        self.id_file, self._best, self._checkpoint = folder / "wandb" / "run.json", _best_so_far(folder), checkpoint
        self._place = _place(self.id_file)
        super().__init__(
            **self._place,
            name="/".join(folder.parts[-3:]),
            save_dir=str(folder),
            config=config,
            mode=mode,
            settings=settings,
        )
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
        begins = not has_experiment(self)
        try:
            try:
                run = super().experiment
            except CommError as error:
                if isinstance(error, AuthenticationError):
                    raise
                warn(offline_line(self.save_dir, _short(error).partition(" Consider ")[0]))
                wandb_arguments(self)["mode"] = "offline"
                run = super().experiment
            if begins:
                write_text(self.id_file, json.dumps({**self._place, "id": run.id}) + "\n")
            return run
        except (AuthenticationError, UsageError) as error:
            raise ConfigError(f"wandb: {_short(error)}; or set WANDB_MODE=offline") from error
        except Exception as error:
            stop(self, error)
            return no_experiment()

    def give_up(self) -> None:
        """Otherwise wandb would say goodbye to a service that is gone, and the next training would log to its run."""
        import wandb

        with suppress(Exception, SystemExit):  # it exits as its service did
            wandb.teardown()
        wandb.run = None

    log_image = careful(WandbLogger.log_image)
    log_table = careful(WandbLogger.log_table)

    @careful
    def log_hyperparams(self, params: Any) -> None:
        """Nothing: the run began with its whole configuration, and those of the method alone would stand beside it."""

    @careful
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Logs values; the summary has the last of each, and with `BEST` the best validation so far and its step."""
        WandbLogger.log_metrics(self, metrics, step)
        score = metrics.get(SCORE)
        if score is not None and not score <= self._best:
            self._best = float(score)
            self.experiment.summary.update({f"{BEST}{SCORE}": self._best, f"{BEST}step": step})

    @careful
    def log_record(self, record: Mapping[str, Any]) -> None:
        """Adds to the configuration what is known of code and machine.

        Args:
            record: plain values by name; they come below the key ``run``.
        """
        self.experiment.config.update({"run": dict(record)}, allow_val_change=True)

    @careful
    def log_overlays(
        self, key: str, pictures: Sequence[Any], masks: Sequence[Mapping[str, Any]], names: Sequence[str]
    ) -> None:
        """Logs images with masks that can be switched on and off.

        Args:
            key: name in wandb.
            pictures: (H, W, 3) uint8 each.
            masks: class ids (H, W) of each picture by what they are, e.g. ``prediction``.
            names: of the classes.
        """
        import wandb

        labels = {**dict(enumerate(names)), 255: "ignored"}
        shown = [
            wandb.Image(picture, masks={what: {"mask_data": ids, "class_labels": labels} for what, ids in one.items()})
            for picture, one in zip(pictures, masks, strict=True)
        ]
        self.experiment.log({key: shown})

    @careful
    def log_confusion(self, key: str, counts: Any, names: Sequence[str]) -> None:
        """Logs a confusion matrix that wandb draws.

        Args:
            key: name in wandb.
            counts: (classes, classes) pixels; rows are the truth.
            names: of the classes.
        """
        import wandb

        columns = ["Actual", "Predicted", "nPredictions"]
        pairs = zip(names, counts.tolist(), strict=True)
        data = [[truth, found, pixels] for truth, row in pairs for found, pixels in zip(names, row, strict=True)]
        table = wandb.Table(columns=columns, data=data)
        fields, texts = {name: name for name in columns}, {"title": key}
        self.experiment.log({key: wandb.plot_table("wandb/confusion_matrix/v1", table, fields, texts)})

    @careful
    def finalize(self, status: str) -> None:
        """Sends the checkpoint of a training that came to its end, where that is asked for; once."""
        if status == "success" and self._checkpoint is not None and self._checkpoint.is_file():
            import wandb

            run, path = self.experiment, self._checkpoint
            self._checkpoint = None
            artifact = wandb.Artifact(f"checkpoint-{run.id}", type="model")
            artifact.add_file(str(path))
            run.log_artifact(artifact, aliases=["last"])


def _place(path: Path) -> dict[str, Any]:
    """Id, project and entity of the run that goes on; those that the variables of wandb or of its agent name come first."""
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        before = {}
    return {
        "id": None if os.environ.get("WANDB_RUN_ID") else before.get("id"),
        "project": os.environ.get("WANDB_PROJECT") or before.get("project") or "segzoo",
        "entity": os.environ.get("WANDB_ENTITY") or before.get("entity"),
    }


def _best_so_far(folder: Path) -> float:
    """The best validation that the folder knows of."""
    path = folder / "metrics.csv"
    if not path.is_file():
        return -math.inf
    with path.open(newline="", encoding="utf-8") as file:
        return max((float(row[SCORE]) for row in csv.DictReader(file) if row.get(SCORE)), default=-math.inf)


def _quiet_writer(usual: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A hook for errors in threads: TensorBoard's writer raises its own again where the logger calls it."""

    def hook(args: Any) -> None:
        if type(args.thread).__name__ != TENSORBOARD_THREAD:
            usual(args)

    return hook


def offline_line(folder: str | None, why: str) -> str:
    """What is said of a run that stays on this machine."""
    return f"wandb: {why}; the run is logged offline, send it later with `wandb sync {folder}/wandb/offline-run-*`"
