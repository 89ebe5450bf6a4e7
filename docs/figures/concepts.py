"""SePiCo at a glance: where the pixels of each class lie in feature space, before and after the training.

segzoo fit --method sepico --trainer.max_steps 300
python -m docs.figures.concepts runs/sepico/minicity/default-s0
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import segzoo
from docs.figures import city
from docs.figures.drawing import INK, MUTED, Card, plot, write
from segzoo.adaptation import cell_labels
from segzoo.data.label_spaces import LabelSpace
from segzoo.inference import Predictor
from segzoo.methods.sepico import SePiCo
from segzoo.models.heads import select_features

IMAGES = 24
"""Images of each domain whose cells are drawn."""
POINTS = 60
"""Cells of a class and domain, at most."""
SHOWN = ("sky", "building", "road", "tree", "car")
"""Classes that fill whole cells of the feature map."""


class Cells(NamedTuple):
    """Vectors of the cells of images.

    Attributes:
        vectors: (N, A) of unit length.
        labels: (N,) true label ids.
        target: (N,) whether a cell is of the target.
    """

    vectors: np.ndarray
    labels: np.ndarray
    target: np.ndarray


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figure.

    Args:
        argv: the arguments; those of the process when absent.
    """
    parser = argparse.ArgumentParser(
        prog="python -m docs.figures.concepts", description="Draw features of pixels before and after SePiCo."
    )
    parser.add_argument("run", type=Path, help="folder of a run of sepico on MiniCity")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/concepts.png"))
    arguments = parser.parse_args(argv)
    write(draw(segzoo.load(arguments.run, device="cpu")).figure, arguments.out)


def draw(predictor: Predictor, images: int = IMAGES) -> Card:
    """The projected features of an untrained and of the trained network.

    Args:
        predictor: a run of sepico.
        images: of each domain.
    """
    trained = predictor.method
    assert isinstance(trained, SePiCo)
    before, after = cells(untrained(trained), images), cells(trained, images)
    space = predictor.label_space
    card = Card(7, 4.55, "sepico: where the pixels of a class lie in feature space")
    titles = {"before: untrained": before, "after: trained": after}
    for column, (title, found) in enumerate(titles.items()):
        axes = plot(card, 0.3 + 3.35 * column, 0.85, 3.05, 2.85)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{title}\n{nearest(found):.0%} of ▲ nearest to their own ★", fontsize=9.5)
        flat = plane(found.vectors)
        for name in SHOWN:
            label = space.classes.index(name)
            colour = np.array(space.palette[label]) / 255
            for target, marker, size in ((False, "o", 13), (True, "^", 17)):
                at = flat[(found.labels == label) & (found.target == target)]
                edge = INK if target else "none"
                axes.scatter(*at.T, s=size, marker=marker, color=[colour], edgecolors=edge, linewidths=0.5, alpha=0.85)
            own = flat[(found.labels == label) & ~found.target]
            if len(own):
                axes.scatter(
                    *own.mean(axis=0), s=190, marker="*", color=[colour], edgecolors="white", linewidths=1.2, zorder=5
                )
    explained = "● synthetic pixels    ▲ pixels of photographs, whose labels were never seen    ★ concept"
    card.text((3.5, 0.55), explained, size=9.5, color=MUTED)
    card.legend(0.22, only(space))
    return card


def untrained(method: SePiCo) -> SePiCo:
    """The same method as it begins.

    Args:
        method: the trained one.
    """
    torch.manual_seed(0)
    return type(method).restored(dict(method.hparams)).eval()


@torch.no_grad()
def cells(method: SePiCo, count: int) -> Cells:
    """Projected features of both domains, with true labels, equally many of each class as far as there are.

    Args:
        method: its teacher maps the images, as it does where the concepts are gathered.
        count: images of each domain.
    """
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    draws = np.random.default_rng(0)
    for domain in ("source", "target"):
        images = city.images(domain, "val" if domain == "target" else "train")
        made = [city.batch(images.image(i), images.label(i)) for i in range(min(count, len(images)))]
        network = method.teacher.network
        maps = network["segmenter"].features(torch.cat([one["image"] for one in made]))
        vectors = network["projection"](select_features(maps, method.projection_input)).movedim(1, -1)
        label = torch.cat([one["label"] for one in made])
        labels = cell_labels(method.segmenter, label, vectors.shape[1:3], method.num_classes)
        for name in SHOWN:
            own = vectors[labels == method.label_space.classes.index(name)]
            own = own[draws.permutation(len(own))[:POINTS]]
            ids = torch.full((len(own),), method.label_space.classes.index(name))
            found.append((own, ids, torch.full((len(own),), domain == "target")))
    return Cells(*(torch.cat(parts).numpy() for parts in zip(*found, strict=True)))


def plane(vectors: np.ndarray) -> np.ndarray:
    """The two principal components (N, 2).

    Args:
        vectors: (N, A).
    """
    centred = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    flat: np.ndarray = centred @ axes[:2].T
    return flat


def nearest(found: Cells) -> float:
    """The share of target cells whose nearest concept, the mean of a class's source cells, is that of their own class.

    Args:
        found: cells of both domains.
    """
    classes = np.unique(found.labels[~found.target])
    means = np.stack([found.vectors[~found.target & (found.labels == c)].mean(axis=0) for c in classes])
    chosen = classes[(found.vectors[found.target] @ means.T).argmax(axis=1)]
    return float((chosen == found.labels[found.target]).mean())


def only(space: LabelSpace) -> LabelSpace:
    """The classes that are drawn.

    Args:
        space: all of them.
    """
    kept = [space.classes.index(name) for name in SHOWN]
    return LabelSpace(space.name, SHOWN, tuple(space.palette[i] for i in kept))


if __name__ == "__main__":
    main()
