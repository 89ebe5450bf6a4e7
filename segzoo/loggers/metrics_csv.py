"""``metrics.csv``: every metric of a run, a row per step."""

import csv
import io
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from segzoo.compat.training import logs_this_step, step_metrics, steps_done
from segzoo.files import named_errors, whole_file


class MetricsCsv(Logger):
    """One row per step in ``<folder>/metrics.csv``; columns appear as metrics do.

    A resumed run continues the file: rows of steps that are done again, because the run was killed after its
    last checkpoint, are replaced. (Lightning's own logger starts a new file, and a row per call.)

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._rows: list[dict[str, Any]] = []
        self._columns = ["step", "epoch"]
        self._written = 0
        self._header: list[str] = []
        self._earlier = _read_rows(self.path)

    @property
    def name(self) -> str:
        """Required by Lightning."""
        return "csv"

    @property
    def version(self) -> str:
        """Required by Lightning."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    def resume(self, steps: int) -> None:
        """Forgets the rows of steps that are done again.

        Args:
            steps: how many the checkpoint has.
        """
        self._earlier = [row for row in self._earlier if row["step"] < steps]

    def has(self, step: int, prefix: str) -> bool:
        """Whether an earlier part of the run logged a metric of that prefix at a step."""
        return any(row["step"] == step and any(name.startswith(prefix) for name in row) for row in self._earlier)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds values to the row of a step."""
        step = 0 if step is None else step
        if self._earlier:
            self._rows = [row for row in self._earlier if row["step"] <= step]
            self._earlier, self._written = [], len(self._rows)
            for row in self._rows:
                self._add_columns(row)
        self._add_columns(metrics)
        if self._rows and self._rows[-1]["step"] == step and (epoch := self._rows[-1].get("epoch")) is not None:
            # A validation that is made good after a resume is that of the epoch which had ended.
            metrics = {**metrics, "epoch": epoch}
        if not self._rows or self._rows[-1]["step"] != step:
            self._rows.append({"step": step})
        elif self._written == len(self._rows) and any(
            self._rows[-1].get(name) != value for name, value in metrics.items()
        ):
            self._header = []  # the row is in the file already: write the file again
        self._rows[-1].update(metrics)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``config.yaml`` holds them."""

    @rank_zero_only
    def save(self) -> None:
        """Writes the rows that are complete, which the last may not be yet; none that was there is taken out."""
        self._write(self._rows[: max(self._written, len(self._rows) - 1)])

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes all rows."""
        self._write(self._rows)

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        there = self.path.is_file()  # the run folder may have been removed
        if self._earlier or (len(rows) <= self._written and self._header and there):
            return  # until this run has a row of its own, the file is that of the run it resumes
        if self._header == self._columns and there:
            self._append(rows[self._written :])
        else:  # a new metric is a new column
            with whole_file(self.path, sync=True) as partial, partial.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(rows)
            self._header = list(self._columns)
        self._written = len(rows)

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns).writerows(rows)
        before = self.path.stat().st_size
        try:
            with named_errors(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
                file.write(text.getvalue())
        except OSError:
            os.truncate(self.path, before)  # half a row could be read as another one
            raise

    def _add_columns(self, row: Mapping[str, Any]) -> None:
        self._columns += [name for name in row if name not in self._columns]


def metrics_csv(trainer: L.Trainer) -> MetricsCsv | None:
    """The logger of ``metrics.csv``, if there is one."""
    return next((logger for logger in trainer.loggers if isinstance(logger, MetricsCsv)), None)


def log_step(trainer: L.Trainer) -> None:
    """Gives ``metrics.csv`` the row of the step that just ended. Every process calls it, at the end of a step.

    Lightning hands a step's metrics to the loggers only after all callbacks have seen the step; a checkpoint that is
    written before would continue after a row that a kill had lost.
    """
    logger = metrics_csv(trainer)
    if logger is None or not logs_this_step(trainer):
        return
    metrics = step_metrics(trainer)  # some are means over the processes
    step = metrics.pop("step", steps_done(trainer))
    if metrics:
        logger.log_metrics({**metrics, "epoch": trainer.current_epoch}, int(step))


def flush(trainer: L.Trainer) -> None:
    """Has all rows of ``metrics.csv`` on the disk."""
    if logger := metrics_csv(trainer):
        logger.finalize("running")


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        whole = [line for line in file if line.endswith("\n")]  # half a row could be read as another one
    rows = [
        {key: value for key, value in row.items() if key and value not in ("", None)} for row in csv.DictReader(whole)
    ]
    return [{**row, "step": int(row["step"])} for row in rows if row.get("step", "").isdigit()]
