"""Labels on the coarse grid of a feature map, and the pixels that carry one."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from segzoo.models.segmenter import Segmenter
from segzoo.nonblocking import bin_counts

CELL_MAJORITY = 0.75
"""Share of the pixels of a feature map's cell that its label needs, as published."""


def cell_labels(
    segmenter: Segmenter, labels: Tensor, size: tuple[int, ...], num_classes: int, ignore_index: int = 255
) -> Tensor:
    """Labels on the cells of an encoder's map, which is one of the padded image.

    Args:
        segmenter: whose encoder; it knows the padding.
        labels: (B, H, W) of the images.
        size: (h, w) of the map.
        num_classes: C.
        ignore_index: the label of cells without a clear majority.

    Returns:
        (B, h, w) int64.
    """
    height, width = segmenter.padded(labels.shape[-2:])
    padded = F.pad(labels, (0, width - labels.shape[-1], 0, height - labels.shape[-2]), value=ignore_index)
    return downscale_labels(padded, size, CELL_MAJORITY, num_classes, ignore_index)


def downscale_labels(
    labels: Tensor, size: tuple[int, ...], min_ratio: float, num_classes: int, ignore_index: int = 255
) -> Tensor:
    """The majority label of every cell of a coarser grid, where the majority is clear.

    Each pixel belongs to the cell that holds its centre. For integer ratios this is the published average pooling of the
    one-hot labels; otherwise cells differ in size by a row or a column.

    Args:
        labels: (B, H, W); whatever is not in 0..C-1 is void.
        size: (h, w) of the grid.
        min_ratio: a cell keeps its majority label if that holds at least this share of the cell's pixels, void ones included.
        num_classes: C.
        ignore_index: the label of the other cells.

    Returns:
        (B, h, w) int64.

    Raises:
        ValueError: the grid is finer than the labels.
    """
    (batch, height, width), (h, w) = labels.shape, size
    if h > height or w > width:
        raise ValueError(f"labels of {height}x{width} pixels cannot be reduced to the finer grid {h}x{w}")
    labels = labels.long()
    void = (labels == ignore_index) | (labels < 0) | (labels >= num_classes)
    rows, columns = (_cells(pixels, cells, labels.device) for pixels, cells in ((height, h), (width, w)))
    cells = torch.arange(batch, device=labels.device).view(-1, 1, 1) * h * w + rows.view(-1, 1) * w + columns
    bins = num_classes + 1
    flat = (cells * bins + labels.masked_fill(void, num_classes)).flatten()
    counts = bin_counts(flat, batch * h * w * bins).view(batch, h, w, bins)
    most, majority = counts.max(3)
    unclear = (majority == num_classes) | (most / counts.sum(3) < min_ratio)
    return majority.masked_fill(unclear, ignore_index)


class LabelledCells(NamedTuple):
    """The cells of a grid that carry a label, in the order of (b, h, w).

    Attributes:
        places: (P,) int64, their numbers in the flattened grid.
        labels: (P,).
    """

    places: Tensor
    labels: Tensor

    def of(self, features: Tensor) -> Tensor:
        """Their features (P, A) in maps (B, A, h, w) of that grid."""
        return features.movedim(1, -1).flatten(0, 2).index_select(0, self.places)


def labelled_cells(labels: Tensor, ignore_index: int = 255) -> LabelledCells:
    """The cells of a grid of labels (B, h, w) that are not ``ignore_index``. The host waits for their number."""
    places = (labels.flatten() != ignore_index).nonzero().squeeze(1)
    return LabelledCells(places, labels.flatten().index_select(0, places))


def _cells(pixels: int, cells: int, device: torch.device) -> Tensor:
    return (2 * torch.arange(pixels, device=device) + 1) * cells // (2 * pixels)
