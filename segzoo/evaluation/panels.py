"""Panels: rows of images, labels, predictions and maps, with the classes explained."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from segzoo.evaluation.plots import INK, LARGE, MUTED, NORMAL, SMALL, unit_rgb

if TYPE_CHECKING:
    from segzoo.data.label_spaces import LabelSpace


def panel_figure(
    columns: Mapping[str, Sequence[npt.NDArray[Any]]], label_space: "LabelSpace", title: str = ""
) -> Figure:
    """A row per sample, a column per kind of picture, and a legend of the classes that occur.

    Args:
        columns: by title, one array per sample. The array says how it is drawn: (H, W, 3) uint8 is an RGB
            image, integer (H, W) are label ids (255 is black), floating (H, W) is a map with a colour bar
            from 0 to 1, or to its largest value when that is above 1.
        label_space: names and colours of the label ids.
        title: above everything.

    Raises:
        ValueError: no column, or columns of different lengths.
    """
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"a panel needs the same number of pictures in every column, found {sorted(lengths)}")
    count = lengths.pop()
    height, width = next(iter(columns.values()))[0].shape[:2]
    cell_width = 2.6
    cell_height = cell_width * height / width
    maps = {name: _limit(pictures) for name, pictures in columns.items() if _is_map(pictures[0])}
    used = sorted({int(i) for column in columns.values() for p in column if _is_labels(p) for i in np.unique(p)})
    entries = [i for i in used if i < label_space.num_classes]
    void = any(i >= label_space.num_classes for i in used)
    per_row = max(1, int(len(columns) * cell_width / 1.15))
    legend = 0.165 * -(-(len(entries) + void) // per_row) + 0.14 if used else 0.0
    top, bar = (0.26 if title else 0.0) + 0.24, 0.4 if maps else 0.0
    total = (len(columns) * cell_width, count * cell_height + top + bar + legend)
    figure = Figure(figsize=total)
    gap = 0.04
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, total[0]), ylim=(0, total[1]), autoscale_on=False)
    axes.set_axis_off()
    for column, (name, pictures) in enumerate(columns.items()):
        for row, picture in enumerate(pictures):
            left, bottom = column * cell_width + gap, total[1] - top - (row + 1) * cell_height + gap
            box = (left, left + cell_width - 2 * gap, bottom, bottom + cell_height - 2 * gap)
            _picture(axes, picture, box, label_space, maps.get(name, 1.0))
        middle, above = (column + 0.5) * cell_width, total[1] - top + 0.02
        axes.text(middle, above, name, ha="center", va="bottom", fontsize=NORMAL, color=INK)
        if name in maps:
            box = (column * cell_width + 0.3, legend + 0.24, cell_width - 0.6, 0.09)
            _colour_bar(figure, figure.add_axes(_fraction(box, total)), maps[name])
    if title:
        figure.text(0.5, 1 - 0.07 / total[1], title, ha="center", va="top", fontsize=LARGE, color=INK)
    if used:
        handles = [_patch(label_space.classes[i], label_space.palette[i]) for i in entries]
        handles += [_patch("ignored", (0, 0, 0))] if void else []
        figure.legend(
            handles=handles,
            loc="lower center",
            ncols=min(per_row, len(handles)),
            frameon=False,
            fontsize=SMALL,
            handlelength=1.1,
            columnspacing=1.2,
            borderaxespad=0.2,
        )
    return figure


def _picture(
    axes: Axes,
    picture: npt.NDArray[Any],
    box: tuple[float, float, float, float],
    label_space: "LabelSpace",
    limit: float,
) -> None:
    """Draws a picture in the middle of (left, right, bottom, top), in inches.

    Not in axes of its own: many axes take longer to draw than all that is in them.
    """
    left, right, bottom, top = box
    scale = min((right - left) / picture.shape[1], (top - bottom) / picture.shape[0])
    across, up = scale * picture.shape[1] / 2, scale * picture.shape[0] / 2
    x, y = (left + right) / 2, (bottom + top) / 2
    box = (x - across, x + across, y - up, y + up)
    if _is_map(picture):
        values = picture.astype(np.float64)
        axes.imshow(values, cmap="viridis", vmin=0, vmax=limit, interpolation="nearest", extent=box)
        axes.text(
            box[0] + 0.04,
            box[2] + 0.06,
            f"mean {np.nanmean(picture):.2f}",
            fontsize=6.5,
            color="white",
            bbox={"facecolor": "black", "edgecolor": "none", "alpha": 0.55, "pad": 1.5},
        )
    elif _is_labels(picture):
        axes.imshow(label_space.colorize(picture), interpolation="nearest", extent=box)
    else:
        axes.imshow(picture, extent=box)


def _colour_bar(figure: Figure, axes: Axes, limit: float) -> None:
    shades = ScalarMappable(Normalize(0, limit), "viridis")
    bar = figure.colorbar(shades, cax=axes, orientation="horizontal", ticks=[0, limit / 2, limit])
    bar.ax.tick_params(labelsize=SMALL, length=2, color=MUTED)
    bar.ax.set_xticklabels([f"{tick:.3g}" for tick in (0, limit / 2, limit)])
    axes.spines[:].set_visible(False)


def _is_map(picture: npt.NDArray[Any]) -> bool:
    return picture.ndim == 2 and np.issubdtype(picture.dtype, np.floating)


def _is_labels(picture: npt.NDArray[Any]) -> bool:
    return picture.ndim == 2 and not _is_map(picture)


def _limit(pictures: Sequence[npt.NDArray[Any]]) -> float:
    return max(1.0, *(float(np.nanmax(picture)) for picture in pictures))


def _patch(name: str, rgb: Sequence[int]) -> Patch:
    return Patch(facecolor=unit_rgb(rgb), edgecolor=INK, linewidth=0.4, label=name)


def _fraction(box: tuple[float, ...], total: tuple[float, float]) -> tuple[float, float, float, float]:
    return (box[0] / total[0], box[1] / total[1], box[2] / total[0], box[3] / total[1])
