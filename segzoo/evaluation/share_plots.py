"""The shares of classes over a training, as small multiples."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from segzoo.evaluation.plots import INK, LARGE, LINES, MANY, MUTED, NAMED, NORMAL, SMALL, smooth, style
from segzoo.evaluation.texts import shortened

Floats = npt.NDArray[np.float64]
COLOURS = {"predictions": LINES[0], "pseudo labels": LINES[1]}
WIDE = 20
"""Ratio of the largest to the smallest smoothed share from which on an axis is logarithmic."""
DECADES = 1e-4
"""Shares below this part of a panel's largest are drawn at its lower edge."""
LOWEST = 1e-5
"""Below this share, 0.001 %, nothing is told apart: these are single pixels."""


def shares_figure(
    classes: tuple[str, ...],
    prior: Floats,
    series: Mapping[str, tuple[npt.NDArray[np.int64], Floats]],
    notes: Mapping[str, str],
) -> Figure:
    """A panel per class: its share over the steps, beside the share that it has in the labels that are learned from.

    An axis is logarithmic where shares fall by more than a factor of `WIDE`, else it begins at 0.
    Of more than `MANY` classes those are shown whose share is furthest from their prior.

    Args:
        classes: C names.
        prior: (C,) shares.
        series: steps (N,) and shares (N, C) of ``pseudo labels`` and ``predictions``, by these names; N of at least 1.
        notes: what stands below the name of a class, which is set off, by class.
    """
    shown = list(range(len(classes)))
    if len(shown) > MANY:
        last = np.mean([values[-1] for _, values in series.values()], axis=0)
        distance = np.abs(np.log((last + 1e-9) / (prior + 1e-9)))
        shown = sorted(np.argsort(-distance, kind="stable")[:NAMED].tolist())
    columns = min(len(shown), 3 if len(shown) <= 6 else 5)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(max(6.4, 2.6 * columns), 1.9 * rows + 1.1), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for place, axes in enumerate(grid.flat):
        if place < len(shown):
            c = shown[place]
            lines = {name: (steps, values[:, c]) for name, (steps, values) in series.items()}
            _panel(axes, lines, float(prior[c]))
            _title(axes, classes[c], notes.get(classes[c]))
            # sharex hides the ticks of all but the last row, below whose gaps there is no panel
            if place + columns >= len(shown):
                axes.tick_params(labelbottom=True)
                axes.set_xlabel("step", fontsize=SMALL)
        else:
            axes.set_axis_off()
    some = f", the {len(shown)} of {len(classes)} furthest from it" if len(shown) < len(classes) else ""
    figure.suptitle(f"Share of each class on unlabelled target images{some}", fontsize=LARGE)
    handles: list[Any] = grid[0, 0].get_lines()
    named = [line for line in handles if not str(line.get_label()).startswith("_")]
    figure.legend(handles=named, loc="outside lower center", ncols=3, fontsize=NORMAL, frameon=False)
    return figure


def _wide(prior: float, values: list[Floats]) -> bool:
    every = np.concatenate([[prior], *(smooth(one) for one in values)])
    return bool(every.max() > WIDE * max(every.min(), DECADES * every.max(), LOWEST))


def _panel(axes: Axes, lines: Mapping[str, tuple[npt.NDArray[np.int64], Floats]], prior: float) -> None:
    high = max(prior, *(float(values.max()) for _, values in lines.values()), LOWEST)
    wide = _wide(prior, [values for _, values in lines.values()])
    floor = max(DECADES * high, LOWEST) if wide else 0.0
    for name, (steps, values) in lines.items():
        colour, alone = COLOURS[name], "o" if len(steps) == 1 else None
        axes.plot(steps, np.maximum(values, floor), color=colour, linewidth=0.7, alpha=0.3)
        smoothed = np.maximum(smooth(values), floor)
        axes.plot(steps, smoothed, color=colour, linewidth=1.8, marker=alone, markersize=3.5, label=name)
    axes.axhline(max(prior, floor), color=INK, linewidth=1.1, linestyle=(0, (4, 3)), label="labels learned from")
    if wide:
        axes.set_yscale("log")
        low = min(prior, *(float(smooth(values).min()) for _, values in lines.values()))
        axes.set_ylim(0.7 * max(floor, min(low, high / WIDE)), 1.5 * high)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=5))
        axes.minorticks_off()
    else:
        axes.set_ylim(0, 1.08 * high)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    style(axes, grid="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    axes.tick_params(labelsize=SMALL)


def _title(axes: Axes, name: str, note: str | None) -> None:
    colour, weight = (LINES[1], "bold") if note else (INK, "normal")
    text = shortened(name, 2.0, NORMAL) + (f"\n{note}" if note else "")
    axes.set_title(text, fontsize=NORMAL, loc="left", color=colour, fontweight=weight)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINES[1] if note else MUTED)
