"""What the figures of the pages share: a white card measured in inches, pictures, boxes and arrows on it, and small files."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image

from segzoo.data.label_spaces import LabelSpace
from segzoo.evaluation.plots import INK, MUTED

Pixels = npt.NDArray[Any]
Point = tuple[float, float]

BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#aa4499"
"""Colours that the colour-blind tell apart: of the source, the target, what helps, and what a method learns."""
PALE = {BLUE: "#e3eff7", ORANGE: "#fbeadf", GREEN: "#e0f3ec", PURPLE: "#f4e6f1"}
MAP = "viridis"
DPI = 125
LIMIT = 200_000
"""Bytes of a figure, at most: pages should open on a phone."""


class Card:
    """A white figure on which everything is placed in inches from its lower left corner.

    Args:
        width: in inches; 7 is what a page shows without shrinking it.
        height: in inches.
        title: above everything.
    """

    def __init__(self, width: float, height: float, title: str = "") -> None:
        self.figure = Figure(figsize=(width, height), facecolor="white")
        self.width, self.height = width, height
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height), autoscale_on=False)
        self.axes.set_axis_off()
        if title:
            self.text((width / 2, height - 0.2), title, size=12, weight="bold")

    def text(self, at: Point, text: str, **options: Any) -> None:
        """A line or more of text.

        Args:
            at: its middle.
            text: what it says.
            options: of `matplotlib.text.Text`.
        """
        centred = {"ha": "center", "va": "center", "size": 10, "color": INK}
        self.axes.text(*at, text, **(centred | options))

    def picture(self, at: Point, pixels: Pixels, width: float, title: str = "", **options: Any) -> tuple[float, float]:
        """An image or a map.

        Args:
            at: its lower left corner.
            pixels: (H, W, 3) or (H, W).
            width: in inches; its height follows.
            title: above it.
            options: of `matplotlib.axes.Axes.imshow`.

        Returns:
            the middle of its right side.
        """
        (x, y), height = at, width * pixels.shape[0] / pixels.shape[1]
        extent = (x, x + width, y, y + height)
        self.axes.imshow(pixels, extent=extent, interpolation="nearest", aspect="auto", zorder=2, **options)
        self.axes.add_patch(Rectangle(at, width, height, fill=False, edgecolor=MUTED, linewidth=0.6, zorder=3))
        self.axes.set(xlim=(0, self.width), ylim=(0, self.height))
        if title:
            self.text((x + width / 2, y + height + 0.12), title, va="center")
        return x + width, y + height / 2

    def box(self, at: Point, sides: Point, text: str, colour: str, **options: Any) -> None:
        """Text in a box with round corners.

        Args:
            at: its lower left corner.
            sides: width and height.
            text: what it says.
            colour: of its border, one of `PALE`.
            options: of `matplotlib.text.Text`.
        """
        shape = "round,pad=0,rounding_size=0.08"
        self.axes.add_patch(
            FancyBboxPatch(
                at, *sides, boxstyle=shape, facecolor=PALE[colour], edgecolor=colour, linewidth=1.2, zorder=2
            )
        )
        self.text((at[0] + sides[0] / 2, at[1] + sides[1] / 2), text, zorder=4, **options)

    def arrow(self, start: Point, end: Point, colour: str = INK, bend: float = 0.0, **options: Any) -> None:
        """An arrow.

        Args:
            start: where it begins.
            end: where its head is.
            colour: of its line.
            bend: how far it leaves the straight line, as a share of its length.
            options: of `matplotlib.patches.FancyArrowPatch`.
        """
        style = {"arrowstyle": "-|>", "mutation_scale": 12, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0, "zorder": 5}
        curve = f"arc3,rad={bend}"
        self.axes.add_patch(FancyArrowPatch(start, end, color=colour, connectionstyle=curve, **(style | options)))

    def scale(self, at: Point, width: float, low: str, high: str, cmap: str | Colormap = MAP) -> None:
        """What the colours of a map mean.

        Args:
            at: lower left corner of the bar.
            width: of the bar.
            low: what stands at its left end.
            high: what stands at its right end.
            cmap: the colours.
        """
        (x, y), height = at, 0.1
        extent = (x, x + width, y, y + height)
        self.axes.imshow(np.linspace(0, 1, 128)[None], extent=extent, aspect="auto", cmap=cmap, zorder=2)
        self.axes.set(xlim=(0, self.width), ylim=(0, self.height))
        self.text((x - 0.06, y + height / 2), low, ha="right", size=9)
        self.text((x + width + 0.06, y + height / 2), high, ha="left", size=9)

    def legend(self, y: float, space: LabelSpace) -> None:
        """The classes and their colours in a line.

        Args:
            y: of its middle.
            space: names and colours.
        """
        widths = [0.3 + 0.074 * len(name) for name in space.classes]
        x = (self.width - sum(widths)) / 2
        for name, colour, width in zip(space.classes, space.palette, widths, strict=True):
            self.axes.add_patch(Rectangle((x, y - 0.05), 0.1, 0.1, color=np.array(colour) / 255))
            self.text((x + 0.14, y), name, ha="left", size=9)
            x += width


def plot(card: Card, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes of a curve or of points on a card, all in inches.

    Args:
        card: where it stands.
        left: of the axes without their labels.
        bottom: the same.
        width: the same.
        height: the same.
    """
    box = (left / card.width, bottom / card.height, width / card.width, height / card.height)
    axes = card.figure.add_axes(box)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def write(figure: Figure, path: Path) -> None:
    """A PNG that is small enough for a page.

    Args:
        figure: what is written.
        path: of the file.

    Raises:
        ValueError: it is larger than `LIMIT`.
    """
    buffer = BytesIO()
    figure.savefig(buffer, dpi=DPI, format="png")
    # Without the channel of transparency, which a white card does not need.
    image = Image.open(buffer).convert("RGB")
    image.save(path, optimize=True)
    if path.stat().st_size > LIMIT:  # fewer colours, which shifts those of small patches a little
        image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
    if (size := path.stat().st_size) > LIMIT:
        raise ValueError(f"{path} has {size} bytes, and a figure at most {LIMIT}: draw it smaller")
