"""The mixtures that methods with a mean teacher learn from, with the labels of the teacher of a run.

    segzoo fit --method self-training --trainer.max_steps 300
    python -m docs.figures.mixing runs/self-training/minicity/default-s0

draws three figures: ClassMix of `self-training`, the two donors of `ssda`, and CutMix of `semi-supervised`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import segzoo
from docs.figures import city
from docs.figures.drawing import BLUE, GREEN, MUTED, ORANGE, PURPLE, Card, Pixels, write
from segzoo.adaptation import class_mix, cut_mix, pseudo_labels
from segzoo.inference import Predictor

SOURCE, LABELLED, UNLABELLED, OTHER = 311, 50, 61, 73
"""Numbers of the images in the training splits."""
SEED, BOX = 3, 0
"""Seeds of the draws of classes and of a box."""


class Labelled(NamedTuple):
    """An image and its label.

    Attributes:
        image: (H, W, 3) uint8.
        label: (H, W) label ids.
    """

    image: Pixels
    label: Pixels


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figures.

    Args:
        argv: the arguments; those of the process when absent.
    """
    parser = argparse.ArgumentParser(
        prog="python -m docs.figures.mixing",
        description="Draw the mixtures of self-training, ssda and semi-supervised.",
    )
    parser.add_argument("run", type=Path, help="folder of a run of self-training on MiniCity")
    parser.add_argument("--out", type=Path, default=Path("docs/figures"), help="folder (default: docs/figures)")
    arguments = parser.parse_args(argv)
    predictor = segzoo.load(arguments.run, device="cpu")
    for name, draw in {"class_mix": draw_class_mix, "donors": draw_donors, "cut_mix": draw_cut_mix}.items():
        write(draw(predictor).figure, arguments.out / f"{name}.png")


def taught(predictor: Predictor, image: Pixels) -> Labelled:
    """An image with the labels of the teacher.

    Args:
        predictor: a method with a mean teacher.
        image: (H, W, 3) uint8.
    """
    with torch.no_grad():
        labels, _ = pseudo_labels(predictor.method.teacher_segmenter(city.batch(image)["image"]))
    return Labelled(image, labels[0].numpy())


def given(domain: str, number: int) -> Labelled:
    """An image of a training split with its own label.

    Args:
        domain: source or target.
        number: of the image.
    """
    images = city.images(domain, "train")
    return Labelled(images.image(number), images.label(number))


def pasted(donor: Labelled, onto: Labelled, seed: int = SEED) -> Labelled:
    """Half the classes of an image on another one.

    Args:
        donor: what is pasted.
        onto: what stays around it.
        seed: of the choice of classes.
    """
    labels = torch.from_numpy(donor.label.astype(np.int64))[None]
    mask = class_mix(labels, [torch.Generator().manual_seed(seed)])[0].numpy()
    return Labelled(np.where(mask[..., None], donor.image, onto.image), np.where(mask, donor.label, onto.label))


def draw_class_mix(predictor: Predictor) -> Card:
    """`self-training`: classes of a labelled synthetic image on a photograph that the teacher labels.

    Args:
        predictor: a run of self-training.
    """
    card = Card(7, 4.1, "self-training: the teacher labels, mixtures teach")
    source, target = given("source", SOURCE), taught(predictor, city.images("target", "train").image(UNLABELLED))
    _pair(card, predictor, 0.15, source, "synthetic image", "its label", BLUE)
    _pair(card, predictor, 2.475, target, "photograph", "the teacher's label", ORANGE)
    _pair(card, predictor, 4.8, pasted(source, target), "mixture: half the classes", "its label: learned from", GREEN)
    _sign(card, 2.34, "+")
    _sign(card, 4.66, "=")
    card.text(
        (3.5, 0.5),
        "Teacher: the moving average of the network. Surely labelled photographs count more.",
        size=9.5,
        color=MUTED,
    )
    card.legend(0.18, predictor.label_space)
    return card


def draw_donors(predictor: Predictor) -> Card:
    """`ssda`: what is pasted comes from synthetic images and labelled photographs by turns.

    Args:
        predictor: a run of self-training.
    """
    card = Card(7, 7.15, "ssda: both labelled sets are pasted onto photographs")
    target = taught(predictor, city.images("target", "train").image(UNLABELLED))
    source, few = given("source", SOURCE), given("target", LABELLED)
    for drop, donor, name, colour in (
        (0.0, source, "synthetic image", BLUE),
        (3.05, few, "labelled photograph", PURPLE),
    ):
        _pair(card, predictor, 0.15, donor, name, "its label", colour, drop)
        _pair(card, predictor, 2.475, target, "photograph", "the teacher's label", ORANGE, drop)
        _pair(card, predictor, 4.8, pasted(donor, target), "mixture", "its label: learned from", GREEN, drop)
        _sign(card, 2.34, "+", drop)
        _sign(card, 4.66, "=", drop)
    card.text((3.5, 0.46), "A coin decides for every image which of the two is pasted.", size=9.5, color=MUTED)
    card.legend(0.16, predictor.label_space)
    return card


def draw_cut_mix(predictor: Predictor) -> Card:
    """`semi-supervised`: boxes of photographs on photographs, all labelled by the teacher.

    Args:
        predictor: a run with a mean teacher.
    """
    card = Card(7, 4.1, "semi-supervised: photographs with boxes of others")
    photographs = city.images("target", "train")
    one, other = (taught(predictor, photographs.image(number)) for number in (OTHER, UNLABELLED))
    box = cut_mix(one.label.shape, [torch.Generator().manual_seed(BOX)])[0].numpy()
    mixed = Labelled(np.where(box[..., None], one.image, other.image), np.where(box, one.label, other.label))
    _pair(card, predictor, 0.15, one, "photograph", "the teacher's label", ORANGE)
    _pair(card, predictor, 2.475, other, "another one", "the teacher's label", ORANGE)
    _pair(card, predictor, 4.8, mixed, "mixture: a box of the first", "its label: learned from", GREEN)
    _sign(card, 2.34, "+")
    _sign(card, 4.66, "=")
    card.text(
        (3.5, 0.5),
        "The network sees the mixture blurred and in changed colours, the teacher sees the photographs.",
        size=9.5,
        color=MUTED,
    )
    card.legend(0.18, predictor.label_space)
    return card


def _pair(
    card: Card, predictor: Predictor, x: float, one: Labelled, above: str, below: str, colour: str, drop: float = 0.0
) -> None:
    """An image above its label, on ground of a colour, ``drop`` inches below the card's top row."""
    base = card.height - 3.36 - drop
    card.box((x, base), (2.05, 2.9), "", colour)
    card.picture((x + 0.1, base + 1.52), one.image, 1.85, above)
    card.picture((x + 0.1, base + 0.1), predictor.label_space.colorize(one.label), 1.85, below)


def _sign(card: Card, x: float, sign: str, drop: float = 0.0) -> None:
    card.text((x, card.height - 1.9 - drop), sign, size=16, weight="bold")


if __name__ == "__main__":
    main()
