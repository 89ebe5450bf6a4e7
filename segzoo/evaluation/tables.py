"""Scores as text: the table at the end of a run, and markdown tables that compare runs over seeds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, methodcaller

import numpy as np
from rich.console import Console
from rich.table import Table

from segzoo.evaluation.protocol import Protocol
from segzoo.evaluation.score_tables import ABSENT, HEADER, class_rows, mean_rows, missed_lines, percent, plain_table
from segzoo.evaluation.scores import Scores

RESOURCE_COLUMNS = {"source": "source", "labels": "target labels", "unlabelled": "unlabelled target"}
"""What a method may learn from, and the heads of its columns."""


def print_scores(scores: Scores, protocol: Protocol, console: Console | None = None) -> None:
    """Prints the per-class table, the means, the classes of which nothing was found and the protocol.

    It is plain aligned text unless on a terminal.
    """
    console = console or Console()
    missed = missed_lines(scores, protocol.split)
    if not console.is_terminal:
        # written past rich, which would wrap lines at 80 columns in a log file
        console.file.write("\n".join([plain_table(scores), *missed, protocol.describe()]) + "\n")
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
    for line in missed:
        console.print(line, style="bold yellow", highlight=False, markup=False)
    console.print(protocol.describe(), style="dim", highlight=False)


def source_text(sources: Mapping[str, Mapping[str, float]]) -> str:
    """Several sources in a line, with their sizes and their shares of the draws.

    Args:
        sources: ``images`` and ``weight`` of each, by name.
    """
    total = sum(one["weight"] for one in sources.values())
    texts = [
        f"{name} {one['images']:.0f} images (weight {one['weight']:g}, {one['weight'] / total:.0%})"
        for name, one in sources.items()
    ]
    return ", ".join(texts)


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
    rows: Mapping[str, Sequence[Scores]],
    reference: str | Mapping[str, str] | None = None,
    per_class: bool = False,
    resources: Mapping[str, Mapping[str, int | None]] | None = None,
) -> str:
    """A markdown table with a line per method: mean ± sample standard deviation over seeds, in percent.

    Args:
        rows: the scores of each method, one per seed, in the same order of seeds for all.
        reference: row that the last column subtracts from each row, seed by seed, or such a row for every row by name. A row
            with another number of seeds than its reference has a dash there, and one whose reference is not among `rows`, too;
            the column is left out where no reference is.
        per_class: adds three tables with a line per class and a column per method: mean IoU, precision and recall.
        resources: by row what it learned from, `RESOURCE_COLUMNS` with the number of images or None where nobody counted;
            adds a column for each resource. Only rows that agree in them answer the same question.

    Raises:
        KeyError: no row of the one name of `reference`.
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
    marks = [] if resources is None else list(RESOURCE_COLUMNS.values())
    header = ["method", *marks, "seeds", *columns]
    if isinstance(reference, str) and reference not in rows:
        raise KeyError(reference)
    references = dict.fromkeys(rows, reference) if isinstance(reference, str) else reference or {}
    references = {name: other for name, other in references.items() if other in rows}
    # The head names the row that is subtracted, and where there are several, the cells do.
    subtracted = {other for name, other in references.items() if other != name} or set(references.values())
    several = len(subtracted) > 1
    if references:
        header.append(f"mIoU minus {'reference' if several else next(iter(subtracted))} (paired)")
    lines = [header, ["---", *[":-:"] * len(marks), *["---:"] * (len(header) - 1 - len(marks))]]
    for name, runs in rows.items():
        line = [
            name,
            *([] if resources is None else _marks(resources[name])),
            str(len(runs)),
            *(_spread([value(scores) for scores in runs]) for value in columns.values()),
        ]
        if references:
            other = references.get(name, name)
            line.append(ABSENT if other == name else _difference(runs, rows[other], f" {other}" if several else ""))
        lines.append(line)
    return "\n\n".join([_markdown(lines), *(_class_tables(rows) if per_class else [])])


def _class_tables(rows: Mapping[str, Sequence[Scores]]) -> Iterator[str]:
    """Methods are columns: there are fewer of them than classes."""
    classes = next(iter(rows.values()))[0].classes
    for score in ("IoU", "precision", "recall"):
        values = [np.stack([getattr(scores, score.lower()) for scores in runs]) for runs in rows.values()]
        means = [[percent(_mean_std(found[:, i].tolist())[0]) for found in values] for i in range(len(classes))]
        body = [[name, *line] for name, line in zip(classes, means, strict=True)]
        yield _markdown([[f"{score} %", *rows], ["---", *["---:"] * len(rows)], *body])


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _marks(images: Mapping[str, int | None]) -> list[str]:
    """A tick for what was learned from, a number for the target labels, of which there are few."""
    ticks = {name: "✓" if name in images else "" for name in RESOURCE_COLUMNS}
    if images.get("labels") is not None:
        ticks["labels"] = str(images["labels"])
    return list(ticks.values())


def _difference(runs: Sequence[Scores], reference: Sequence[Scores], name: str) -> str:
    if len(runs) != len(reference):
        return ABSENT
    result = paired(runs, reference)
    return f"{_spread(result.differences, sign='+')} ({result.wins}/{len(runs)} above{name})"


def _mean_std(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if not np.isnan(value)]
    mean = float(np.mean(known)) if known else float("nan")
    return mean, float(np.std(known, ddof=1)) if len(known) > 1 else float("nan")


def _spread(values: Sequence[float], sign: str = "") -> str:
    mean, std = _mean_std(values)
    if np.isnan(mean):
        return ABSENT
    return f"{100 * mean:{sign}.1f}" + ("" if np.isnan(std) else f" ± {100 * std:.1f}")
