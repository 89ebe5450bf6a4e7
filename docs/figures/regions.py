"""Region selection at a glance: three judges score how real a prediction looks, and their scores become weights.

segzoo fit --method region-selection --trainer.max_steps 300
python -m docs.figures.regions runs/region-selection/minicity/default-s0
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import segzoo
from docs.figures import city
from docs.figures.drawing import MAP, MUTED, Card, write
from segzoo.inference import Predictor

SOURCE = 133
LEVELS = {"pixel score": "pixel", "region score": "region", "image score": "whole image"}
"""The maps of the method, and what each judges."""


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figure.

    Args:
        argv: the arguments; those of the process when absent.
    """
    parser = argparse.ArgumentParser(
        prog="python -m docs.figures.regions", description="Draw the scores and weights of region selection."
    )
    parser.add_argument("run", type=Path, help="folder of a run of region-selection on MiniCity")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/regions.png"))
    arguments = parser.parse_args(argv)
    write(draw(segzoo.load(arguments.run, device="cpu")).figure, arguments.out)


def draw(predictor: Predictor) -> Card:
    """From a source image to its weights.

    Args:
        predictor: trained region selection with all three levels.
    """
    made, space = city.images("source", "train"), predictor.label_space
    image, label = made.image(SOURCE), made.label(SOURCE)
    maps = city.maps(predictor, image, label)
    card = Card(7, 5.3, "region-selection: what looks real counts more")
    x, width = 0.2, 1.85
    card.picture((x, 3.35), image, width, "synthetic image")
    card.picture((x, 1.5), space.colorize(predictor.predict(image).labels), width, "prediction for it")
    card.arrow((x + width / 2, 3.32), (x + width / 2, 2.84))
    # The scale of all scores is one: what a judge cannot tell apart then looks even.
    scores = [maps[name] for name in LEVELS]
    low, high = min(float(s.min()) for s in scores), max(float(s.max()) for s in scores)
    card.text((3.5, 4.8), "Does it look real?", size=10.5, weight="bold")
    for row, (name, judged) in enumerate(LEVELS.items()):
        y = 3.45 - 1.4 * row
        card.picture((2.75, y), maps[name], 1.5, f"by {judged}", cmap=MAP, vmin=low, vmax=high)
        card.arrow((x + width + 0.03, 2.05), (2.72, y + 0.45))
        card.arrow((4.28, y + 0.45), (4.92, 2.6))
    card.scale((2.95, 0.42), 1.1, f"{low:.2f}", f"{high:.2f}")
    weight = maps["weight"]
    card.picture((4.95, 2.05), weight, width, "weight of its loss", cmap=MAP, vmin=0)
    card.scale((5.3, 1.82), 1.1, "0", f"{weight.max():.1f}")
    card.text(
        (x + width / 2, 1.12),
        "Judges see predictions on\nphotographs, too, and learn to\ntell the two apart.",
        size=9,
        color=MUTED,
    )
    card.text((5.87, 1.4), "mean of the scores,\ndivided so that its mean is 1", size=9, color=MUTED)
    card.legend(0.14, space)
    return card


if __name__ == "__main__":
    main()
