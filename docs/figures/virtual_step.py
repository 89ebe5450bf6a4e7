"""MetaPix at a glance: weigh, try a step, look at the target loss, and change the weights; with the weights of a run.

segzoo fit --method metapix
python -m docs.figures.virtual_step runs/metapix/minicity/default-s0
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

import segzoo
from docs.figures import city
from docs.figures.drawing import BLUE, GREEN, MAP, ORANGE, PURPLE, Card, write
from segzoo.inference import Predictor

SOURCE, TARGET = 133, 50
"""A source image whose labels are wrong in places that one sees, and a labelled target image."""
TALL = 3.0
"""Weights from here on have one colour: few pixels have more."""


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figure.

    Args:
        argv: the arguments; those of the process when absent.
    """
    parser = argparse.ArgumentParser(
        prog="python -m docs.figures.virtual_step", description="Draw what MetaPix does in a step."
    )
    parser.add_argument("run", type=Path, help="folder of a run of metapix on MiniCity")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/virtual_step.png"))
    arguments = parser.parse_args(argv)
    write(draw(segzoo.load(arguments.run, device="cpu")).figure, arguments.out)


def draw(predictor: Predictor) -> Card:
    """The loop, and below it the weights that it ends with.

    Args:
        predictor: a trained method that weighs source pixels.
    """
    made, photographs, space = city.images("source", "train"), city.images("target", "train"), predictor.label_space
    image, label = made.image(SOURCE), made.label(SOURCE)
    weight = city.maps(predictor, image, label)["weight"]
    card = Card(7, 6.2, "metapix: which source pixels help on the target?")
    _loop(card, image, photographs.image(TARGET), space.colorize(photographs.label(TARGET)))
    y, width = 0.95, 2.05
    card.text((3.5, 2.68), "What a run has learned", size=11, weight="bold")
    shown = {"synthetic image": image, "its label, partly wrong": space.colorize(label), "learned weight": weight}
    wrong = broad(made.wrong(SOURCE))
    for column, (title, pixels) in enumerate(shown.items()):
        at = (0.25 + 2.225 * column, y)
        card.picture(at, pixels, width, title, cmap=MAP, vmin=0, vmax=TALL)
        _outline(card, at, width, wrong)
    card.scale((5.15, 0.74), 1.15, "0", f"≥ {TALL:g}")
    inside, outside = weight[wrong].mean(), weight[~wrong].mean()
    found = "Outlined: wrong label or texture. The method is not told.\n"
    card.text((0.25, 0.62), f"{found}Mean weight there {inside:.1f}, elsewhere {outside:.1f}.", size=9, ha="left")
    card.legend(0.2, space)
    return card


def broad(mask: np.ndarray, smallest: int = 40) -> np.ndarray:
    """The parts of a mask that one sees: without thin lines and small spots.

    Args:
        mask: (H, W) bool.
        smallest: pixels of the smallest part that stays.
    """
    parts, count = ndimage.label(ndimage.binary_opening(mask, iterations=2))
    sizes = ndimage.sum_labels(np.ones_like(parts), parts, range(count + 1))
    kept: np.ndarray = (sizes >= smallest)[parts] & (parts > 0)
    return kept


def _loop(card: Card, source: np.ndarray, target: np.ndarray, label: np.ndarray) -> None:
    card.box((0.2, 4.55), (1.95, 1.25), "\n\n\n\n1. weigh every\nsource pixel: w", BLUE, size=10)
    card.picture((0.72, 5.13), source, 0.9)
    card.box((2.6, 4.55), (1.9, 1.25), "2. try a step on the\nweighted source loss\n\nθ′ = θ − α ∇ Σ wᵢ lᵢ(θ)", GREEN)
    card.box((4.95, 4.55), (1.85, 1.25), "\n\n\n\n3. look at the loss on a\nfew labelled photographs", ORANGE, size=9.5)
    card.picture((5.05, 5.15), target, 0.8)
    card.picture((5.9, 5.15), label, 0.8)
    card.arrow((2.17, 5.18), (2.58, 5.18))
    card.arrow((4.52, 5.18), (4.93, 5.18))
    text = "4. a pixel gains weight if its own step would lower the target loss,\nand loses weight if it would raise it"
    card.box((0.85, 3.3), (5.3, 0.62), text, PURPLE)
    card.arrow((5.85, 4.53), (5.4, 3.94), PURPLE)
    card.arrow((1.6, 3.94), (1.15, 4.53), PURPLE)
    card.text((3.5, 4.23), "then the next batch", size=9.5, color=PURPLE, style="italic")
    slope = "∂L(θ′)/∂wᵢ = −(α/N) ⟨ ∇lᵢ(θ), ∇L(θ′) ⟩"
    card.text((3.5, 3.06), f"exactly: {slope},   L: the target loss", size=10)


def _outline(card: Card, at: tuple[float, float], width: float, mask: np.ndarray) -> None:
    (x, y), (rows, columns) = at, mask.shape
    across, up = np.meshgrid((np.arange(columns) + 0.5) / columns, 1 - (np.arange(rows) + 0.5) / rows)
    across, up = x + across * width, y + up * width * rows / columns
    for colour, line in (("black", 2.6), ("white", 1.2)):
        card.axes.contour(across, up, mask.astype(float), [0.5], colors=colour, linewidths=line, zorder=6)


if __name__ == "__main__":
    main()
