"""What training steps cost, as numbers and as a table; see `segzoo.bench.measure` for how it is measured."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segzoo.evaluation.score_tables import ABSENT

MIB = 2**20
HEADER = ("row", "s/step", "× {unit}", "its quartiles", "peak MiB", "× {unit}", "cosine")


@dataclass(frozen=True)
class StepCost:
    """The cost of one row's training step.

    Attributes:
        seconds: of every measured step, the rounds pooled. Those of all rows at one index are of one turn.
        peak_bytes: peak memory above idle; None where it cannot be measured.
        cosine: between its hypergradient and the reference; None for a row without one.
    """

    seconds: tuple[float, ...]
    peak_bytes: int | None
    cosine: float | None

    @property
    def median(self) -> float:
        """Median of the seconds per step."""
        return float(np.median(self.seconds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the seconds per step."""
        low, high = np.percentile(self.seconds, [25, 75])
        return float(low), float(high)

    def time_ratio(self, unit: "StepCost") -> float:
        """Median of the ratios of steps of one turn: a machine that is slow for a while is so for both."""
        return float(np.median(self._ratios(unit)))

    def ratio_quartiles(self, unit: "StepCost") -> tuple[float, float]:
        """First and third quartile of these ratios."""
        low, high = np.percentile(self._ratios(unit), [25, 75])
        return float(low), float(high)

    def _ratios(self, unit: "StepCost") -> list[float]:
        return [own / other for own, other in zip(self.seconds, unit.seconds, strict=True)]

    def memory_ratio(self, unit: "StepCost") -> float | None:
        """Peak over the unit's peak; None if either is unknown."""
        return self.peak_bytes / unit.peak_bytes if self.peak_bytes and unit.peak_bytes else None


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Cosine of two vectors; NaN when one of them is zero."""
    x, y = np.asarray(a, float), np.asarray(b, float)
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norms if norms else float("nan")


def cost_table(costs: Mapping[str, StepCost], unit: str, skipped: Mapping[str, str] | None = None) -> str:
    """A markdown table with aligned columns, a line per row; skipped rows stand below it with their reason.

    Args:
        costs: the measured rows by name.
        unit: the row that times and memory are divided by.
        skipped: why a row was not measured.
    """
    lines = [[cell.format(unit=unit) for cell in HEADER]]
    for name, cost in costs.items():
        low, high = cost.ratio_quartiles(costs[unit])
        times = [f"{cost.median:.3f}", f"{cost.time_ratio(costs[unit]):.2f}", f"{low:.2f}–{high:.2f}"]
        peak = ABSENT if cost.peak_bytes is None else f"{cost.peak_bytes / MIB:.0f}"
        ratio = cost.memory_ratio(costs[unit])
        likeness = ABSENT if cost.cosine is None else f"{cost.cosine:.6f}"
        lines.append([name, *times, peak, ABSENT if ratio is None else f"{ratio:.2f}", likeness])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    cells = [
        [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in (lines[0], rule, *lines[1:])
    ]
    table = "\n".join("| " + " | ".join(line) + " |" for line in cells)
    notes = [f"{name}: {reason}" for name, reason in (skipped or {}).items()]
    return "\n".join([table, *(["", *notes] if notes else [])])


def speed_up(costs: Mapping[str, StepCost], row: str, peers: Collection[str]) -> str | None:
    """One sentence: a row against the fastest peer; None if either was not measured."""
    rivals = {name: costs[name] for name in peers if name in costs}
    if row not in costs or not rivals:
        return None
    best = min(rivals, key=lambda name: rivals[name].time_ratio(costs[row]))
    text = f"{row} is {rivals[best].time_ratio(costs[row]):.2f} times as fast as the fastest peer, {best}"
    memory = costs[row].memory_ratio(rivals[best])
    return text if memory is None else f"{text}, with {memory:.2f} times its memory"


def cost_json(costs: Mapping[str, StepCost], unit: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Plain types for a JSON file: every row under its name, and ``settings``."""
    rows = {
        name: {
            "seconds": cost.median,
            "seconds_quartiles": list(cost.quartiles),
            "ratio": cost.time_ratio(costs[unit]),
            "ratio_quartiles": list(cost.ratio_quartiles(costs[unit])),
            "peak_bytes": cost.peak_bytes,
            "peak_ratio": cost.memory_ratio(costs[unit]),
            "cosine": cost.cosine,
        }
        for name, cost in costs.items()
    }
    return rows | {"settings": dict(settings)}
