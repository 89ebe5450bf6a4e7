"""One set of scores as a table: aligned text, markdown and HTML."""

import html
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

ABSENT = "–"
HEADER = ("class", "IoU %", "precision %", "recall %", "share %")
EMPTY = ("",) * (len(HEADER) - 2)
ANNOUNCED = 8
"""Classes without a hit that have a line each; those beyond share one."""


class Numbers(Protocol):
    """What a table shows; see `segzoo.evaluation.Scores`."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def subsets(self) -> Mapping[str, tuple[int, ...]]: ...
    @property
    def iou(self) -> npt.NDArray[np.float64]: ...
    @property
    def precision(self) -> npt.NDArray[np.float64]: ...
    @property
    def recall(self) -> npt.NDArray[np.float64]: ...
    @property
    def frequency(self) -> npt.NDArray[np.float64]: ...
    @property
    def missed(self) -> Mapping[str, int]: ...
    @property
    def miou(self) -> float: ...
    @property
    def pixel_accuracy(self) -> float: ...
    def subset(self, which: str, /) -> float: ...


def percent(value: float) -> str:
    """A fraction as a percentage with one decimal, or a dash for NaN."""
    return ABSENT if np.isnan(value) else f"{100 * value:.1f}"


def class_rows(scores: Numbers) -> list[tuple[str, ...]]:
    """A line per class, in the columns of `HEADER`."""
    columns = zip(scores.classes, scores.iou, scores.precision, scores.recall, scores.frequency, strict=True)
    return [(name, *(percent(value) for value in values)) for name, *values in columns]


def mean_rows(scores: Numbers) -> list[tuple[str, str]]:
    """Name and value of the means over classes and pixels."""
    subsets = [(f"mIoU ({name})", percent(scores.subset(name))) for name in scores.subsets]
    return [("mIoU", percent(scores.miou)), *subsets, ("pixel accuracy", percent(scores.pixel_accuracy))]


def missed_lines(scores: Numbers, split: str) -> list[str]:
    """A sentence for every class of which not one pixel was found; the means hide it.

    Args:
        scores: of whom.
        split: whose pixels they are, e.g. ``test``.
    """
    missed = [
        f"{name}: not one of its {pixels:,} {split} pixels was found"
        if pixels > 1
        else f"{name}: its one {split} pixel was not found"
        for name, pixels in scores.missed.items()
    ]
    others = list(scores.missed)[ANNOUNCED:]
    return missed[:ANNOUNCED] + ([f"nor was one of {', '.join(others)}"] if others else [])


def plain_table(scores: Numbers) -> str:
    """Aligned text, classes and means."""
    rows, means = class_rows(scores), mean_rows(scores)
    first = max(len(line[0]) for line in (HEADER, *rows, *means))

    def text(line: Sequence[str]) -> str:
        numbers = (value.rjust(len(name)) for value, name in zip(line[1:], HEADER[1:], strict=False))
        return "  ".join([line[0].ljust(first), *numbers])

    rule = "-" * len(text(HEADER))
    return "\n".join([text(HEADER), rule, *map(text, rows), rule, *map(text, means)])


def markdown_table(scores: Numbers) -> str:
    """The same in markdown, the means in bold."""
    means = [(f"**{name}**", f"**{value}**", *EMPTY) for name, value in mean_rows(scores)]
    lines = [HEADER, ("---", *["---:"] * (len(HEADER) - 1)), *class_rows(scores), *means]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def html_table(scores: Numbers) -> str:
    """The same for a notebook."""

    def row(cells: Sequence[str], tag: str = "td") -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = [row(line) for line in class_rows(scores)] + [row((*line, *EMPTY), "th") for line in mean_rows(scores)]
    return f"<table><thead>{row(HEADER, 'th')}</thead><tbody>{''.join(body)}</tbody></table>"
