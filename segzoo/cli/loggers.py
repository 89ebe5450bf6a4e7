"""Loggers of a run: ``metrics.csv`` always, TensorBoard and wandb on request."""

import csv
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from segzoo.cli.logger_names import parse_names
from segzoo.cli.wandb_mode import answers, server, wandb_mode


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

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds values to the row of a step."""
        step = 0 if step is None else step
        if self._earlier:
            self._rows = [row for row in self._earlier if row["step"] <= step]
            self._earlier = []
            for row in self._rows:
                self._add_columns(row)
        self._add_columns(metrics)
        if not self._rows or self._rows[-1]["step"] != step:
            self._rows.append({"step": step})
        elif self._written == len(self._rows):
            self._header = []  # the row is in the file already: write the file again
        self._rows[-1].update(metrics)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``config.yaml`` holds them."""

    @rank_zero_only
    def save(self) -> None:
        """Writes the rows that are complete, which the last may not be yet."""
        self._write(self._rows[:-1])

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes all rows."""
        self._write(self._rows)

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self._earlier or (len(rows) <= self._written and self._header):
            return  # until this run has a row of its own, the file is that of the run it resumes
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._header == self._columns:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerows(rows[self._written :])
        else:  # a new metric is a new column
            partial = self.path.with_suffix(".csv.partial")
            with partial.open("w", newline="") as file:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(rows)
            partial.replace(self.path)
            self._header = list(self._columns)
        self._written = len(rows)

    def _add_columns(self, row: Mapping[str, Any]) -> None:
        self._columns += [name for name in row if name not in self._columns]


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
        from segzoo.cli.careful_loggers import CarefulTensorBoard

        loggers.append(CarefulTensorBoard(save_dir=str(folder), name="tensorboard", version=""))
    if "wandb" in wanted and (mode := _mode(folder)) != "disabled":
        from segzoo.cli.careful_loggers import CarefulWandb

        loggers.append(CarefulWandb(folder, mode, config))
    return loggers


def _mode(folder: Path) -> str:
    """That of wandb; offline where its server does not answer."""
    mode = wandb_mode()
    if not os.environ.get("WANDB_MODE", "").strip():
        os.environ.pop("WANDB_MODE", None)  # wandb refuses an empty one
    if mode in ("online", "shared") and getattr(rank_zero_only, "rank", 0) == 0 and not answers(server()):
        from segzoo.cli.careful_loggers import offline_line, warn

        warn(offline_line(str(folder), f"{server()} does not answer"))
        return "offline"
    return mode


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = [
            {key: value for key, value in row.items() if key and value not in ("", None)}
            for row in csv.DictReader(file)
        ]
    return [{**row, "step": int(row["step"])} for row in rows if row.get("step", "").isdigit()]
