"""Which masks a trained network does not believe: labels of wrong places or of wrong classes stand at the top of the list.

A mask is believed as much as the network's mean probability of its labels, p_i. Some classes are harder than others, whatever
their labels: what counts is the difference to the mean P_c of each class over all images of the set,

    belief = mean_i (p_i - P_c(i)),      c(i): the label of pixel i.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segzoo.data.domains import ImageSet, Pixels
from segzoo.data.label_spaces import LabelSpace
from segzoo.dataprep.montage import LONGEST, reduced
from segzoo.errors import DataError
from segzoo.evaluation.panels import panel_figure
from segzoo.evaluation.plots import save_figure
from segzoo.files import write_text
from segzoo.inference import Predictor
from segzoo.inference.maps import Maps

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
BATCH = 8
COLUMNS = ("image", "mask", "prediction", "probability of the mask")
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


class Judge:
    """What a network says of the images of a set that have masks.

    Args:
        predictor: the network.
        images: the set.
        source: whether the images are the source's, which many methods normalise by the statistics of a batch: batches are
            spread over the set, as neighbours in a video look alike.
    """

    def __init__(self, predictor: Predictor, images: ImageSet, *, source: bool) -> None:
        self.predictor, self.images, self.source = predictor, images, source
        count = -(-len(images) // predictor.batch_size(BATCH))
        self._batches = [range(first, len(images), count) for first in range(count)]

    def look(self, done: Callable[[int], None]) -> list[Belief]:
        """Compares the mask of every image with what the network says of it.

        Args:
            done: is told how many images are done.

        Raises:
            DataError: an image or a mask cannot be read, or they differ in size.
        """
        found = []
        for batch in self._batches:
            for position, _, maps in self._judge(batch):
                assert maps.probabilities is not None  # it was asked for
                mask = self.images.label(position)
                if mask.shape != maps.labels.shape:
                    sizes = [f"{width}x{height}" for height, width in (mask.shape, maps.labels.shape)]
                    raise DataError(f"{self.images.names[position]}: a mask of {sizes[0]} for an image of {sizes[1]}")
                found.append(belief_of(position, maps.probabilities, maps.labels, mask))
            done(len(batch))
        return found

    def draw(self, doubts: Sequence[Doubt], title: str, path: Path) -> Path:
        """Draws images beside their masks, what the network says, and its probability of the mask's labels.

        Args:
            doubts: of the images.
            title: above all.
            path: of the PNG.
        """
        wanted = {doubt.position for doubt in doubts}
        rows = {
            position: self._row(image, self.images.label(position), maps)
            for batch in self._batches
            if wanted & set(batch)
            for position, image, maps in self._judge(batch)
            if position in wanted
        }
        pictures = zip(*(rows[doubt.position] for doubt in doubts), strict=True)
        columns = dict(zip(COLUMNS, map(list, pictures), strict=True))
        names = [f"{self.images.names[one.position]}  ({one.belief:+.2f})" for one in doubts]
        return save_figure(panel_figure(columns, self.predictor.label_space, title, names), path)

    def _judge(self, batch: Sequence[int]) -> Iterator[tuple[int, Pixels, Maps]]:
        pictures = [self.images.image(position) for position in batch]
        logits = self.predictor.logits(pictures, source=self.source)
        for position, image, one in zip(batch, pictures, logits, strict=True):
            name = self.images.names[position]
            yield position, image, self.predictor.maps(image, one, name=name, confidence=False, probabilities=True)

    def _row(self, image: Pixels, mask: Pixels, maps: Maps) -> tuple[npt.NDArray[Any], ...]:
        assert maps.probabilities is not None  # it was asked for
        valid = mask < len(maps.probabilities)
        own = np.take_along_axis(maps.probabilities, np.where(valid, mask, 0)[None], axis=0)[0]
        own = np.where(valid, own, np.nan).astype(np.float32)
        step = max(1, max(mask.shape) // LONGEST)
        return (
            reduced(image, labels=False),
            reduced(mask, labels=True),
            reduced(maps.labels, labels=True),
            own[::step, ::step],
        )


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
