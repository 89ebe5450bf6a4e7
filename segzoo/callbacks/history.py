"""Figures of the whole training, drawn when it is over."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import CSVLogger

from segzoo.callbacks.publish import publish
from segzoo.evaluation.history import WEIGHTS, read_history, select
from segzoo.evaluation.plots import curves_figure, weight_history_figure


class HistoryFigures(L.Callback):
    """Draws ``figures/curves.png`` and, for weighting methods, ``figures/weights.png`` from ``metrics.csv``.

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
        if history:
            publish(trainer, curves_figure(history), folder / "curves.png", "curves")
        if select(history, WEIGHTS):
            space: Any = pl_module.label_space
            publish(trainer, weight_history_figure(history, space), folder / "weights.png", "weights")
