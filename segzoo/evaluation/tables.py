"""Scores as text: the table at the end of a run, and markdown tables that compare runs over seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, methodcaller

import numpy as np
from rich.console import Console
from rich.table import Table

from segzoo.evaluation.protocol import Protocol
from segzoo.evaluation.score_tables import ABSENT, HEADER, class_rows, mean_rows, percent, plain_table
from segzoo.evaluation.scores import Scores


def print_scores(scores: Scores, protocol: Protocol, console: Console | None = None) -> None:
    """Prints the per-class table, the means and the protocol; plain aligned text unless on a terminal."""
    console = console or Console()
    if not console.is_terminal:
        # written past rich, which would wrap lines at 80 columns in a log file
        console.file.write(plain_table(scores) + f"\n{protocol.describe()}\n")
        console.file.flush()
        return
    table = Table()
    for name in HEADER:
        table.add_column(name, justify="left" if name == "class" else "right")
    for row in class_rows(scores):
        table.add_row(*row, style="dim" if row[1] == ABSENT else None)
    table.add_section()
    for name, value in mean_rows(scores):
        table.add_row(name, value, style="bold")
    console.print(table)
    console.print(protocol.describe(), style="dim", highlight=False)


@dataclass(frozen=True)
class Paired:
    """Differences between two methods that ran with the same seeds.

    Attributes:
        mean: mean difference in mIoU, a fraction.
        std: its sample standard deviation over seeds; NaN for a single seed.
        differences: per seed.
    """

    mean: float
    std: float
    differences: tuple[float, ...]

    @property
    def wins(self) -> int:
        """Number of seeds with a positive difference."""
        return sum(difference > 0 for difference in self.differences)


def paired(a: Sequence[Scores], b: Sequence[Scores]) -> Paired:
    """mIoU of ``a`` minus that of ``b``, seed by seed.

    Raises:
        ValueError: not the same, positive number of seeds.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"paired differences need the same seeds twice, found {len(a)} and {len(b)} runs")
    differences = tuple(one.miou - other.miou for one, other in zip(a, b, strict=True))
    return Paired(*_mean_std(differences), differences)


def comparison_table(
    rows: Mapping[str, Sequence[Scores]], reference: str | None = None, per_class: bool = False
) -> str:
    """A markdown table with a line per method: mean ± sample standard deviation over seeds, in percent.

    Args:
        rows: the scores of each method, one per seed, in the same order of seeds for all.
        reference: row that the last column subtracts from each row, seed by seed; a row with another number
            of seeds has a dash there.
        per_class: adds a column of mean IoU per class.

    Raises:
        KeyError: no row of that name.
        ValueError: no rows, a row without scores, or rows with different classes.
    """
    if not rows or not all(rows.values()):
        raise ValueError("a comparison needs at least one row, and scores in every row")
    first = next(iter(rows.values()))[0]
    if any(scores.classes != first.classes for runs in rows.values() for scores in runs):
        raise ValueError("the compared scores have different classes")
    columns: dict[str, Callable[[Scores], float]] = {"mIoU": attrgetter("miou")}
    for name in first.subsets:
        columns[f"mIoU ({name})"] = methodcaller("subset", name)
    columns["pixel accuracy"] = attrgetter("pixel_accuracy")
    header = ["method", "seeds", *columns]
    if reference is not None:
        header.append(f"mIoU minus {reference} (paired)")
    if per_class:
        header += first.classes
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for name, runs in rows.items():
        line = [
            name,
            str(len(runs)),
            *(_spread([value(scores) for scores in runs]) for value in columns.values()),
        ]
        if reference is not None:
            line.append(_difference(runs, rows[reference], name == reference))
        if per_class:
            line += [percent(_mean_std(column)[0]) for column in np.stack([scores.iou for scores in runs]).T]
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _difference(runs: Sequence[Scores], reference: Sequence[Scores], same: bool) -> str:
    if same or len(runs) != len(reference):
        return ABSENT
    result = paired(runs, reference)
    return f"{_spread(result.differences, sign='+')} ({result.wins}/{len(runs)} above)"


def _mean_std(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if not np.isnan(value)]
    mean = float(np.mean(known)) if known else float("nan")
    return mean, float(np.std(known, ddof=1)) if len(known) > 1 else float("nan")


def _spread(values: Sequence[float], sign: str = "") -> str:
    mean, std = _mean_std(values)
    if np.isnan(mean):
        return ABSENT
    return f"{100 * mean:{sign}.1f}" + ("" if np.isnan(std) else f" ± {100 * std:.1f}")
