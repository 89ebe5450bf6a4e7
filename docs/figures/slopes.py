"""Reweighting at a glance: the slopes of one batch are its weights, so that other target images give other weights.

    segzoo fit --method source-only
    python -m docs.figures.slopes runs/source-only/minicity/default-s0

A run of any method will do: the weights follow from its network alone.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.func import functional_call, jvp
from torch.nn import functional as F

import segzoo
from docs.figures import city
from docs.figures.drawing import BLUE, GREEN, MAP, MUTED, ORANGE, PURPLE, Card, write
from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.data.streams import Batch
from segzoo.inference import Predictor

SOURCE, TARGETS = 133, (50, 73)
"""A source image, and target images that it meets in two batches."""


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figure.

    Args:
        argv: the arguments; those of the process when absent.
    """
    parser = argparse.ArgumentParser(
        prog="python -m docs.figures.slopes", description="Draw the weights that two batches give the same pixels."
    )
    parser.add_argument("run", type=Path, help="folder of a run on MiniCity")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/slopes.png"))
    arguments = parser.parse_args(argv)
    write(draw(segzoo.load(arguments.run, device="cpu")).figure, arguments.out)


def weights(predictor: Predictor, source: Batch, target: Batch) -> np.ndarray:
    """w_i = relu(<grad l_i, grad L_T>), divided by the mean.

    Args:
        predictor: whose network it is.
        source: one labelled source image.
        target: labelled target images.

    Returns:
        (H, W) weights.
    """
    network = predictor.method.segmenter
    theta = {name: p.detach() for name, p in network.named_parameters()}

    def losses(theta: dict[str, torch.Tensor], one: Batch) -> torch.Tensor:
        logits = functional_call(network, theta, (one["image"],))
        return F.cross_entropy(logits, one["label"], ignore_index=IGNORE_INDEX, reduction="none")

    tracked = {name: p.requires_grad_() for name, p in theta.items()}
    slopes = torch.autograd.grad(losses(tracked, target).mean(), list(tracked.values()), allow_unused=True)
    zeros = (torch.zeros_like(p) if g is None else g for g, p in zip(slopes, tracked.values(), strict=True))
    fixed = {name: p.detach() for name, p in theta.items()}
    _, helps = jvp(lambda t: losses(t, source), (fixed,), (dict(zip(fixed, zeros, strict=True)),))
    found = helps[0].relu()
    return np.asarray(found / found.mean().clamp_min(1e-12))


def draw(predictor: Predictor) -> Card:
    """The same source image in two batches.

    Args:
        predictor: a run of any method.
    """
    made, photographs, space = city.images("source", "train"), city.images("target", "train"), predictor.label_space
    source = city.batch(made.image(SOURCE), made.label(SOURCE))
    card = Card(7, 4.75, "reweight: what helps in this batch weighs more in this batch")
    card.box((0.15, 1.25), (2.0, 2.95), "", BLUE)
    card.picture((0.25, 2.78), made.image(SOURCE), 1.8, "synthetic image")
    card.picture((0.25, 1.35), space.colorize(made.label(SOURCE)), 1.8, "its label")
    for row, number in enumerate(TARGETS):
        y = 2.78 - 1.6 * row
        image, label = photographs.image(number), photographs.label(number)
        card.box((2.45, y - 0.1), (2.25, 1.15), "", ORANGE)
        card.picture((2.55, y + 0.05), image, 1.0)
        card.picture((3.6, y + 0.05), space.colorize(label), 1.0)
        card.text((3.575, y + 0.88), f"batch {row + 1}: photograph, label", size=9.5)
        weight = weights(predictor, source, city.batch(image, label))
        card.arrow((4.72, y + 0.45), (5.08, y + 0.45), PURPLE)
        card.picture((5.12, y - 0.05), weight, 1.7, f"weights in batch {row + 1}", cmap=MAP, vmin=0, vmax=4)
    card.scale((5.4, 0.88), 1.1, "0", "≥ 4")
    card.box(
        (0.15, 0.42),
        (4.55, 0.55),
        "A pixel's weight: how much a little more of it would lower\nthe loss on the photographs, or 0 if it would not.",
        GREEN,
        size=9.5,
    )
    card.text((5.95, 0.6), "No network learns them,\nnothing is remembered.", size=9, color=MUTED)
    card.legend(0.16, space)
    return card


if __name__ == "__main__":
    main()
