"""Paired differences as points with their spread, taken from the tables of the pages.

python -m docs.figures.paired
"""

import re
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

DOCS = Path(__file__).resolve().parents[1]
CELL = re.compile(r"([+−-][\d.]+) ± ([\d.]+) \((\d)/(\d)(?: above)?\)")
TABLES = {
    "minicity": ("results.md", "## MiniCity, 16", "minus joint, MiniCity with 16 labels"),
    "minicity-unlabelled": ("results.md", "## MiniCity without", "minus self-training, MiniCity without labels"),
    "region-selection": ("region_selection.md", "## Ablation", "minus region-selection, MiniCity with 16 labels"),
}
"""Page, heading and title of each figure."""


@dataclass(frozen=True)
class Difference:
    """A row of a table.

    Attributes:
        row: its name.
        mean: of the differences, in points of mIoU.
        spread: their standard deviation.
        above: in how many seeds the row is above its reference.
        seeds: how many there are.
    """

    row: str
    mean: float
    spread: float
    above: int
    seeds: int


def differences(page: str, heading: str) -> list[Difference]:
    """The paired differences in the first table below a heading.

    Args:
        page: file below ``docs``.
        heading: the beginning of the heading's line.
    """
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.search(r"(?:^\|.*\n)+", text[text.index(f"\n{heading}") :], re.MULTILINE)
    rows = found[0].splitlines() if found else []
    cells = ((row.strip("|").split("|")[0].strip(" `*"), CELL.search(row)) for row in rows)
    return [
        Difference(name.replace("`", ""), float(m[1].replace("−", "-")), float(m[2]), int(m[3]), int(m[4]))
        for name, m in cells
        if m
    ]


def draw(rows: list[Difference], title: str) -> Figure:
    """A line per row: the mean difference, its standard deviation, and the seeds above.

    Args:
        rows: what is drawn, from the top.
        title: what the differences are taken from.
    """
    figure = Figure(figsize=(7, 0.9 + 0.36 * len(rows)), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.axvline(0, color="0.6", linewidth=1)
    for height, row in enumerate(reversed(rows)):
        colour = "#1b7837" if row.mean > row.spread else "#b2182b" if row.mean < -row.spread else "0.35"
        axes.errorbar(row.mean, height, xerr=row.spread, fmt="o", color=colour, capsize=3)
        axes.annotate(f"{row.above}/{row.seeds}", (1.01, height), xycoords=("axes fraction", "data"), va="center")
    axes.set_yticks(range(len(rows)), [row.row for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("points of mIoU, mean ± standard deviation; right: seeds above")
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Draws all of them."""
    for name, (page, heading, title) in TABLES.items():
        draw(differences(page, heading), title).savefig(DOCS / "figures" / f"paired-{name}.png", dpi=110)


if __name__ == "__main__":
    main()
