"""Images of two sets that look alike: neighbours of one video, copies at another size or quality.

A perceptual hash finds candidates, as the libraries for it do: 64 signs of the low frequencies of a small grey picture
(Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010). Of walls and skies, which have hardly
any, hashes agree by chance, so that the small pictures have to agree, too.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segzoo.data.domains import Pixels

SIDE, FREQUENCIES = 32, 8
DIFFERENT_BITS = 8
"""Of 64, at most. Two pictures by chance have 32 in common, with a standard deviation of 4. Of CARLA's
frames it misses one of 167 neighbours, and calls nothing alike that is not, of painted and real cracks, faces and streets."""
GREY = 5.0
"""Largest mean difference of two small pictures, of 255; their mean brightness does not count."""
TRIED = 4
"""Candidates that are compared with an image, those of the nearest hashes."""
ROWS = 1024


@dataclass(frozen=True, eq=False)
class Look:
    """What an image looks like from afar.

    Attributes:
        signs: (64,) float32, 1 or -1.
        small: (32, 32) uint8 grey values.
        digest: the same for the same pixels alone.
    """

    signs: npt.NDArray[np.float32]
    small: Pixels
    digest: bytes


@dataclass(frozen=True)
class Twins:
    """Two images that look alike.

    Attributes:
        first: set and position of the one.
        second: set and position of the other.
        difference: mean difference of their grey values, of 255.
        same: whether all of their pixels are the same.
    """

    first: tuple[str, int]
    second: tuple[str, int]
    difference: float
    same: bool


def look_at(image: Pixels) -> Look:
    """The look of an image (H, W, 3) uint8."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:FREQUENCIES, :FREQUENCIES].ravel()
    signs = np.where(low > np.median(low), np.float32(1), np.float32(-1))
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return Look(signs, small.astype(np.uint8), digest.digest())


def near_duplicates(sets: Mapping[str, Sequence[tuple[int, Look]]]) -> list[Twins]:
    """Images that look alike and are in different sets; two sets of the source, on which nobody is scored, are not compared.

    Args:
        sets: position and look of the images, by the name of their set.

    Returns:
        For every image of the later one of two sets its nearest twin in the earlier one, where it has any.
    """
    names = [name for name, looks in sets.items() if looks]
    return [
        twins
        for later, second in enumerate(names)
        for first in names[:later]
        if not first.startswith("source") or not second.startswith("source")
        for twins in _between(first, sets[first], second, sets[second])
    ]


def _between(
    first: str, known: Sequence[tuple[int, Look]], second: str, others: Sequence[tuple[int, Look]]
) -> Iterator[Twins]:
    signs = np.stack([look.signs for _, look in known])
    small = np.stack([_centred(look.small) for _, look in known])
    by_digest = {look.digest: position for position, look in reversed(known)}
    least = FREQUENCIES**2 - 2 * DIFFERENT_BITS  # of the products' sum
    for start in range(0, len(others), ROWS):
        part = others[start : start + ROWS]
        products = np.stack([look.signs for _, look in part]) @ signs.T
        for row in np.flatnonzero(products.max(axis=1) >= least).tolist():
            nearest = np.argsort(-products[row], kind="stable")[:TRIED]
            nearest = nearest[products[row, nearest] >= least]
            position, look = part[row]
            if look.digest in by_digest:  # of still pictures, there are more near ones than are tried
                yield Twins((first, by_digest[look.digest]), (second, position), 0.0, same=True)
                continue
            differences = np.abs(small[nearest] - _centred(look.small)).mean(axis=(1, 2))
            best = int(differences.argmin())
            if differences[best] <= GREY:
                yield Twins((first, known[nearest[best]][0]), (second, position), float(differences[best]), same=False)


def _centred(small: Pixels) -> npt.NDArray[np.float32]:
    values = small.astype(np.float32)
    return values - values.mean()
