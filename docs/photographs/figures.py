"""Figures of a study: learning curves, and the same images labelled by all rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from docs.photographs.job import example_images
from docs.photographs.tables import by_row
from segzoo.data.label_spaces import IGNORE_INDEX, LabelSpace
from segzoo.evaluation.plots import INK, LARGE, LINES, MUTED, NORMAL, save_figure, style

Entry = Mapping[str, Any]
DASHES = {"source": "-", "labels": (0, (5, 2)), "both": (0, (1, 1.2))}
"""Of methods that have no target labels, that have no source, and that have both."""
CELL = 1.5


def draw(entries: Sequence[Entry], folder: Path, split: str, root: str) -> None:
    """Writes ``curves.png``, and for each pair ``examples-PAIR.png`` where examples were labelled."""
    save_figure(curves_figure(entries), folder / "curves.png")
    for pair in dict.fromkeys(one["pair"] for one in entries):
        labelled = folder / "examples" / split / pair
        runs = [one for one in entries if one["pair"] == pair]
        rows = by_row(runs)
        files = {name: labelled / f"{name}.npz" for name in rows}
        if found := {name: path for name, path in files.items() if path.is_file()}:
            save_figure(examples_figure(found, runs[0]["data"], split, root), folder / f"examples-{pair}.png")


def curves_figure(entries: Sequence[Entry]) -> Figure:
    """The mIoU on val over the steps: means over the seeds, and ranges where there are several; a panel for each pair.

    Colour tells the method, the dashes what it learns from: neither alone has to.
    """
    pairs = list(dict.fromkeys(one["pair"] for one in entries))
    names = list(dict.fromkeys(one["row"] for one in entries))
    resources = {one["row"]: one["resources"] for one in entries}
    figure = Figure(figsize=(4.2 * len(pairs) + 1.9, 4.2), layout="constrained")
    grid = figure.subplots(1, len(pairs), squeeze=False)[0]
    handles: dict[str, Any] = {}
    for axes, pair in zip(grid, pairs, strict=True):
        for name, runs in by_row([one for one in entries if one["pair"] == pair]).items():
            curves = [one["curve"]["val/miou"] for one in runs if "val/miou" in one["curve"]]
            steps = sorted(set.intersection(*(set(curve["steps"]) for curve in curves))) if curves else []
            if not steps:
                continue
            values = np.array([[c["values"][c["steps"].index(step)] for step in steps] for c in curves]) * 100
            look = {"color": LINES[names.index(name) % len(LINES)], "linestyle": _dashes(resources[name])}
            (handles[name],) = axes.plot(np.array(steps) + 1, values.mean(0), linewidth=1.7, **look)
            if len(steps) == 1:
                handles[name].set_marker("o")
            if len(curves) > 1:
                axes.fill_between(
                    np.array(steps) + 1, values.min(0), values.max(0), color=look["color"], alpha=0.12, linewidth=0
                )
        style(axes, grid="y")
        axes.set_title(pair, fontsize=LARGE, loc="left")
        axes.set_xlabel("step", fontsize=NORMAL)
    grid[0].set_ylabel("mIoU on val, %", fontsize=NORMAL)
    shown = [name for name in names if name in handles]
    figure.legend(
        [handles[name] for name in shown],
        shown,
        loc="outside right upper",
        frameon=False,
        fontsize=NORMAL,
        handlelength=3.2,
        title="solid: no target labels\ndashed: no source\ndotted: source and labels",
        title_fontsize=NORMAL,
        alignment="left",
    )
    return figure


def examples_figure(files: Mapping[str, Path], data: str, split: str, root: str) -> Figure:
    """A column per image: the photograph, its labels, and what every row says."""
    target, images, chosen = example_images(data, split, root)
    space: LabelSpace = target.label_space
    lines: dict[str, list[Any]] = {
        "photograph": [images.image(i) for i in chosen],
        "labels": [_coloured(images.label(i), space) for i in chosen],
    }
    occurring: set[int] = set()
    for name, path in files.items():
        with np.load(path) as labels:
            lines[name] = [_coloured(labels[str(i)], space) for i in chosen]
            occurring |= {int(number) for i in chosen for number in np.unique(labels[str(i)])}
    for i in chosen:
        occurring |= {int(number) for number in np.unique(images.label(i))}
    shapes = [picture.shape for picture in lines["photograph"]]
    widths = [CELL * shape[1] / shape[0] for shape in shapes]
    left, bottom = 1.35, 0.35
    size = (left + sum(widths), bottom + CELL * len(lines))
    figure = Figure(figsize=size)
    for number, (name, pictures) in enumerate(lines.items()):
        top = size[1] - CELL * number
        figure.text((left - 0.1) / size[0], (top - CELL / 2) / size[1], name, ha="right", va="center", fontsize=NORMAL)
        for place, (picture, width) in enumerate(zip(pictures, widths, strict=True)):
            box = (left + sum(widths[:place]), top - CELL + 0.03, width - 0.04, CELL - 0.06)
            axes = figure.add_axes((box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1]))
            _show(axes, picture)
    legend = [
        Patch(color=_colour(space, number), label="ignored" if number == IGNORE_INDEX else space.classes[number])
        for number in sorted(occurring)
    ]
    columns = max(1, int(size[0] / 1.15))
    figure.legend(
        handles=legend[:columns], loc="lower center", ncol=columns, frameon=False, fontsize=NORMAL, labelcolor=INK
    )
    return figure


def _dashes(resources: Sequence[str]) -> Any:
    if "labels" not in resources:
        return DASHES["source"]
    return DASHES["both"] if "source" in resources else DASHES["labels"]


def _show(axes: Axes, picture: Any) -> None:
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(MUTED)


def _coloured(labels: Any, space: LabelSpace) -> Any:
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(space.palette)] = space.palette
    return palette[labels]


def _colour(space: LabelSpace, number: int) -> tuple[float, ...]:
    colour = (0, 0, 0) if number == IGNORE_INDEX else space.palette[number]
    return tuple(channel / 255 for channel in colour)
