"""The protocol of folds: test images choose a checkpoint for each other, where a data set has no images to validate on.

Images, in their order, are cut into folds of ``images // folds``. Of each fold the checkpoint with the best mIoU is scored on
all other images (Zhang et al., DatasetGAN, CVPR 2021: 5 folds of at most 20 checkpoints). What comes out is no score of the
last checkpoint, and may not stand in one table with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segzoo.errors import DataError
from segzoo.evaluation.scores import Scores


@dataclass(frozen=True)
class Fold:
    """Of one fold the checkpoint that it chose, by position, and that checkpoint's scores on all other images."""

    checkpoint: int
    scores: Scores


def score_folds(
    matrices: npt.NDArray[np.int64],
    classes: Sequence[str],
    subsets: Mapping[str, tuple[int, ...]],
    folds: int = 5,
) -> list[Fold]:
    """Chooses and scores.

    Args:
        matrices: (checkpoints, images, C, C) confusion matrices, rows are the truth.
        classes: names of the C classes.
        subsets: class ids of further means, by name.
        folds: how many, at least 2.

    Raises:
        DataError: fewer images than folds.
    """
    images = matrices.shape[1]
    length = images // folds
    if not length:
        raise DataError(f"{images} test images are too few for {folds} folds")
    total, found = matrices.sum(axis=1), []
    for k in range(folds):
        inside = matrices[:, k * length : (k + 1) * length].sum(axis=1)
        chosen = int(np.nanargmax([Scores(matrix, tuple(classes)).miou for matrix in inside]))
        found.append(Fold(chosen, Scores(total[chosen] - inside[chosen], tuple(classes), subsets)))
    return found
