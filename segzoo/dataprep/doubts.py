"""Which masks a trained network does not believe: labels of wrong places or of wrong classes stand at the top of the list.

A mask is believed as much as the network's mean probability of its labels, p_i. Some classes are harder than others, whatever
their labels: what counts is the difference to the mean P_c of each class over all images of the set,

    belief = mean_i (p_i - P_c(i)),      c(i): the label of pixel i.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segzoo.data.domains import ImageSet, Pixels
from segzoo.data.label_spaces import LabelSpace
from segzoo.dataprep.montage import reduced
from segzoo.evaluation.panels import panel_figure
from segzoo.evaluation.plots import save_figure
from segzoo.files import write_text
from segzoo.inference import Predictor

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
HEADER = ("image", "belief", "probability", "labelled", "share %", "network says")


@dataclass(frozen=True, eq=False)
class Belief:
    """What a network says to the mask of one image.

    Attributes:
        position: of the image in its set.
        probability: (C,) sums of the probability of the label over the pixels of every class.
        pixels: (C,) pixels of every class.
        said: (C, C) pixels by label and by what the network says.
    """

    position: int
    probability: Floats
    pixels: Counts
    said: Counts


@dataclass(frozen=True)
class Doubt:
    """A line of the list.

    Attributes:
        position: of the image in its set.
        belief: see above, between -1 and 1; the lower, the more is doubted.
        probability: the mean probability of its labels.
        label: the class most pixels of which have another one in the prediction; None where all agree.
        share: these pixels, as a share of the labelled ones.
        says: what the network mostly says there.
    """

    position: int
    belief: float
    probability: float
    label: int | None
    share: float
    says: int | None


def belief_of(position: int, probabilities: npt.NDArray[np.floating], labels: Pixels, mask: Pixels) -> Belief:
    """Compares one mask with a prediction.

    Args:
        position: of the image in its set.
        probabilities: (C, H, W) of all classes.
        labels: (H, W) ids of the prediction.
        mask: (H, W) label ids; ids from C on have no label.
    """
    classes = len(probabilities)
    valid = mask < classes
    ids = mask[valid].astype(np.int64)
    own = np.take_along_axis(probabilities[:, valid], ids[None], axis=0)[0].astype(np.float64)
    said = np.bincount(ids * classes + labels[valid], minlength=classes**2).reshape(classes, classes)
    probability: Floats = np.bincount(ids, weights=own, minlength=classes).astype(np.float64)
    return Belief(position, probability, said.sum(axis=1), said)


def rank(found: Sequence[Belief]) -> list[Doubt]:
    """The images that have labels, the most doubted first."""
    found = [one for one in found if one.pixels.sum()]
    if not found:
        return []
    pixels = np.sum([one.pixels for one in found], axis=0)
    usual = np.sum([one.probability for one in found], axis=0) / np.maximum(pixels, 1)
    return sorted((_doubt(one, usual) for one in found), key=lambda doubt: (doubt.belief, doubt.position))


def _doubt(one: Belief, usual: Floats) -> Doubt:
    total = one.pixels.sum()
    others = one.said * (1 - np.eye(len(usual), dtype=np.int64))
    label = int(others.sum(axis=1).argmax())
    differing = others[label].sum()
    return Doubt(
        one.position,
        float((one.probability - one.pixels * usual).sum() / total),
        float(one.probability.sum() / total),
        label if differing else None,
        float(differing / total),
        int(others[label].argmax()) if differing else None,
    )


def look(predictor: Predictor, images: ImageSet, done: Callable[[int], None]) -> list[Belief]:
    """Compares the mask of every image of a set with what a network says of the image.

    Args:
        predictor: the network.
        images: a set with labels.
        done: is told how many images are done.

    Raises:
        DataError: an image or a mask cannot be read, or they differ in size.
    """
    found = []
    for position in range(len(images)):
        maps = predictor.maps(images.image(position), name=images.names[position], confidence=False, probabilities=True)
        assert maps.probabilities is not None  # it was asked for
        found.append(belief_of(position, maps.probabilities, maps.labels, images.label(position)))
        done(1)
    return found


def lines(doubts: Sequence[Doubt], images: ImageSet, space: LabelSpace) -> list[tuple[str, ...]]:
    """The rows of a table below `HEADER`."""
    return [
        (
            images.names[one.position],
            f"{one.belief:+.3f}",
            f"{one.probability:.3f}",
            "" if one.label is None else space.classes[one.label],
            f"{100 * one.share:.1f}",
            "" if one.says is None else space.classes[one.says],
        )
        for one in doubts
    ]


def write_csv(rows: Sequence[tuple[str, ...]], path: Path) -> None:
    """Writes a table below `HEADER`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    write_text(path, text.getvalue())


def draw(doubts: Sequence[Doubt], images: ImageSet, predictor: Predictor, title: str, path: Path) -> Path:
    """Draws images beside their masks, what the network says, and its probability of the mask's labels.

    Args:
        doubts: of the images.
        images: the set.
        predictor: the network.
        title: above all.
        path: of the PNG.
    """
    columns: dict[str, list[npt.NDArray[np.generic]]]
    columns = {name: [] for name in ("image", "mask", "prediction", "probability of the mask")}
    for doubt in doubts:
        image, mask = (
            reduced(images.image(doubt.position), labels=False),
            reduced(images.label(doubt.position), labels=True),
        )
        maps = predictor.maps(image, confidence=False, probabilities=True)
        assert maps.probabilities is not None  # it was asked for
        valid = mask < len(maps.probabilities)
        own = np.take_along_axis(maps.probabilities, np.where(valid, mask, 0)[None].astype(np.int64), axis=0)[0]
        own = np.where(valid, own, np.nan).astype(np.float32)
        for column, picture in zip(columns.values(), (image, mask, maps.labels, own), strict=True):
            column.append(picture)
    names = [f"{images.names[one.position]}  ({one.belief:+.2f})" for one in doubts]
    return save_figure(panel_figure(columns, predictor.label_space, title, names), path)
