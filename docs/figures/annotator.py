"""The gradient annotator at a glance: generated faces and the labels that the annotator of a run gives them.

segzoo fit --method gradient-annotator --trainer.max_steps 400
python -m docs.figures.annotator runs/gradient-annotator/minifaces/default-s0
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from docs.figures.drawing import BLUE, MUTED, ORANGE, PURPLE, Card, write
from segzoo.data import MiniFaces
from segzoo.inference.checkpoints import load_checkpoint
from segzoo.methods.gradient_annotator import GradientAnnotator

LABELLED = (0, 2)
"""Numbers of labelled faces."""
SEEDS = (3, 8, 11)
"""Of the generated faces."""


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figure.

    Args:
        argv: the arguments; those of the process when absent.
    """
    parser = argparse.ArgumentParser(
        prog="python -m docs.figures.annotator", description="Draw the loop of the gradient annotator."
    )
    parser.add_argument("run", type=Path, help="folder of a run of gradient-annotator on MiniFaces")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/annotator.png"))
    arguments = parser.parse_args(argv)
    method, _ = load_checkpoint(arguments.run, "cpu")
    assert isinstance(method, GradientAnnotator)
    write(draw(method).figure, arguments.out)


def draw(method: GradientAnnotator) -> Card:
    """The two ways to a gradient, and what their difference teaches.

    Args:
        method: a trained one.
    """
    images, probabilities = method.labelled_images([torch.Generator().manual_seed(seed) for seed in SEEDS])
    faces, space = MiniFaces().images("train", Path()), method.label_space
    card = Card(7, 5.2, "gradient-annotator: labels that teach as the few real ones do")
    card.box((0.15, 3.05), (4.55, 1.65), "", BLUE)
    card.box((0.15, 0.75), (4.55, 1.65), "", ORANGE)
    card.text((1.0, 3.9), "A GAN paints,\nthe annotator\nlabels", size=10)
    card.text((1.0, 1.6), "The few\nreal labels", size=10)
    for column, (image, y) in enumerate(zip(images, probabilities, strict=True)):
        x = 1.95 + 0.9 * column
        card.picture((x, 3.9), (image.movedim(0, -1).clamp(0, 1).numpy() * 255).astype(np.uint8), 0.74)
        card.picture((x, 3.12), space.colorize(y.argmax(dim=0).numpy()), 0.74)
    for column, number in enumerate(LABELLED):
        x = 2.4 + 0.9 * column
        card.picture((x, 1.6), faces.image(number), 0.74)
        card.picture((x, 0.82), space.colorize(faces.label(number)), 0.74)
    card.box((5.25, 3.55), (1.6, 0.66), "gradient g of\nthe student", BLUE)
    card.box((5.25, 1.25), (1.6, 0.66), "gradient ĝ of\nthe student", ORANGE)
    card.arrow((4.72, 3.88), (5.22, 3.88), BLUE)
    card.arrow((4.72, 1.58), (5.22, 1.58), ORANGE)
    card.box((5.25, 2.44), (1.6, 0.56), "how far apart?", PURPLE)
    card.arrow((6.05, 3.53), (6.05, 3.02), PURPLE)
    card.arrow((6.05, 1.93), (6.05, 2.42), PURPLE)
    card.axes.plot([5.23, 0.8, 0.8], [2.72, 2.72, 2.8], color=PURPLE, linewidth=1.4)
    card.arrow((0.8, 2.78), (0.8, 3.03), PURPLE)
    card.text((3.0, 2.88), "the annotator learns to bring them closer", size=9.5, color=PURPLE, style="italic")
    card.text(
        (3.5, 0.5),
        "The student, the network that will segment, learns from the generated faces alone.",
        size=9.5,
        color=MUTED,
    )
    card.legend(0.2, space)
    return card


if __name__ == "__main__":
    main()
