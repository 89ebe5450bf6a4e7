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
CELL, NAME = 1.3, 1.25
"""Height of a picture and width of the names, in inches."""
ROWS = 7
"""Below each other in a block, at most."""


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
    """A line per row, a column per image, in blocks beside each other that begin with the photographs and their labels."""
    target, images, chosen = example_images(data, split, root)
    space: LabelSpace = target.label_space
    photographs, truth = [images.image(i) for i in chosen], [images.label(i) for i in chosen]
    said: dict[str, list[Any]] = {}
    for name, path in files.items():
        with np.load(path) as labels:
            said[name] = [labels[str(i)] for i in chosen]
    occurring = sorted(
        {int(number) for pictures in (truth, *said.values()) for one in pictures for number in np.unique(one)}
    )
    blocks = -(-len(said) // ROWS)
    length = -(-len(said) // blocks)
    widths = [CELL * picture.shape[1] / picture.shape[0] for picture in photographs]
    block = NAME + sum(widths)
    per_line = max(1, int(block * blocks / 1.15))
    bottom = 0.15 + 0.2 * -(-len(occurring) // per_line)
    size = (block * blocks, bottom + CELL * (length + 2))
    figure = Figure(figsize=size)
    names = list(said)
    for number in range(blocks):
        lines = {"photograph": photographs, "labels": [_coloured(label, space) for label in truth]}
        for name in names[number * length : (number + 1) * length]:
            lines[name] = [_coloured(label, space) for label in said[name]]
        for place, (name, pictures) in enumerate(lines.items()):
            low, left = size[1] - CELL * (place + 1), number * block + NAME
            at = ((left - 0.1) / size[0], (low + CELL / 2) / size[1])
            figure.text(*at, name, ha="right", va="center", fontsize=NORMAL, color=INK)
            for picture, width in zip(pictures, widths, strict=True):
                box = (left / size[0], (low + 0.03) / size[1], (width - 0.04) / size[0], (CELL - 0.06) / size[1])
                _show(figure.add_axes(box), picture)
                left += width
    handles = [
        Patch(color=_colour(space, number), label="ignored" if number == IGNORE_INDEX else space.classes[number])
        for number in occurring
    ]
    figure.legend(
        handles=handles,
        loc="lower center",
        ncol=per_line,
        frameon=False,
        fontsize=NORMAL,
        labelcolor=INK,
        borderaxespad=0.1,
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
