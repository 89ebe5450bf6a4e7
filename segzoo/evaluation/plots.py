"""Figures of a run, drawn without pyplot: nothing global, any thread, no display.

Every function returns a figure; :func:`save_figure` writes it and :func:`figure_pixels` gives its pixels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from segzoo.evaluation.history import AUCS, MEAN_WEIGHT, PRECISION, SOURCE_WEIGHTS, TERMS, WEIGHTS, History, select
from segzoo.evaluation.score_tables import ABSENT, percent
from segzoo.evaluation.scores import Scores
from segzoo.evaluation.texts import plain, shortened
from segzoo.files import whole_file

if TYPE_CHECKING:
    from segzoo.data.label_spaces import LabelSpace

TITLES = {
    WEIGHTS: "Mean weight of the source pixels of each class",
    SOURCE_WEIGHTS: "Mean weight of the pixels of each source",
    PRECISION: "Precision of the teacher's labels on validation images, by class",
}
VALIDATION = {"miou": "mIoU", "teacher_miou": "mIoU of the teacher", "pixel_accuracy": "pixel accuracy"}
DPI = 150
INK, MUTED, GRID = "#222222", "#767676", "#dddddd"
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
TINY, SMALL, NORMAL, LARGE = 6.5, 7.5, 9.0, 11.0
MANY = 40
"""Classes from which on figures show less of each."""
NAMED = 24
"""Lines of classes that are named, where there are more than `MANY`."""


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Writes a PNG (or what the file name's ending says) and returns its path; folders are created."""
    path = Path(path)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=DPI, format=path.suffix.removeprefix(".") or "png")
    return path


def figure_pixels(figure: Figure) -> npt.NDArray[np.uint8]:
    """The figure as (H, W, 3) uint8 RGB."""
    figure.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def scores_figure(scores: Scores, label_space: "LabelSpace", title: str = "") -> Figure:
    """IoU per class as bars, and the confusion matrix as shares of each true class.

    Args:
        scores: what to draw.
        label_space: gives the colours of the bars.
        title: above both, e.g. the protocol; wrapped to the width.
    """
    count = len(scores.classes)
    side = max(3.4, (0.32 if count <= MANY else 0.12) * count + 0.6)
    figure = Figure(figsize=(side + 6.2, side + 1.3), layout="constrained")
    bars, heat = figure.subplots(1, 2, width_ratios=[4.6, side])
    _iou_bars(bars, scores, label_space)
    _confusion_map(heat, scores)
    if title:
        figure.suptitle(title, fontsize=SMALL, color=MUTED, wrap=True)
    return figure


def _iou_bars(axes: Axes, scores: Scores, label_space: "LabelSpace") -> None:
    rows = np.arange(len(scores.classes))
    many = len(rows) > MANY
    known = np.nan_to_num(100 * scores.iou)
    colours = [unit_rgb(rgb) for rgb in label_space.palette]
    axes.barh(rows, known, height=0.72, color=colours, edgecolor=INK, linewidth=0.4)
    for row, value in zip(rows, scores.iou, strict=True):
        absent = np.isnan(value)
        text = f"{ABSENT} (does not occur)" if absent else percent(value)
        axes.annotate(
            text,
            (known[row], row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=TINY if many else SMALL,
            color=MUTED if absent else INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
        )
    if not np.isnan(scores.miou):
        axes.axvline(100 * scores.miou, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0.9)
    axes.set_yticks(rows, _names(scores.classes, TINY if many else NORMAL))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("IoU, %", fontsize=NORMAL)
    means = f"mIoU {percent(scores.miou)} (dashed), pixel accuracy {percent(scores.pixel_accuracy)}"
    axes.set_title(means, fontsize=LARGE, loc="left")
    style(axes, grid="x")
    axes.tick_params(axis="y", length=0, labelsize=TINY if many else NORMAL)


def _confusion_map(axes: Axes, scores: Scores) -> None:
    truth = scores.confusion.sum(1, keepdims=True)
    shares = np.full(scores.confusion.shape, np.nan)
    np.divide(100.0 * scores.confusion, truth, out=shares, where=truth > 0)
    count = len(scores.classes)
    axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=100)
    for row in range(count):
        if not truth[row, 0]:
            axes.text((count - 1) / 2, row, "no true pixel", ha="center", va="center", fontsize=TINY, color=MUTED)
            continue
        for column in range(count if count <= MANY else 0):
            # small confusions stay readable as colour; numbers everywhere would hide the structure
            if shares[row, column] >= 0.5:
                colour = "white" if shares[row, column] > 55 else INK
                text = f"{shares[row, column]:.0f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=TINY, color=colour)
    size, turned = (SMALL, 45) if count <= MANY else (TINY, 90)
    names = _names(scores.classes, size)
    anchor: Any = {"ha": "right", "va": "center" if turned == 90 else "baseline", "rotation_mode": "anchor"}
    axes.set_xticks(range(count), names, rotation=turned, fontsize=size, **anchor)
    axes.set_yticks(range(count), names, fontsize=size)
    axes.set_xlabel("prediction", fontsize=NORMAL)
    axes.set_ylabel("truth", fontsize=NORMAL)
    axes.set_title("Confusion, % of each true class", fontsize=LARGE, loc="left")
    axes.tick_params(length=0)
    axes.spines[:].set_color(GRID)


