"""How hard `minent` and `maxsquare` pull at a pixel, by how sure it is: the slopes of the two losses for two classes.

    python -m docs.figures.confidence

The curves are the derivatives of the losses that training uses, taken by autograd.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from docs.figures.drawing import BLUE, ORANGE, Card, plot, write
from segzoo.losses import maximum_squares, minimum_entropy

SURE = (0.5, 0.999)
"""Probabilities of the likelier of two classes that are drawn."""


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figure.

    Args:
        argv: the arguments; those of the process when absent.
    """
    parser = argparse.ArgumentParser(
        prog="python -m docs.figures.confidence", description="Draw the slopes of entropy and maximum squares."
    )
    parser.add_argument("--out", type=Path, default=Path("docs/figures/confidence.png"))
    write(draw().figure, parser.parse_args(argv).out)


def slopes(loss: Callable[[Tensor], Tensor], sure: np.ndarray) -> np.ndarray:
    """How fast a loss falls as the likelier of two classes gets likelier.

    Args:
        loss: of probabilities (B, C, H, W).
        sure: (N,) probabilities of the likelier class.

    Returns:
        (N,) slopes, at most 1 for maximum squares.
    """
    p = torch.tensor(sure, dtype=torch.float64, requires_grad=True)
    # One pixel per image: the sum over the images undoes the mean, and a factor of two the mean over the classes.
    value = loss(torch.stack([p, 1 - p], dim=1)[:, :, None, None]) * 2 * len(sure)
    (slope,) = torch.autograd.grad(value, p)
    return -slope.numpy()


def draw() -> Card:
    """The slopes of both losses, and what is left of them behind a softmax."""
    card = Card(7, 3.35, "How hard an unlabelled pixel pulls at the network")
    p = np.linspace(*SURE, 400)
    curves = {"minent: entropy": (minimum_entropy, ORANGE, "-"), "maxsquare: squares": (maximum_squares, BLUE, "--")}
    left, right = plot(card, 0.75, 0.55, 2.6, 2.15), plot(card, 4.2, 0.55, 2.6, 2.15)
    for name, (loss, colour, line) in curves.items():
        pull = slopes(loss, p)
        left.plot(p, pull, line, color=colour, linewidth=2.2, label=name)
        # dp/dz = p (1 - p): a softmax lets little through where it is sure.
        right.plot(p, pull * p * (1 - p), line, color=colour, linewidth=2.2, label=name)
    for axes, title in ((left, "on the probability"), (right, "on the logit, behind the softmax")):
        axes.set_title(title, fontsize=10.5)
        axes.set_xlabel("probability of the likelier class", fontsize=10)
        axes.axvspan(0.9, 1.0, color="0.9", zorder=0)
        axes.set_xlim(0.5, 1.0)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=9)
        axes.text(0.95, 0.97, "easy\npixels", transform=axes.get_xaxis_transform(), ha="center", va="top", fontsize=9)
    left.set_ylabel("pull", fontsize=10)
    left.legend(frameon=False, fontsize=9.5, loc="upper left")
    return card


if __name__ == "__main__":
    main()
