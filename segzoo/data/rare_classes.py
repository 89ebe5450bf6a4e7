"""Rare-class sampling: first a class, a rare one more often, then an image that holds it (Hoyer et al., CVPR 2022).

    P(c) = exp((1 - f_c) / T) / sum_c' exp((1 - f_c') / T)          f_c: pixel frequency of class c in the stream's images

The image is one of those with enough pixels of c, each as likely, and its crop is drawn again while c is hardly in it
(`segzoo.data.transforms.CropRule`).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from segzoo.data.class_counts import ClassCounts
from segzoo.data.sampling import EndlessBatches, Key
from segzoo.errors import DataError


def rare_class_probabilities(frequencies: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """P(c) of every class; 0 for classes that never occur.

    Args:
        frequencies: (C,) f_c, at least one of them above 0.
        temperature: T above 0, in units of the frequencies; published 0.01. The smaller, the more often the rarest.
    """
    # The largest exponent is subtracted: exp((1 - f_c) / T) itself is infinite below T of about 0.0014.
    rarest = frequencies[frequencies > 0].min()
    weights = np.exp((rarest - frequencies) / temperature, where=frequencies > 0, out=np.zeros_like(frequencies))
    probabilities: npt.NDArray[np.float64] = weights / weights.sum()
    return probabilities


class RareClassBatches(EndlessBatches):
    """Batches without end, each image drawn for a class; keys are (draw, position, class).

    Draw ``n`` is a function of (seed, n) alone and ``world`` ranks share the draws as in `EndlessBatches`, so neither
    resuming nor the number of ranks changes them. The draw's number stands in the key where the epoch does, which
    gives every draw of the same image an augmentation of its own.

    Args:
        counts: pixels per class of the images to draw from.
        temperature: T, see `rare_class_probabilities`.
        min_share: share of an image's pixels that a class must exceed for the image to be drawn for it; where no
            image has that much of a class, any image that has the class is.
        batch_size: images per batch and rank.
        seed: seed of the draws.
        rank: this process.
        world: number of processes.
        start: number of the first batch.
        cycle: after so many batches the first one comes again.

    Raises:
        DataError: the images hold no labelled pixel.
    """

    def __init__(
        self,
        counts: ClassCounts,
        temperature: float,
        min_share: float,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: Callable[[], int] = lambda: 0,
        cycle: int | None = None,
    ) -> None:
        super().__init__(len(counts.counts), batch_size, seed, rank, world, start, cycle)
        if not counts.counts.any():
            raise DataError(
                f"rare-class sampling found no labelled pixel in {self.length} images; check the class_map of the masks"
            )
        self.probabilities = rare_class_probabilities(counts.frequencies, temperature)
        enough = counts.counts > min_share * counts.sizes[:, None]
        enough = np.where(enough.any(axis=0), enough, counts.counts > 0)
        self.positions = [np.flatnonzero(column) for column in enough.T]

    def key(self, draw: int) -> Key:
        """The draw's number, the image's position, and the class that it was drawn for."""
        rng = np.random.default_rng([self.seed, draw])
        chosen = int(rng.choice(len(self.probabilities), p=self.probabilities))
        return draw, int(rng.choice(self.positions[chosen])), chosen
