"""What a weighting method does: a source image, its label and its weights; a photograph, its true label and predictions.

    segzoo fit --method metapix
    python -m docs.figures.strip runs/metapix/minicity/default-s0

A second run says what was before:

    segzoo fit --method source-only
    python -m docs.figures.strip runs/metapix/minicity/default-s0 --before runs/source-only/minicity/default-s0
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle

import segzoo
from docs.figures import city
from docs.figures.drawing import MAP, Card, write
from segzoo.data.label_spaces import LabelSpace

Pictures = dict[str, np.ndarray]

SOURCE, TARGET = 200, 50
"""Numbers of the images that the panels of a run show, too."""


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the strip.

    Args:
        argv: the arguments; those of the process when absent.
    """
    parser = argparse.ArgumentParser(
        prog="python -m docs.figures.strip", description="Draw what a weighting method does."
    )
    parser.add_argument("run", type=Path, help="folder of a run of metapix on MiniCity")
    parser.add_argument("--before", type=Path, help="folder of another run on MiniCity, such as one of source-only")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/figures/strip.png"), help="(default: docs/figures/strip.png)"
    )
    arguments = parser.parse_args(argv)
    after = segzoo.load(arguments.run, device="cpu")
    made, photographs = city.images("source", "train"), city.images("target", "val")
    photograph = photographs.image(TARGET)
    space = after.label_space
    above = {
        "synthetic image": made.image(SOURCE),
        "its label": space.colorize(made.label(SOURCE)),
        "learned weight of every pixel": city.maps(after, made.image(SOURCE), made.label(SOURCE))["weight"],
    }
    below = {"target image": photograph, "true label": space.colorize(photographs.label(TARGET))}
    if arguments.before is not None:
        before = segzoo.load(arguments.before, device="cpu")
        below[f"before: {before.method.slug}"] = space.colorize(before.predict(photograph).labels)
    below[f"prediction of {after.method.slug}"] = space.colorize(after.predict(photograph).labels)
    write(draw(above, below, space).figure, arguments.out)


def draw(above: Pictures, below: Pictures, space: LabelSpace) -> Card:
    """Two rows of pictures; the classes beside the shorter row, or below.

    Args:
        above: pictures by their title, (H, W, 3) or (H, W); the last is a map.
        below: the same, as many or one more.
        space: names and colours of the classes.
    """
    count, width, room = max(len(above), len(below)), 2.3, 0.1
    step, beside = width + room, len(above) < len(below)
    height = width * 96 / 160 + 0.28
    card = Card(count * step + room, 2 * height + (0.1 if beside else 0.4))
    for row, pictures in enumerate((below, above)):
        y = card.height - (2 - row) * height
        for column, (title, picture) in enumerate(pictures.items()):
            card.picture((room + column * step, y), picture, width, title, cmap=MAP)
    if not beside:
        card.legend(0.18, space)
        return card
    left, top = room + len(above) * step, card.height - 0.28
    highest = list(above.values())[-1].max()
    card.scale((left + 0.2, top - 0.35), 1.5, "0", f"{highest:.1f}")
    card.text((left + 0.95, top - 0.14), "weight", size=9)
    for number, (name, colour) in enumerate(zip(space.classes, space.palette, strict=True)):
        x, y = left + 0.1 + 1.1 * (number % 2), top - 0.62 - 0.165 * (number // 2)
        card.axes.add_patch(Rectangle((x, y - 0.05), 0.1, 0.1, color=np.array(colour) / 255))
        card.text((x + 0.16, y), name, ha="left", size=9)
    return card


if __name__ == "__main__":
    main()
