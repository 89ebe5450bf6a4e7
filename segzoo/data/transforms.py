"""Albumentations pipelines. Their draws are seeded per sample by the data set, see `StreamDataset`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import albumentations as A
import cv2
import numpy as np

from segzoo.data.domains import Pixels
from segzoo.data.label_spaces import IGNORE_INDEX

REDRAWS = 10
"""How often a crop that `CropRule` refuses is drawn again; the last one is taken as it is."""

# OpenCV's plain nearest neighbour takes the pixel at a cell's corner, so that labels would lie up to half a pixel beside
# their image; this one takes the pixel at its centre, as images are resampled.
LABELS = cv2.INTER_NEAREST_EXACT

Crop = dict[str, Any]


@dataclass(frozen=True)
class CropRule:
    """Which random crop of a labelled image is taken. Each condition has ten draws more; the last is taken as it is.

    Attributes:
        max_class_share: every class must fill less than this share of the crop's labelled pixels; 1: no condition.
        rare_class: the class that the crop is for; None: no condition.
        min_share: the crop must hold more pixels of it than this share of the pixels of the whole image.
    """

    max_class_share: float = 1.0
    rare_class: int | None = None
    min_share: float = 0.0

    def choose(self, draw: Callable[[], Crop], label: Pixels) -> Crop:
        """The crop to take, of those that ``draw`` gives of the label (H, W)."""
        # As published, the conditions are nested: every crop that is tried for the class is one of mixed classes.
        mixed = draw if self.max_class_share == 1 else lambda: _first(draw, lambda crop: self._mixed(crop, label))
        return mixed() if self.rare_class is None else _first(mixed, lambda crop: self._holds(crop, label))

    def _mixed(self, crop: Crop, label: Pixels) -> bool:
        counts = np.bincount(_cut(crop, label).ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
        return bool(counts.max() < self.max_class_share * counts.sum())

    def _holds(self, crop: Crop, label: Pixels) -> bool:
        return bool(np.count_nonzero(_cut(crop, label) == self.rare_class) > self.min_share * label.size)


class _Ruled:
    """Has the crop chosen by the `CropRule` that a call gives as ``rule``."""

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> Crop:
        draw = super().get_params_dependent_on_data  # type: ignore[misc]
        rule: CropRule | None = data.get("rule")
        if rule is None:
            crop: Crop = draw(params, data)
            return crop
        return rule.choose(lambda: draw(params, data), data["mask"])


class RandomCrop(_Ruled, A.RandomCrop):  # type: ignore[misc]
    """A crop of fixed size."""


class RandomResizedCrop(_Ruled, A.RandomResizedCrop):  # type: ignore[misc]
    """A crop of a random share of the area, resized."""


def training_transform(
    size: tuple[int, int],
    crop_scale: tuple[float, float],
    flip: bool,
    color_jitter: float,
    crop_size: tuple[int, int] | None = None,
    blur: float = 0.0,
) -> A.Compose:
    """Crop of a random share of the image resized to ``size``, mirror, colour jitter and blur of the image alone.

    Args:
        size: (height, width) of the result.
        crop_scale: share of the image's area that the crop covers; (1, 1) resizes the whole image.
        flip: mirror with probability 1/2.
        color_jitter: strength of brightness, contrast and saturation changes; hue changes by a tenth of it.
        crop_size: (height, width) of a crop of the whole image resized to ``size``; instead of ``crop_scale``.
        blur: probability of a Gaussian blur with a standard deviation of U(0, 1) pixels.
    """
    steps: list[A.BasicTransform] = []
    if crop_size is not None:
        steps += [_resize(size), RandomCrop(*crop_size)]
    elif crop_scale == (1.0, 1.0):
        steps.append(_resize(size))
    else:
        aspect = size[1] / size[0]
        ratio = (0.9 * aspect, 1.1 * aspect)
        # Reduced as evaluation reduces: bilinear reduction by more than two aliases.
        steps.append(
            RandomResizedCrop(
                size, scale=crop_scale, ratio=ratio, mask_interpolation=LABELS, area_for_downscale="image"
            )
        )
    if flip:
        steps.append(A.HorizontalFlip(p=0.5))
    if color_jitter:
        spread = (1 - color_jitter, 1 + color_jitter)
        hue = (-0.1 * color_jitter, 0.1 * color_jitter)
        steps.append(A.ColorJitter(brightness=spread, contrast=spread, saturation=spread, hue=hue, p=0.8))
    if blur:
        steps.append(A.GaussianBlur(sigma_limit=(1e-6, 1.0), p=blur))  # the kernel divides by sigma
    return A.Compose(steps, additional_targets={"reference": "image"})


def evaluation_transform(size: tuple[int, int]) -> A.Compose:
    """The whole image resized to ``size`` (height, width)."""
    return A.Compose([_resize(size)])


def view_transform(size: tuple[int, int]) -> A.Compose:
    """The whole image resized to ``size`` (height, width), smoothly where that enlarges it: area averaging shows its pixels."""
    return A.Compose([A.Resize(*size, interpolation=cv2.INTER_LINEAR, area_for_downscale="image")])


def _resize(size: tuple[int, int]) -> A.Resize:
    # Area averaging: photographs are usually reduced, and bilinear reduction by more than two aliases.
    return A.Resize(*size, interpolation=cv2.INTER_AREA, mask_interpolation=LABELS)


def _first(draw: Callable[[], Crop], acceptable: Callable[[Crop], bool]) -> Crop:
    crop = draw()
    for _ in range(REDRAWS):
        if acceptable(crop):
            break
        crop = draw()
    return crop


def _cut(crop: Crop, label: Pixels) -> Pixels:
    left, top, right, bottom = crop["crop_coords"]
    return label[top:bottom, left:right]
