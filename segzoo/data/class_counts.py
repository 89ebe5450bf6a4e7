"""How many pixels of every class the images of a set hold; counted once per set of label files."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from segzoo.data.cache import cache_dir, read_arrays, write_arrays
from segzoo.data.domains import ImageSet

THREADS = 8  # decoding a PNG releases the interpreter's lock


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """Pixels per image and class.

    Attributes:
        counts: (N, C) int64 pixels of every class in every image, at the labels' native size.
        sizes: (N,) int64 pixels of every image, void included.
    """

    counts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    @property
    def frequencies(self) -> npt.NDArray[np.float64]:
        """f_c: (C,) share of every class in the labelled pixels of all images; zeros when there are none."""
        totals = self.counts.sum(axis=0)
        shares: npt.NDArray[np.float64] = totals / max(int(totals.sum()), 1)
        return shares


def class_counts(images: ImageSet, indices: Sequence[int], num_classes: int, *, progress: bool = False) -> ClassCounts:
    """Counts the label ids of some images, or reads what an earlier run counted in the same label files.

    No other label than those of ``indices`` is read, and no image.

    Args:
        images: a set with labels.
        indices: which of its images; N of them.
        num_classes: C; ids from C on are void.
        progress: show a progress bar while counting.

    Raises:
        DataError: a label cannot be read.
    """
    path, fingerprint = None, images.fingerprint()
    if fingerprint is not None:
        key = hashlib.sha256(f"{fingerprint} {num_classes} {list(indices)}".encode()).hexdigest()
        path = cache_dir() / "class-counts" / f"{key[:32]}.npz"
        found = read_arrays(path, "counts", "sizes")
        if found is not None and found[0].shape == (len(indices), num_classes) and found[1].shape == (len(indices),):
            return ClassCounts(*found)
    # One column for void, so that a row sums to the image's size.
    counts = np.zeros((len(indices), num_classes + 1), np.int64)
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        rows = pool.map(lambda index: _count(images, index, num_classes), indices)
        bar = tqdm(
            rows,
            desc="counting classes",
            total=len(indices),
            unit="image",
            disable=None if progress else True,
            leave=False,
        )
        for position, row in enumerate(bar):
            counts[position] = row
    counted = ClassCounts(counts[:, :-1].copy(), counts.sum(axis=1))
    if path is not None:
        write_arrays(path, "class counts", counts=counted.counts, sizes=counted.sizes)
    return counted


def _count(images: ImageSet, index: int, num_classes: int) -> npt.NDArray[np.int64]:
    per_id = np.bincount(images.label(index).ravel(), minlength=256)
    return np.append(per_id[:num_classes], per_id[num_classes:].sum())
