"""The label, the confidence and the probabilities of every pixel, of the logits of an image as a whole or in strips."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segzoo.data.domains import Pixels
from segzoo.inference.logits import (
    Confidence,
    class_probabilities,
    label_pixels,
    label_pixels_surely,
    refuse_unusable,
)

Probabilities = npt.NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class Maps:
    """What a network says of the pixels of one image, at its own size.

    Attributes:
        labels: (H, W) uint8 class ids.
        confidence: (H, W) float32, the probability of each pixel's label; None where nobody asked.
        probabilities: (C, H, W) float16, those of all classes; None where nobody asked.
    """

    labels: Pixels
    confidence: Confidence | None = None
    probabilities: Probabilities | None = None


def maps_of_logits(logits: Tensor, size: tuple[int, int], confidence: bool, probabilities: bool) -> Maps:
    """The maps of logits (C, h, w) of an image.

    Args:
        logits: of the network's input, or of the image.
        size: (H, W) of the image.
        confidence: whether the confidence is asked for.
        probabilities: whether the probabilities are.
    """
    labels, sure = label_pixels_surely(logits, size) if confidence else (label_pixels(logits, size), None)
    if not probabilities:
        return Maps(labels, sure)
    found = np.empty((len(logits), *size), np.float16)
    for number, one in enumerate(class_probabilities(logits, size)):
        found[number] = one.half().cpu().numpy()
    return Maps(labels, sure, found)


def maps_of_strips(
    strips: Iterator[tuple[int, Tensor]], size: tuple[int, int], name: str, confidence: bool, probabilities: bool
) -> Maps:
    """The maps of the logits (C, rows, W) of an image in strips, see `segzoo.evaluation.strips`.

    Args:
        strips: first row and logits of each.
        size: (H, W) of the image.
        name: of the image, for the error.
        confidence: whether the confidence is asked for.
        probabilities: whether the probabilities are.

    Raises:
        NonFinitePredictionError: logits that are not finite.
    """
    labels = np.empty(size, np.uint8)
    sure = np.empty(size, np.float32) if confidence else None
    found: Probabilities | None = None
    for top, logits in strips:
        refuse_unusable(logits[None], [name])
        rows = slice(top, top + logits.shape[1])
        best, winners = logits.max(0)
        labels[rows] = winners.byte().cpu().numpy()
        if confidence or probabilities:
            total = logits.logsumexp(0)
        if sure is not None:
            sure[rows] = (best - total).exp().clamp_max(1).cpu().numpy()
        if probabilities:
            found = np.empty((len(logits), *size), np.float16) if found is None else found
            found[:, rows] = (logits - total).exp().to(torch.float16).cpu().numpy()
    return Maps(labels, sure, found)
