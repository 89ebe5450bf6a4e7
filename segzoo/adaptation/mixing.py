"""ClassMix between domains (Olsson et al. 2021; Tranheden et al. 2021, DACS): half the classes of a source image are pasted
onto a target image."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.distributed import sum_across_ranks
from segzoo.nonblocking import sent

CODES = 256
"""Labels are 0..255, as masks on disk are."""


class View(NamedTuple):
    """Target images as a step uses them.

    Attributes:
        image: (B, 3, H, W), not augmented.
        labels: the teacher's (B, H, W).
        confidence: the probability that it gives them, (B, H, W).
        weights: of their loss, (B, H, W).
        reference: (B, 3, H, W), other images of the same places, if there are any.
        names: of the images, for captions; empty where nobody named them.
    """

    image: Tensor
    labels: Tensor
    confidence: Tensor
    weights: Tensor
    reference: Tensor | None = None
    names: Sequence[str] = ()


class Mixture(NamedTuple):
    """Target images with pasted classes of the source.

    Attributes:
        image: x_m, (B, 3, H, W), not augmented.
        label: y_m, (B, H, W).
        weights: q_m, (B, H, W).
        mask: M, (B, H, W), where they show the source.
    """

    image: Tensor
    label: Tensor
    weights: Tensor
    mask: Tensor


def class_mix(
    labels: Tensor,
    generators: Sequence[torch.Generator],
    scope: Literal["image", "batch"] = "image",
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Chooses ceil(n / 2) of the n classes present, for each image by itself, and marks their pixels.

    Args:
        labels: (B, H, W) int64 of the source, 0..255.
        generators: one CPU generator per image. Each gives the same number of draws whatever the labels are.
        scope: ``image``: the classes of that image; void is never chosen. ``batch``, as published: the values found anywhere in
            the batch of all ranks, void included; chosen ones that the image lacks paste nothing.
        ignore_index: label of void pixels.

    Returns:
        (B, H, W) bool, True where the source is to be pasted.

    Raises:
        ValueError: not one generator per image.
    """
    # One score per possible label and the best of those present: a uniform choice without a loop over data-dependent sizes.
    draws = [torch.rand(CODES, generator=generator) for _, generator in zip(labels, generators, strict=True)]
    scores = sent(torch.stack(draws), labels.device)
    flat = labels.flatten(1)
    present = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, flat, True)
    if scope == "batch":
        present = (sum_across_ranks(present.sum(0)) > 0).expand_as(present)
    else:
        present[:, ignore_index] = False
    order = scores.masked_fill(~present, -1).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    chosen = rank < (present.sum(1, keepdim=True) + 1) // 2
    return chosen.gather(1, flat).view_as(labels)


def cut_mix(
    size: Sequence[int], generators: Sequence[torch.Generator], share: tuple[float, float] = (0.1, 0.5)
) -> Tensor:
    """A random box per image (Yun et al., "CutMix", ICCV 2019), to be filled with what another image shows there.

    Args:
        size: (H, W) of the images.
        generators: one CPU generator per image.
        share: the smallest and largest share of the area that a box covers; its sides have a ratio between 1/2 and 2.

    Returns:
        (B, H, W) bool on the CPU, True in the boxes.
    """
    height, width = size
    masks = torch.zeros(len(generators), height, width, dtype=torch.bool)
    for mask, generator in zip(masks, generators, strict=True):
        area, ratio, top, left = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        area = share[0] + (share[1] - share[0]) * area
        stretch = 2 ** (ratio - 0.5)  # the square root of a ratio between 1/2 and 2
        h = max(1, min(height, round(height * area**0.5 * stretch)))
        w = max(1, min(width, round(width * area**0.5 / stretch)))
        y, x = round(top * (height - h)), round(left * (width - w))
        mask[y : y + h, x : x + w] = True
    return masks


def paste(mask: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """The source where the mask is True, the target elsewhere.

    Args:
        mask: (B, H, W) bool.
        source: labels or weights (B, H, W), or images (B, C, H, W).
        target: the same shape as ``source``.
    """
    return torch.where(mask if source.dim() == mask.dim() else mask.unsqueeze(1), source, target)
