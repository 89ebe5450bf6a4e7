"""Sends a figure to the run folder and to every logger that takes pictures."""

from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure

from segzoo.evaluation.plots import figure_pixels, save_figure


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
