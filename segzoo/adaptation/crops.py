"""Class-balanced cropping (SePiCo): of a few random boxes, the one with the most classes in the evenest shares."""

from collections.abc import Sequence

import torch
from torch import Tensor

from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.errors import ConfigError
from segzoo.floats import widest
from segzoo.nonblocking import bin_counts, sent


def class_balanced_crop(
    labels: Tensor,
    size: tuple[int, int],
    generators: Sequence[torch.Generator],
    tries: int = 10,
    max_ratio: float = 0.75,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Draws ``tries`` boxes per image and keeps the best, on ties the first.

    A box scores sum_c log n_c over its classes c with n_c > 1 pixels, provided that it has two classes or more and that the
    largest holds less than ``max_ratio`` of its pixels; otherwise 0. Void counts neither as a class nor in the ratio
    (pseudo labels, which the paper crops by, have none).

    Args:
        labels: (B, H, W) int64, 0..``ignore_index``; pseudo labels or ground truth.
        size: (h, w) of the crop.
        generators: one CPU generator per image. Each gives the same number of draws whatever the labels are.
        tries: boxes per image.
        max_ratio: bound on the share of the largest class.
        ignore_index: label of void pixels.

    Returns:
        corners (B, 2) int64, (top, left) of each image's box.

    Raises:
        ConfigError: the crop is larger than the image.
        ValueError: not one generator per image.
    """
    room = [side - wanted for side, wanted in zip(labels.shape[1:], size, strict=True)]
    if min(room) < 0:
        raise ConfigError(f"a crop of {size[0]} x {size[1]} does not fit into images of {tuple(labels.shape[1:])}")
    (height, width), best = size, []
    for label, generator in zip(labels, generators, strict=True):
        corners = torch.stack([torch.randint(r + 1, (tries,), generator=generator) for r in room], 1)
        boxes = torch.stack([label[top : top + height, left : left + width] for top, left in corners.tolist()])
        scores = _scores(boxes, max_ratio, ignore_index)
        best.append(sent(corners, label.device).index_select(0, scores.argmax(0, keepdim=True)))
    return torch.cat(best)


def crop(x: Tensor, corners: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts one box out of each image.

    Args:
        x: (B, ..., H, W).
        corners: (B, 2) int64, (top, left), on the device of ``x``.
        size: (h, w) of the boxes.

    Returns:
        (B, ..., h, w).
    """
    # By rows and columns that the device knows: the host would have to wait for the corners of a slice.
    rows, columns = (corners[:, i, None] + torch.arange(size[i], device=x.device) for i in range(2))
    boxes = zip(x, rows, columns, strict=True)
    return torch.stack([image.index_select(-2, row).index_select(-1, column) for image, row, column in boxes])


def _scores(boxes: Tensor, max_ratio: float, ignore_index: int) -> Tensor:
    """Scores (N,) of the label boxes (N, h, w)."""
    # The classes of box i are counted in bins of its own, i * codes + class: one count for all boxes.
    codes = ignore_index + 1
    bins = boxes.flatten(1) + codes * torch.arange(len(boxes), device=boxes.device).unsqueeze(1)
    counts = widest(bin_counts(bins.flatten(), codes * len(boxes)).view(-1, codes))
    counts[:, ignore_index] = 0
    balanced = (counts.amax(1) < max_ratio * counts.sum(1)) & ((counts > 0).sum(1) > 1)
    # A class of one pixel adds log 1 = 0.
    return torch.where(balanced, counts.clamp_min(1).log().sum(1), 0)


def crop_box(whole: Sequence[int], size: tuple[int, int], share: float | None) -> tuple[int, int]:
    """Height and width of a crop of the shape of ``size``.

    Args:
        whole: (H, W) of the image.
        size: (height, width); the crop's own where no share is given.
        share: of the image's area that the crop covers; it never leaves the image.
    """
    scale = 1.0 if share is None else (share * whole[0] * whole[1] / (size[0] * size[1])) ** 0.5
    return min(round(scale * size[0]), whole[0]), min(round(scale * size[1]), whole[1])