def _names(classes: Sequence[str], size: float) -> list[str]:
    return [shortened(name, 1.9, size) for name in classes]


def class_history_figure(history: History, label_space: "LabelSpace", metric: str = WEIGHTS) -> Figure:
    """A metric of each class, or of each source, over training, a line each, named at its end; the mean weight is dashed.

    Of more than `MANY` classes those that end highest and lowest are named, the others are grey.

    Args:
        history: from :func:`segzoo.evaluation.history.read_history`.
        label_space: colours of the lines of classes.
        metric: what is drawn: a key of `TITLES`, which names follow.

    Raises:
        ValueError: the history holds no such metric.
    """
    lines = select(history, metric)
    if not lines:
        raise ValueError(f"the history holds no metric '{metric}<class>'")
    colours: dict[str, Any] = {name: LINES[i % len(LINES)] for i, name in enumerate(lines)}
    if metric != SOURCE_WEIGHTS:
        palette = zip(label_space.classes, label_space.palette, strict=True)
        colours = {name: _readable(unit_rgb(rgb)) for name, rgb in palette}
    last = sorted(lines, key=lambda name: float(lines[name][1][-1]))
    named = set(last if len(last) <= MANY else last[: NAMED // 2] + last[-NAMED // 2 :])
    figure = Figure(figsize=(7.6, max(4.0, 0.24 * len(named) + 1.0)), layout="constrained")
    axes = figure.subplots()
    for name in sorted(lines, key=lambda name: name in named):  # what is named lies above
        steps, values = lines[name]
        colour, width = (colours.get(name, INK), 1.6) if name in named else (GRID, 0.8)
        few = "o" if len(steps) < 20 else None
        axes.plot(steps, values, color=colour, linewidth=width, marker=few, markersize=3.5, label=plain(name))
    ends = {name: float(lines[name][1][-1]) for name in lines if name in named}
    if metric in (WEIGHTS, SOURCE_WEIGHTS) and MEAN_WEIGHT in history:
        lines["all pixels"] = history[MEAN_WEIGHT]
        ends["all pixels"] = float(history[MEAN_WEIGHT][1][-1])
        axes.plot(*history[MEAN_WEIGHT], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="all pixels")
    low = min(values.min() for _, values in lines.values())
    high = max(values.max() for _, values in lines.values())
    margin = 0.06 * max(high - low, 1e-3)
    axes.set_ylim(max(min(0.0, low), low - margin), high + margin)
    axes.set_xlabel("step", fontsize=NORMAL)
    some = f" ({len(named)} of {len(last)} named)" if len(named) < len(last) else ""
    axes.set_title(TITLES[metric] + some, fontsize=LARGE, loc="left")
    style(axes, grid="y")
    _name_lines(axes, ends, colours, figure.get_figheight() - 1.0)
    return figure


def curves(history: History) -> tuple[History, History, History]:
    """What `curves_figure` draws: terms of the training loss, AUC of discriminators, validation scores, each by name."""
    terms = {name: series for name, series in select(history, TERMS).items() if not name.endswith("_epoch")}
    return terms, select(history, AUCS), {n: history[f"val/{n}"] for n in VALIDATION if f"val/{n}" in history}


def curves_figure(history: History) -> Figure:
    """Over the steps, as far as they were logged: terms of the training loss, AUC of discriminators, validation scores."""
    terms, aucs, scores = curves(history)
    panels = [bool(terms), bool(aucs), bool(scores)]
    figure = Figure(figsize=(7.6, 1.0 + 2.7 * max(1, sum(panels))), layout="constrained")
    grid = figure.subplots(max(1, sum(panels)), 1, squeeze=False, sharex=True)[:, 0]
    if not any(panels):
        grid[0].text(0.5, 0.5, "nothing was logged", ha="center", color=MUTED, transform=grid[0].transAxes)
        grid[0].set_axis_off()
        return figure
    if terms:
        _terms(grid[0], terms)
    if aucs:
        axes = grid[int(bool(terms))]
        axes.axhline(0.5, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        _smoothed(axes, aucs)
        axes.set_title("AUC of the discriminators (dashed: chance; 1: saturated)", fontsize=LARGE, loc="left")
    if scores:
        axes = grid[-1]
        names = VALIDATION
        colours = {names[name]: LINES[i] for i, name in enumerate(scores)}
        for name, (steps, values) in scores.items():
            axes.plot(steps, values, color=colours[names[name]], linewidth=1.8, marker="o", markersize=3.5)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.set_title("Validation", fontsize=LARGE, loc="left")
        ends = {names[name]: float(values[-1]) for name, (_, values) in scores.items()}
        style(axes, grid="y")
        texts = {names[name]: f"{names[name]} {percent(values[-1])}" for name, (_, values) in scores.items()}
        _name_lines(axes, ends, colours, 2.2, texts)
    grid[-1].set_xlabel("step", fontsize=NORMAL)
    return figure


def _terms(axes: Axes, terms: History) -> None:
    positive = all((values > 0).all() for _, values in terms.values())
    spread = max(v.max() for _, v in terms.values()) / max(min(v.min() for _, v in terms.values()), 1e-12)
    if positive and spread > 30:
        axes.set_yscale("log", subs=(2, 5))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_title("Training loss and its terms", fontsize=LARGE, loc="left")
    _smoothed(axes, terms)


def _smoothed(axes: Axes, lines: History) -> None:
    """Each as measured, pale, and smoothed, with its name at the end."""
    colours = {name: LINES[i % len(LINES)] for i, name in enumerate(lines)}
    ends = {}
    for name, (steps, values) in lines.items():
        smoothed = smooth(values)
        axes.plot(steps, values, color=colours[name], linewidth=0.8, alpha=0.3)
        alone = "o" if len(steps) == 1 else None  # a line of one point is invisible
        axes.plot(steps, smoothed, color=colours[name], linewidth=1.8, marker=alone, markersize=3.5)
        ends[name] = float(smoothed[-1])
    style(axes, grid="y")
    _name_lines(axes, ends, colours, 2.2)


def smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A centred moving mean over a twentieth of the points."""
    width = max(1, len(values) // 20) | 1
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), mode="valid")


def _name_lines(
    axes: Axes,
    ends: Mapping[str, float],
    colours: Mapping[str, Any],
    height: float,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Writes names at the right edge beside the ends of their lines, moved apart where they would overlap."""
    names = sorted(ends, key=lambda name: ends[name])
    to_axes = axes.transData + axes.transAxes.inverted()
    left = axes.get_xlim()[0]
    wanted = [float(to_axes.transform((left, ends[name]))[1]) for name in names]
    places = _spread_apart(wanted, 1.35 * NORMAL / 72 / height)
    for name, end, place in zip(names, wanted, places, strict=True):
        axes.annotate(
            shortened((texts or {}).get(name, name), 1.9, NORMAL),
            xy=(1.0, end),
            xytext=(1.03, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=NORMAL,
            color=colours.get(name, INK),
            arrowprops={"arrowstyle": "-", "color": GRID, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0},
        )


def _spread_apart(wanted: Sequence[float], gap: float) -> list[float]:
    """The nearest places in the same order that are ``gap`` apart; ``wanted`` ascends."""
    groups: list[tuple[float, int]] = []  # centre and size of runs of touching labels
    for value in wanted:
        centre, size = value, 1
        while groups and centre - groups[-1][0] < gap * (size + groups[-1][1]) / 2:
            other, many = groups.pop()
            centre = (centre * size + other * many) / (size + many)
            size += many
        groups.append((centre, size))
    return [centre + gap * (i - (size - 1) / 2) for centre, size in groups for i in range(size)]


def style(axes: Axes, grid: str) -> None:
    """Two spines, and grid lines along one axis (``x`` or ``y``)."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(which="both", labelsize=NORMAL, color=MUTED)
    axes.grid(axis=grid, color=GRID, linewidth=0.7)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    if grid == "y":
        axes.margins(x=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def unit_rgb(rgb: Sequence[int]) -> tuple[float, float, float]:
    """A colour of 0..255 as matplotlib wants it."""
    return (rgb[0] / 255, rgb[1] / 255, rgb[2] / 255)


def _readable(colour: tuple[float, float, float]) -> tuple[float, float, float]:
    """The colour, darkened until text in it can be read on white."""
    r, g, b = colour
    luminance = 0.2126 * r**2.2 + 0.7152 * g**2.2 + 0.0722 * b**2.2
    factor = min(1.0, (0.28 / luminance) ** (1 / 2.2)) if luminance else 1.0
    return (r * factor, g * factor, b * factor)
