"""Sends a figure to the run folder and to every logger that takes pictures; to wandb what it draws itself."""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from PIL import Image

from segzoo.data.label_spaces import LabelSpace
from segzoo.evaluation.plots import figure_pixels, save_figure
from segzoo.evaluation.scores import Scores

Pixels = npt.NDArray[Any]


def publish(trainer: L.Trainer, figure: Figure, path: Path, tag: str) -> None:
    """Writes a figure and logs it at the current step.

    Args:
        trainer: its loggers get the figure; those without pictures (CSV, unknown ones) are skipped.
        figure: what to show.
        path: PNG file.
        tag: name in the loggers, the same for all steps.
    """
    save_figure(figure, path)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) or hasattr(logger, "log_image"):
            logger.log_image(tag, [str(path)], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            pixels = figure_pixels(figure)
            logger.experiment.add_image(tag, pixels, trainer.global_step, dataformats="HWC")


def publish_overlays(trainer: L.Trainer, columns: Mapping[str, Sequence[Pixels]], space: LabelSpace, tag: str) -> None:
    """Logs images with their classes as masks that can be switched on and off, where a logger takes them.

    Args:
        trainer: its loggers with ``log_overlays`` get them.
        columns: ``image`` (H, W, 3), ``prediction`` and, where there are labels, ``label`` (H, W), a list each.
        space: names of the classes.
        tag: name in the loggers.
    """
    takers: list[Any] = [logger for logger in trainer.loggers if hasattr(logger, "log_overlays")]
    if not takers:
        return
    found = {name: columns[name] for name in ("label", "prediction") if name in columns}
    masks = [dict(zip(found, one, strict=True)) for one in zip(*found.values(), strict=True)]
    pictures = [
        np.asarray(Image.fromarray(image).resize(one["prediction"].shape[::-1]))
        for image, one in zip(columns["image"], masks, strict=True)
    ]
    for logger in takers:
        logger.log_overlays(tag, pictures, masks, space.classes)


def publish_scores(trainer: L.Trainer, scores: Scores, split: str) -> None:
    """Logs the table of classes and the confusion matrix, where a logger takes them.

    Args:
        trainer: its loggers with ``log_table`` and ``log_confusion`` get them.
        scores: what was measured.
        split: on which images.
    """
    values = zip(scores.iou, scores.precision, scores.recall, strict=True)
    rows = [
        [name, *(None if isnan(one) else float(one) for one in of_class)]
        for name, of_class in zip(scores.classes, values, strict=True)
    ]
    for logger in trainer.loggers:
        taker: Any = logger
        if hasattr(taker, "log_table"):
            taker.log_table(f"classes/{split}", columns=["class", "IoU", "precision", "recall"], data=rows)
        if hasattr(taker, "log_confusion"):
            taker.log_confusion(f"confusion/{split}", scores.confusion, scores.classes)
