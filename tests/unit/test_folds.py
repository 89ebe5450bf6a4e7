"""Folds of the test images against a naive implementation of the protocol."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segzoo.errors import DataError
from segzoo.evaluation import Scores
from segzoo.evaluation.folds import score_folds

CLASSES = ("a", "b", "c")
SUBSETS = {"foreground": (1, 2)}


def miou(matrix: np.ndarray) -> float:
    ious = []
    for c in range(3):
        union = matrix[c].sum() + matrix[:, c].sum() - matrix[c, c]
        if union:
            ious.append(matrix[c, c] / union)
    return float(np.mean(ious))


@given(st.integers(2, 4), st.integers(4, 11), st.integers(2, 4), st.integers(0, 9))
def test_each_fold_chooses_and_the_others_score(checkpoints: int, images: int, folds: int, seed: int) -> None:
    matrices = np.random.default_rng(seed).integers(1, 50, (checkpoints, images, 3, 3))
    found = score_folds(matrices, CLASSES, SUBSETS, folds)
    length = images // folds
    for k, fold in enumerate(found):
        inside = range(k * length, (k + 1) * length)
        best = max(range(checkpoints), key=lambda c: miou(sum(matrices[c, i] for i in inside)))
        outside = sum(matrices[best, i] for i in range(images) if i not in inside)
        assert fold.checkpoint == best
        assert np.array_equal(fold.scores.confusion, outside)
        assert fold.scores.miou == pytest.approx(miou(outside))
    assert len(found) == folds


def test_a_fold_does_not_see_the_images_that_it_is_scored_on() -> None:
    good, bad = np.eye(3, dtype=int) * 9, np.ones((3, 3), int)
    # The first checkpoint is right on the first image alone, the second on the three others.
    matrices = np.stack([[good, bad, bad, bad], [bad, good, good, good]])
    first, second = score_folds(matrices, CLASSES, SUBSETS, 4)[:2]
    assert (first.checkpoint, second.checkpoint) == (0, 1)
    assert first.scores.miou < 0.5 < second.scores.miou


def test_subsets_and_too_few_images() -> None:
    matrices = np.tile(np.diag([5, 3, 0]), (1, 4, 1, 1)) + np.eye(3, k=1, dtype=int)
    (fold, *_) = score_folds(matrices, CLASSES, SUBSETS, 2)
    assert fold.scores.subset("foreground") == Scores(matrices[0].sum(0), CLASSES, SUBSETS).subset("foreground")
    with pytest.raises(DataError, match="4 test images are too few for 5 folds"):
        score_folds(matrices, CLASSES, SUBSETS)
