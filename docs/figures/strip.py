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
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch

import segzoo
from segzoo.data import MiniCity
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.streams import image_tensor
from segzoo.inference import Predictor

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
    made = MiniCity("source").images("train", Path())
    photographs = MiniCity("target").images("val", Path())
    photograph = photographs.image(TARGET)
    space = after.label_space
    above = {
        "synthetic image": made.image(SOURCE),
        "its label": space.colorize(made.label(SOURCE)),
        "learned weight of every pixel": weights(after, made.image(SOURCE), made.label(SOURCE)),
    }
    below = {"target image": photograph, "true label": space.colorize(photographs.label(TARGET))}
    if arguments.before is not None:
        before = segzoo.load(arguments.before, device="cpu")
        below[f"before: {before.method.slug}"] = space.colorize(before.predict(photograph).labels)
    below[f"prediction of {after.method.slug}"] = space.colorize(after.predict(photograph).labels)
    draw(above, below, space).savefig(arguments.out, dpi=110)


def draw(above: Pictures, below: Pictures, space: LabelSpace) -> Figure:
    """Two rows of pictures, and a legend of the classes.

    Args:
        above: pictures by their title, (H, W, 3) or (H, W).
        below: the same.
        space: names and colours of the classes.
    """
    count = max(len(above), len(below))
    figure = Figure(figsize=(3.1 * count, 4.6), layout="constrained", facecolor="white")
    axes = figure.subplots(2, count, squeeze=False)
    for cell in axes.flat:
        cell.set_axis_off()
    for row, pictures in zip(axes, (above, below), strict=True):
        for cell, (title, picture) in zip(row, pictures.items(), strict=False):
            cell.imshow(picture, interpolation="nearest")
            cell.set_title(title, fontsize=12)
    colours = [Patch(color=np.array(colour) / 255) for colour in space.palette]
    figure.legend(
        colours,
        space.classes,
        loc="outside lower center",
        ncols=len(colours),
        frameon=False,
        fontsize=10,
        handlelength=1,
    )
    return figure


def weights(predictor: Predictor, image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The weights that a method gives the pixels of a source image.

    Args:
        predictor: the trained method.
        image: (H, W, 3) uint8.
        label: (H, W) label ids.

    Returns:
        (H, W) weights.
    """
    batch = {"image": image_tensor(image)[None], "label": torch.from_numpy(label.astype(np.int64))[None]}
    with torch.no_grad():
        return np.asarray(predictor.method.panel_maps(batch)["weight"][0].float())


if __name__ == "__main__":
    main()
