"""Figures of a report as SVG that takes its ink from the page: curves of learning and of label budgets."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from segzoo.evaluation.plots import INK, LINES, MUTED, NORMAL, style
from segzoo.study.entries import Entry
from segzoo.study.findings import Findings, RowFinding

DASHES = {"source": "-", "labels": (0, (5, 2)), "both": (0, (1, 1.2))}
"""Of rows that have no target labels, that have no source, and that have both."""
MARKERS = "osD^vPX*<>"
SIZE = (5.6, 4.1)
CURVE = "val/miou"


def learning_figure(findings: Findings) -> Figure | None:
    """The mIoU on val over the steps: means over the seeds, and ranges where there are several; None without any.

    Colour, dashes and the name at its end tell a row: none alone has to.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    drawn = False
    for number, row in enumerate(shown_curves(findings)):
        curves = [one["curve"][CURVE] for one in row.entries if CURVE in one["curve"]]
        steps = sorted(set.intersection(*(set(curve["steps"]) for curve in curves))) if curves else []
        if not steps:
            continue
        values = 100 * np.array([[c["values"][c["steps"].index(step)] for step in steps] for c in curves])
        _line(axes, np.array(steps) + 1, values, row.name, number, _dashes(row.entries[0]), marker=len(steps) == 1)
        drawn = True
    if not drawn:
        return None
    _finish(figure, axes, "step", "mIoU on the validation images, %")
    return figure


def shown_curves(findings: Findings) -> list[RowFinding]:
    """The rows whose learning is drawn: of those with several budgets the one with the most labels."""
    most = {name: curve[-1][0] for name, curve in findings.budgets.items()}
    return [
        row
        for row in findings.rows
        if (name := str((row.entries[0].get("budget") or {}).get("row"))) not in most or row.labels == most[name]
    ]


def budget_figure(findings: Findings) -> Figure | None:
    """mIoU over labelled images, a line per row with the range of its seeds; rows without labels are level lines; None without
    budgets."""
    if not findings.budgets:
        return None
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    ticks: set[int] = set()
    for number, (name, curve) in enumerate(findings.budgets.items()):
        seeds = [seed for seed in curve[0][1] if all(seed in point for _, point in curve)]
        if not seeds:
            continue
        values = 100 * np.array([[point[seed] for _, point in curve] for seed in seeds])
        labels = [count for count, _ in curve]
        ticks |= set(labels)
        first = next(row for row in findings.rows if (row.entries[0].get("budget") or {}).get("row") == name)
        _line(axes, np.array(labels), values, name, number, _dashes(first.entries[0]), marker=True)
    for place, row in enumerate(row for row in findings.rows if row.labels is None):
        number = len(findings.budgets) + place
        level = 100 * np.array([[one["scores"][findings.split]["miou"]] * 2 for one in row.entries])
        _line(axes, np.array([min(ticks), max(ticks)]), level, row.name, number, DASHES["source"])
    _finish(figure, axes, "labelled images", f"mIoU on the {findings.split} images, %")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(ticks), [str(tick) for tick in sorted(ticks)])
    axes.minorticks_off()
    return figure


def svg(figure: Figure, name: str, described: str) -> str:
    """An SVG to put into a page.

    Args:
        figure: what is drawn; its ink and grid become those of the page.
        name: what its ids begin with, as they must differ from those of other figures.
        described: what it shows, for those who do not see it.
    """
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    for fixed, page in (
        (INK, "var(--ink)"),
        (MUTED, "var(--muted)"),
        ("#dddddd", "var(--line)"),
        ("#000000", "var(--ink)"),
    ):
        text = text.replace(fixed, page)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", text)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    return text.replace("<svg", f'<svg role="img" aria-label="{described}"', 1)


def _line(axes: Any, x: Any, values: Any, name: str, number: int, dashes: Any, marker: bool = False) -> None:
    colour = LINES[number % len(LINES)]
    shape = MARKERS[number % len(MARKERS)] if marker else None
    axes.plot(x, values.mean(0), color=colour, linestyle=dashes, linewidth=1.8, marker=shape, markersize=5, label=name)
    if len(values) > 1:
        axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.13, linewidth=0)


def _finish(figure: Figure, axes: Any, x: str, y: str) -> None:
    style(axes, grid="y")
    axes.set_xlabel(x, fontsize=NORMAL, color=INK)
    axes.set_ylabel(y, fontsize=NORMAL, color=INK)
    handles, names = axes.get_legend_handles_labels()
    order = np.argsort([-handle.get_ydata()[-1] for handle in handles], kind="stable")  # as the lines end
    figure.legend(
        [handles[i] for i in order],
        [names[i] for i in order],
        loc="outside lower center",
        ncol=3,
        frameon=False,
        fontsize=NORMAL,
        labelcolor=INK,
        handlelength=3.2,
    )


def _dashes(one: Entry) -> Any:
    resources: Sequence[str] = one["resources"]
    if "labels" not in resources:
        return DASHES["source"]
    return DASHES["both"] if "source" in resources else DASHES["labels"]
