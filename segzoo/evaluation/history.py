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
SOURCE_WEIGHTS = "weight/source/"
MEAN_WEIGHT = "weight/mean"
AUCS = "auc/"
PRECISION = "pseudo/precision/"
LARGEST = 1e100
"""Axes overflow with numbers near the largest ones of float64; float32 ends at 3e38."""


def read_history(path: str | Path) -> dict[str, Series]:
    """The logged values of every metric.

    Args:
        path: ``metrics.csv``; a missing or empty file gives an empty history.

    Returns:
        Per metric the (steps, values) at which it was logged, finite and below `LARGEST`, in order of the steps.
    """
    path = Path(path)
    if not path.is_file():
        return {}
    points: dict[str, dict[float, float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            step = _number(row.get("step"))
            for name, cell in row.items() if np.isfinite(step) else ():
                if name not in (None, "step", "epoch") and np.isfinite(value := _number(cell)):
                    points.setdefault(name, {})[step] = value
    return {name: _series(values) for name, values in points.items()}


def select(history: History, prefix: str) -> dict[str, Series]:
    """The metrics whose name begins with ``prefix``, named by what follows it."""
    return {name.removeprefix(prefix): series for name, series in history.items() if name.startswith(prefix)}


def is_course(history: History) -> bool:
    """Whether there is something to draw a line through: two points of a metric."""
    return any(len(steps) > 1 for steps, _ in history.values())


def _number(cell: object) -> float:
    """NaN for what is no number that can be drawn: an empty cell, one that was cut off with its process, or 1e300."""
    try:
        value = float(str(cell))
    except ValueError:
        return float("nan")
    return value if abs(value) < LARGEST else float("nan")


def _series(values: Mapping[float, float]) -> Series:
    steps = np.array(sorted(values))
    return steps, np.array([values[step] for step in steps])
