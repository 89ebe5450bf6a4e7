"""What each group of methods learns from: the same three heaps of images, and the boxes that it opens.

python -m docs.figures.resources
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from docs.figures import city
from docs.figures.drawing import BLUE, MUTED, ORANGE, PURPLE, Card, write
from segzoo.data import MiniCity
from segzoo.evaluation.plots import INK
from segzoo.methods.registry import methods

SOURCE, LABELLED, UNLABELLED = 311, 50, 73
COLUMNS = {"source": BLUE, "labels": PURPLE, "unlabelled": ORANGE}
"""The resources of the registry and their colours."""
ON_OWN_IMAGES = ("gan",)
"""Methods that label nothing."""


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figure.

    Args:
        argv: the arguments; those of the process when absent.
    """
    parser = argparse.ArgumentParser(
        prog="python -m docs.figures.resources", description="Draw what each method learns from."
    )
    parser.add_argument("--out", type=Path, default=Path("docs/figures/resources.png"))
    write(draw().figure, parser.parse_args(argv).out)


def groups() -> dict[tuple[str, ...], list[str]]:
    """The methods that label images, by what they learn from, in the order of the registry."""
    found: dict[tuple[str, ...], list[str]] = {}
    for slug, info in methods().items():
        if slug not in ON_OWN_IMAGES:
            found.setdefault(tuple(name for name in COLUMNS if name in info.resources), []).append(slug)
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), list(COLUMNS).index(item[0][0]))))


def draw() -> Card:
    """Three heaps above, a line of methods for each choice of them."""
    space = MiniCity("target").label_space
    made, photographs, rows = city.images("source", "train"), city.images("target", "train"), groups()
    card = Card(7, 2.55 + 0.5 * len(rows), "What a method learns from")
    top = card.height - 2.4
    pictures = {
        "source": ("synthetic images\nwith labels", made.image(SOURCE), space.colorize(made.label(SOURCE))),
        "labels": (
            "photographs\nwith labels",
            photographs.image(LABELLED),
            space.colorize(photographs.label(LABELLED)),
        ),
        "unlabelled": ("photographs\nwithout labels", photographs.image(UNLABELLED), None),
    }
    for column, (name, colour) in enumerate(COLUMNS.items()):
        x, (title, image, label) = 0.2 + 1.2 * column, pictures[name]
        card.box((x, top), (1.12, 1.95), "", colour)
        card.text((x + 0.56, top + 1.72), title, size=8.5)
        card.picture((x + 0.06, top + 0.83), image, 1.0)
        if label is not None:
            card.picture((x + 0.06, top + 0.12), label, 1.0)
    for row, (taken, slugs) in enumerate(rows.items()):
        y = top - 0.4 - 0.5 * row
        for column, (name, colour) in enumerate(COLUMNS.items()):
            x = 0.76 + 1.2 * column
            marker = "●" if name in taken else "·"
            card.text((x, y), marker, size=17 if name in taken else 12, color=colour if name in taken else MUTED)
        half = (len(slugs) + 1) // 2
        lines = [slugs] if len(slugs) < 3 else [slugs[:half], slugs[half:]]
        card.text((3.95, y), "\n".join(", ".join(line) for line in lines), size=10, ha="left")
        card.axes.plot([0.2, 6.8], [y + 0.25, y + 0.25], color="0.85", linewidth=0.8)
    card.text(
        (5.35, top + 1.0),
        "The same networks and schedules\nfor all, and one test: labelled\nphotographs that no method saw.",
        size=10,
        color=INK,
    )
    return card


if __name__ == "__main__":
    main()
