"""Labels on the coarse grid of a feature map, and the pixels that carry one."""

import torch
from torch import Tensor
from torch.nn import functional as F

from segzoo.models.segmenter import Segmenter

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
    counts = torch.bincount(flat, minlength=batch * h * w * bins).view(batch, h, w, bins)
    most, majority = counts.max(3)
    unclear = (majority == num_classes) | (most / counts.sum(3) < min_ratio)
    return majority.masked_fill(unclear, ignore_index)


def labelled_pixels(features: Tensor, labels: Tensor, ignore_index: int = 255) -> tuple[Tensor, Tensor]:
    """The pixels that carry a label, in the order of (b, h, w).

    Args:
        features: (B, A, h, w).
        labels: (B, h, w).
        ignore_index: the label of pixels to drop.

    Returns:
        Their features (P, A) and their labels (P,).
    """
    kept = labels != ignore_index
    return features.permute(0, 2, 3, 1)[kept], labels[kept]


def _cells(pixels: int, cells: int, device: torch.device) -> Tensor:
    return (2 * torch.arange(pixels, device=device) + 1) * cells // (2 * pixels)
