"""The logits of an image of any size, in strips of rows from the top down, so that a large photograph fits into memory."""

from collections.abc import Iterator, Sequence
from math import log

import torch
from torch import Tensor

from segzoo.data.views import Views
from segzoo.evaluation.confusion import resize_logits
from segzoo.evaluation.windows import Network, whole, windowed

STRIP = 2**22
"""Logits (of all classes and pixels) in a strip, about: the mean of several views holds some strips at once."""


def logit_strips(
    network: Network, inputs: Sequence[Tensor], views: Views, size: tuple[int, int], at_once: int
) -> Iterator[tuple[int, Tensor]]:
    """The logits of an image at its own size, in strips.

    Those of overlapping windows are averaged as logits, with weights that sum to 1; those of mirror images and scales as
    probabilities, whose logarithms are the logits then.

    Args:
        network: what computes logits.
        inputs: the image (3, h, w) uint8 at the size of every scale, see `Views.inputs`.
        views: how the network gets them.
        size: (H, W) of the image.
        at_once: how many windows the network gets in a batch, at most.

    Yields:
        the number of a strip's first row, and its logits (C, rows, W) in float32.
    """
    sources = [
        _Rows(network, one, views, mirrored, at_once)
        for one in inputs
        for mirrored in ((False, True) if views.flips else (False,))
    ]
    height, width = size
    step = max(1, STRIP // (sources[0].channels * width))
    for top in range(0, height, step):
        bottom = min(top + step, height)
        found = [source.resized(top, bottom, size) for source in sources]
        yield top, found[0] if len(found) == 1 else _mean_probability(found)


def _mean_probability(logits: list[Tensor]) -> Tensor:
    """The logarithm (C, h, W) of the mean of what several logits say with softmax; it never is that of 0."""
    total = logits[0].log_softmax(0)
    for one in logits[1:]:
        total = torch.logaddexp(total, one.log_softmax(0))
    return total - log(len(logits))


class _Rows:
    """The rows of logits of one view. They are computed when they are asked for, from the top down, and forgotten above."""

    def __init__(self, network: Network, image: Tensor, views: Views, mirrored: bool, at_once: int) -> None:
        self.height, self.width = image.shape[-2:]
        self.mirrored = mirrored
        image = image.flip(-1) if mirrored else image
        self.coming = whole(network, image) if views.window is None else windowed(network, image, views, at_once)
        self.first = 0  # the number of the first row in `held`
        self.held: list[Tensor] = []

    @property
    def channels(self) -> int:
        """The number of classes."""
        return len(self._rows(0, 1))

    def resized(self, top: int, bottom: int, size: tuple[int, int]) -> Tensor:
        """The logits (C, bottom - top, W) of rows of the image, resized as `resize_logits` resizes all of them.

        Args:
            top: first row in the image of ``size``.
            bottom: the row behind the last one.
            size: (H, W) of the image.
        """
        height, width = size
        if height == self.height:
            found = self._rows(top, bottom)
        else:
            place = (torch.arange(top, bottom, dtype=torch.float64) + 0.5) * (self.height / height) - 0.5
            place = place.clamp(0, self.height - 1)
            above = place.floor().long()
            below = (above + 1).clamp_max(self.height - 1)
            first = int(above[0])
            rows = self._rows(first, int(below[-1]) + 1)
            share = (place - above).to(rows.device, torch.float32)[:, None]
            above, below = (above - first).to(rows.device), (below - first).to(rows.device)
            found = torch.lerp(rows[:, above], rows[:, below], share)
        return resize_logits(found[None], (bottom - top, width))[0]

    def _rows(self, first: int, last: int) -> Tensor:
        """The logits (C, last - first, w) of rows of the view, of which those above are not asked for any more."""
        while self.first + sum(strip.shape[1] for strip in self.held) < last:
            strip = next(self.coming)
            self.held.append(strip.flip(-1) if self.mirrored else strip)
        while self.first + self.held[0].shape[1] <= first:
            self.first += self.held.pop(0).shape[1]
        begin = first - self.first
        parts = []
        for strip in self.held:
            parts.append(strip[:, max(0, begin) : max(0, begin + last - first)])
            begin -= strip.shape[1]
        parts = [part for part in parts if part.shape[1]]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
