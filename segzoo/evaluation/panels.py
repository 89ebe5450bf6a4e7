"""Panels: rows of images, labels, predictions and maps, with the classes explained."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from segzoo.evaluation.plots import INK, LARGE, MUTED, NORMAL, SMALL, unit_rgb
from segzoo.evaluation.texts import shortened, text_width

if TYPE_CHECKING:
    from segzoo.data.label_spaces import LabelSpace

Color = tuple[float, float, float]
TINY = 6.5
EXPLAINED = 48
"""Classes in a legend, at most."""


def panel_figure(
    columns: Mapping[str, Sequence[npt.NDArray[Any]]],
    label_space: "LabelSpace",
    title: str = "",
    names: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """A row per sample, a column per kind of picture, and a legend of the classes that occur.

    Args:
        columns: by title, one array per sample. The array says how it is drawn: (H, W, 3) uint8 is an RGB
            image, integer (H, W) are label ids (255 is black), floating (H, W) is a map with a colour bar
            from 0 to 1, or to its largest value when that is above 1.
        label_space: names and colours of the label ids.
        title: above everything.
        names: of the samples, each above its row; or of the pictures in some of the columns, each above its own picture.

    Raises:
        ValueError: no column, or columns of different lengths.
    """
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"a panel needs the same number of pictures in every column, found {sorted(lengths)}")
    count = lengths.pop()
    # Beside a prediction, which has the size of the labels, all pictures show one image, whatever the size of the input.
    predictions = columns.get("prediction")
    height, width = (predictions or next(iter(columns.values())))[0].shape[:2]
    cell_width = 2.6
    cell_height = cell_width * min(height / width, 2.0)
    named = 0.15 if names and (not isinstance(names, Mapping) or any(names.values())) else 0.0
    maps = {name: _limit(pictures) for name, pictures in columns.items() if _is_map(pictures[0])}
    total_width = len(columns) * cell_width
    legend = Legend(_entries(columns.values(), label_space), total_width)
    top, bar = (0.26 if title else 0.0) + 0.24, 0.4 if maps else 0.0
    total = (total_width, count * (cell_height + named) + top + bar + legend.height)
    figure = Figure(figsize=total)
    gap = 0.04
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, total[0]), ylim=(0, total[1]), autoscale_on=False)
    axes.set_axis_off()
    for row in range(count):
        bottom = total[1] - top - (row + 1) * (cell_height + named) + gap
        for column, (name, pictures) in enumerate(columns.items()):
            left = column * cell_width + gap
            box = (left, left + cell_width - 2 * gap, bottom, bottom + cell_height - 2 * gap)
            inner = _inner(box, (predictions or pictures)[row].shape)
            _picture(axes, pictures[row], inner, label_space, maps.get(name, 1.0))
        for left, room, text in _captions(columns, row, names, cell_width):
            text = shortened(text, room - 2 * gap, TINY)
            axes.text(left + gap, bottom + cell_height - gap, text, va="bottom", fontsize=TINY, color=MUTED)
    for column, name in enumerate(columns):
        middle, above = (column + 0.5) * cell_width, total[1] - top + 0.02
        text = shortened(name, cell_width - 2 * gap, NORMAL)
        axes.text(middle, above, text, ha="center", va="bottom", fontsize=NORMAL, color=INK)
        if name in maps:
            box = (column * cell_width + 0.3, legend.height + 0.24, cell_width - 0.6, 0.09)
            _colour_bar(figure, figure.add_axes(_fraction(box, total)), maps[name])
    if title:
        text = shortened(title, total_width - 2 * gap, LARGE)
        figure.text(0.5, 1 - 0.07 / total[1], text, ha="center", va="top", fontsize=LARGE, color=INK)
    legend.draw(axes)
    return figure


class Legend:
    """Coloured patches with names, in columns as wide as the longest name, at the bottom of a figure.

    Not matplotlib's own: that one runs out of the figure where there are many classes or long names.

    Args:
        entries: name and colour of each.
        width: of the figure, in inches.
    """

    LINE, PATCH, GAP = 0.165, 0.14, 0.09

    def __init__(self, entries: Sequence[tuple[str, Color]], width: float) -> None:
        room = width - 2 * self.GAP
        self._widths = [min(text_width(name, SMALL) + self.PATCH + 2.5 * self.GAP, room) for name, _ in entries]
        self._entries, self._width = entries, max([0.6, *self._widths])
        self._columns = max(1, min(int(room / self._width), len(entries)))
        self._left = (width - self._columns * self._width) / 2
        rows = -(-len(entries) // self._columns)
        self.height = rows * self.LINE + 0.14 if entries else 0.0

    def draw(self, axes: Axes) -> None:
        """Into axes whose units are inches from the figure's lower left corner."""
        for i, (name, colour) in enumerate(self._entries):
            row, column = divmod(i, self._columns)
            left = self._left + column * self._width
            middle = self.height - 0.07 - (row + 0.5) * self.LINE
            axes.add_patch(
                Rectangle((left, middle - 0.045), self.PATCH, 0.09, facecolor=colour, edgecolor=INK, linewidth=0.4)
            )
            text = shortened(name, self._width - self.PATCH - 1.5 * self.GAP, SMALL)
            axes.text(left + self.PATCH + 0.5 * self.GAP, middle, text, va="center", fontsize=SMALL, color="black")


