"""Reads the ``metrics.csv`` of a run: a row per logging event, most cells empty."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Series = tuple[Floats, Floats]
History = Mapping[str, Series]

TERMS = "train/"
WEIGHTS = "weight/class/"
MEAN_WEIGHT = "weight/mean"
AUCS = "auc/"
PRECISION = "pseudo/precision/"


def read_history(path: str | Path) -> dict[str, Series]:
    """The logged values of every metric.

    Args:
        path: ``metrics.csv``; a missing or empty file gives an empty history.

    Returns:
        Per metric the (steps, values) at which it was logged and finite, in order of the steps.
    """
    path = Path(path)
    if not path.is_file():
        return {}
    points: dict[str, dict[float, float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if not row.get("step"):
                continue
            step = float(row["step"])
            for name, cell in row.items():
                if name not in ("step", "epoch") and cell and np.isfinite(float(cell)):
                    points.setdefault(name, {})[step] = float(cell)
    return {name: _series(values) for name, values in points.items()}


def select(history: History, prefix: str) -> dict[str, Series]:
    """The metrics whose name begins with ``prefix``, named by what follows it."""
    return {name.removeprefix(prefix): series for name, series in history.items() if name.startswith(prefix)}


def _series(values: Mapping[float, float]) -> Series:
    steps = np.array(sorted(values))
    return steps, np.array([values[step] for step in steps])
