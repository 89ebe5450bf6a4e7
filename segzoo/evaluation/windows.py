"""Windows that slide over an image: where they lie, and how their logits become those of the image."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from segzoo.data.views import Views

Network = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W), RGB in [0, 1], to logits (B, C, H, W)."""
ROWS = 64
"""Rows of logits that are handed on at a time, at most, while further windows follow."""
FEW = 2
"""Windows that a CPU gets at once: more take more memory and no less time."""


def windows_at_once(wanted: int, device: torch.device) -> int:
    """How many windows a network on a device gets at once where so many would be allowed."""
    return min(wanted, FEW) if device.type == "cpu" else wanted


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Where the windows of one axis begin; the last one is moved back so that it ends with the image.

    Args:
        length: of the axis in pixels.
        window: side of a window, at most ``length``.
        overlap: share of a window that it has in common with the next; the last two may share more.
    """
    step = max(1, round(window * (1 - overlap)))
    count = -(-(length - window) // step) + 1
    return [min(number * step, length - window) for number in range(count)]


def window_weights(length: int, window: int, starts: list[int], blend: str) -> Tensor:
    """The weights (windows, window) of the pixels of each window of one axis; those of every pixel of the axis sum to 1.

    The weight of a pixel in a window is the product of those of its row and its column, and thus sums to 1, too.

    Args:
        length: of the axis in pixels.
        window: side of a window.
        starts: where they begin.
        blend: ``linear`` or ``mean``, see `segzoo.data.views.Views`.
    """
    place = torch.arange(window, dtype=torch.float64)
    ramp = torch.minimum(place, window - 1 - place) + 1 if blend == "linear" else torch.ones_like(place)
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + window] += ramp
    return torch.stack([ramp / total[start : start + window] for start in starts]).float()


def windowed(network: Network, image: Tensor, views: Views, at_once: int) -> Iterator[Tensor]:
    """The logits (C, rows, W) of an image (3, H, W) uint8, from the top down, rows as soon as they are done.

    No more than the rows of one row of windows are kept, however high the image is. Windows are cut to images that are smaller.

    Args:
        network: what computes logits.
        image: uint8 RGB.
        views: with a ``window``.
        at_once: how many windows the network gets in a batch, at most.
    """
    assert views.window is not None
    height, width = image.shape[-2:]
    rows, columns = min(views.window[0], height), min(views.window[1], width)
    tops, lefts = window_starts(height, rows, views.overlap), window_starts(width, columns, views.overlap)
    below = window_weights(height, rows, tops, views.blend).to(image.device)
    beside = window_weights(width, columns, lefts, views.blend).to(image.device)
    batches = -(-len(lefts) // at_once)
    size = -(-len(lefts) // batches)  # batches of about the same size
    sums: Tensor | None = None
    for number, top in enumerate(tops):
        for first in range(0, len(lefts), size):
            chosen = range(first, min(first + size, len(lefts)))
            crops = [image[:, top : top + rows, lefts[i] : lefts[i] + columns] for i in chosen]
            logits = network(unit_range(torch.stack(crops))).float()
            if sums is None:
                sums = logits.new_zeros(logits.shape[1], rows, width)
            for i, one in zip(chosen, logits, strict=True):
                weights = below[number][:, None] * beside[i]
                sums[:, :, lefts[i] : lefts[i] + columns] += one.mul_(weights)
        assert sums is not None  # there is a window
        if number + 1 == len(tops):
            yield sums
            return
        done = tops[number + 1] - top
        for first in range(0, done, ROWS):  # in parts, as they are kept until the last row of one is used
            yield sums[:, first : min(first + ROWS, done)].clone()  # a part of `sums` would keep all of it
        sums[:, : rows - done] = sums[:, done:].clone()  # what is moved may overlap where it comes from
        sums[:, rows - done :] = 0


def whole(network: Network, image: Tensor) -> Iterator[Tensor]:
    """The logits (C, H, W) of an image (3, H, W) uint8, at once."""
    yield network(unit_range(image[None]))[0].float()


def unit_range(images: Tensor) -> Tensor:
    """Images of uint8 as floats in [0, 1]."""
    return images.float() / 255
