"""Figures of the whole training, drawn when it is over."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import CSVLogger

from segzoo.callbacks.publish import publish
from segzoo.evaluation.history import PRECISION, SOURCE_WEIGHTS, WEIGHTS, is_course, read_history, select
from segzoo.evaluation.plots import class_history_figure, curves, curves_figure


class HistoryFigures(L.Callback):
    """Draws ``metrics.csv``: ``figures/curves.png`` and, of what has them, ``weights.png`` and ``pseudo-labels.png`` by class.

    ``source-weights.png`` is the same by source, where there are several.

    A figure is drawn when there are two points of something in it: one point is no course.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.run_dir = Path(run_dir)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reads what was logged and draws it."""
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if logger.name == "csv" or isinstance(logger, CSVLogger):
                logger.finalize("success")  # writes the last rows; more may follow
        history = read_history(self.run_dir / "metrics.csv")
        folder = self.run_dir / "figures"
        if any(is_course(lines) for lines in curves(history)):
            publish(trainer, curves_figure(history), folder / "curves.png", "curves")
        space: Any = pl_module.label_space
        for metric, name in ((WEIGHTS, "weights"), (SOURCE_WEIGHTS, "source-weights"), (PRECISION, "pseudo-labels")):
            if is_course(select(history, metric)):
                publish(trainer, class_history_figure(history, space, metric), folder / f"{name}.png", name)