def _entries(columns: Iterable[Sequence[npt.NDArray[Any]]], space: "LabelSpace") -> list[tuple[str, Color]]:
    """The classes that occur, or the `EXPLAINED` of them that fill most, and what is ignored."""
    pixels = np.zeros(space.num_classes + 1, np.int64)  # the last: all that is no class
    for picture in (p for column in columns for p in column if _is_labels(p)):
        ids, counts = np.unique(picture, return_counts=True)
        np.add.at(pixels, np.where((ids >= 0) & (ids < space.num_classes), ids, space.num_classes), counts)
    used = np.flatnonzero(pixels[:-1])
    shown = sorted(used[np.argsort(-pixels[used], kind="stable")][:EXPLAINED])
    entries = [(space.classes[i], unit_rgb(space.palette[i])) for i in shown]
    if pixels[-1]:
        entries.append(("ignored", (0.0, 0.0, 0.0)))
    if len(used) > len(shown):
        entries.append((f"and {len(used) - len(shown)} more classes", (1.0, 1.0, 1.0)))
    return entries


def _inner(box: tuple[float, float, float, float], shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """The middle of (left, right, bottom, top) that has the proportions of a shape (H, W)."""
    left, right, bottom, top = box
    scale = min((right - left) / shape[1], (top - bottom) / shape[0])
    across, up = scale * shape[1] / 2, scale * shape[0] / 2
    x, y = (left + right) / 2, (bottom + top) / 2
    return x - across, x + across, y - up, y + up


def _captions(
    titles: Iterable[str], row: int, names: Sequence[str] | Mapping[str, Sequence[str]] | None, width: float
) -> list[tuple[float, float, str]]:
    """Where the captions of a row begin, how much room each has, and what they say; columns are ``width`` wide."""
    if isinstance(names, Mapping):
        named = [(column, names.get(title, ())) for column, title in enumerate(titles)]
        return [(column * width, width, own[row]) for column, own in named if row < len(own)]
    return [(0.0, len(list(titles)) * width, names[row])] if names else []


def _picture(
    axes: Axes,
    picture: npt.NDArray[Any],
    box: tuple[float, float, float, float],
    label_space: "LabelSpace",
    limit: float,
) -> None:
    """Draws a picture that fills (left, right, bottom, top), in inches.

    Not in axes of its own: many axes take longer to draw than all that is in them.
    """
    if _is_map(picture):
        values = picture.astype(np.float64)
        finite = values[np.isfinite(values)]
        mean = f"mean {finite.mean():.2f}" if len(finite) else "no finite value"
        if 0 < len(finite) < values.size:
            mean += f", {values.size - len(finite)} without a value"
        axes.imshow(values, cmap="viridis", vmin=0, vmax=limit, interpolation="nearest", extent=box)
        axes.text(
            box[0] + 0.04,
            box[2] + 0.06,
            mean,
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
    return max(1.0, *(float(picture[np.isfinite(picture)].max(initial=0.0)) for picture in pictures))


def _fraction(box: tuple[float, ...], total: tuple[float, float]) -> tuple[float, float, float, float]:
    return (box[0] / total[0], box[1] / total[1], box[2] / total[0], box[3] / total[1])
