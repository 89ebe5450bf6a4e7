"""Differences to a reference, seed by seed, as points with their mean and its interval.

python -m docs.figures.paired
"""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from docs.tables import DOCS, above, gain, read_runs
from segzoo.study.statistics import Difference

HERE = Path(__file__).resolve().parent
FIGURES = {
    "minicity": ("minicity/labels.json", "joint", ["source-only"]),
    "minicity-unlabelled": ("minicity/unlabelled.json", "self-training", []),
    "region-selection": ("minicity/region-selection.json", "region-selection", []),
}
"""File of the runs and reference of each figure, and the rows that are too far from it to be drawn."""


def draw(gains: Mapping[str, Difference], label: str, notes: Mapping[str, str]) -> Figure:
    """A line per row: the seeds, their mean, and its 95 % interval where there are three seeds or more.

    Args:
        gains: what is drawn, from the top.
        label: of the axis.
        notes: what stands to the right of each row.
    """
    figure = Figure(figsize=(8, 0.9 + 0.34 * len(gains)), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.axvline(0, color="0.6", linewidth=1)
    for height, (name, one) in enumerate(reversed(gains.items())):
        axes.plot(one.values, [height] * len(one.values), "o", color="0.75", markersize=4)
        half = one.mean - one.interval.low if one.interval and len(one.values) > 2 else None
        axes.errorbar(one.mean, height, xerr=half, fmt="D", color="#0072b2", capsize=3)
        axes.annotate(notes[name], (1.01, height), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axes.set_yticks(range(len(gains)), list(reversed(gains)))
    axes.set_ylim(-0.6, len(gains) - 0.4)
    axes.set_xlabel(f"{label}: seeds, mean, 95 % interval (of three seeds and more)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Draws all figures."""
    for name, (file, reference, far) in FIGURES.items():
        runs = read_runs(DOCS / file)
        gains = {row: one for row in runs if row not in (reference, *far) and (one := gain(runs, row, reference))}
        notes = {row: f"{above(one)} above" for row, one in gains.items()}
        draw(gains, f"points of mIoU over {reference}", notes).savefig(HERE / f"paired-{name}.png", dpi=110)


if __name__ == "__main__":
    main()
