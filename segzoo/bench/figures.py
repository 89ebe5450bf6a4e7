"""The figure of `segzoo bench`: time and memory of every row, relative to one of them."""

from collections.abc import Collection, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from segzoo.bench.costs import StepCost
from segzoo.evaluation.plots import INK, LARGE, LINES, MUTED, NORMAL, SMALL, style
from segzoo.evaluation.score_tables import ABSENT

OWN, PEER, UNIT = LINES[0], LINES[4], MUTED


def cost_figure(costs: Mapping[str, StepCost], unit: str, peers: Collection[str] = (), title: str = "") -> Figure:
    """Two panels of horizontal bars: time per step and peak memory, relative to one row.

    Args:
        costs: the measured rows by name, drawn from top to bottom.
        unit: the row that all are divided by; a dashed line.
        peers: rows of other libraries, in another colour.
        title: above both, e.g. device and settings; wrapped to the width.
    """
    figure = Figure(figsize=(9.2, 0.36 * len(costs) + 1.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    colours = [UNIT if name == unit else PEER if name in peers else OWN for name in costs]
    times = [cost.time_ratio(costs[unit]) for cost in costs.values()]
    spreads = [cost.ratio_quartiles(costs[unit]) for cost in costs.values()]
    _bars(left, times, colours, [high for _, high in spreads])
    for row, spread in enumerate(spreads):
        left.plot(spread, [row, row], color=INK, linewidth=1)
    memory = [cost.memory_ratio(costs[unit]) for cost in costs.values()]
    _bars(right, memory, colours, [value or 0.0 for value in memory])
    left.set_xlabel(f"relative to {unit}; median and quartiles", fontsize=NORMAL)
    right.set_xlabel(f"relative to {unit}", fontsize=NORMAL)
    left.set_title("Time of a training step", fontsize=LARGE, loc="left")
    right.set_title("Peak memory", fontsize=LARGE, loc="left")
    left.set_yticks(range(len(costs)), list(costs), fontsize=NORMAL)
    left.set_ylim(len(costs) - 0.4, -0.6)
    if any(name in peers for name in costs):
        key = [Patch(color=OWN, label="segzoo"), Patch(color=PEER, label="other libraries")]
        figure.legend(handles=key, fontsize=SMALL, frameon=False, ncols=2, loc="outside lower right")
    if title:
        figure.suptitle(title, fontsize=SMALL, color=MUTED, wrap=True)
    return figure


def _bars(axes: Axes, values: Sequence[float | None], colours: list[str], ends: Sequence[float]) -> None:
    axes.barh(range(len(values)), [value or 0.0 for value in values], height=0.68, color=colours)
    for row, value in enumerate(values):
        axes.annotate(
            ABSENT if value is None else f"{value:.2f}",
            (max(value or 0.0, ends[row]), row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
        )
    axes.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0.9)
    axes.set_xlim(0, 1.14 * max(1.0, *ends))
    style(axes, grid="x")
    axes.tick_params(axis="y", length=0)
