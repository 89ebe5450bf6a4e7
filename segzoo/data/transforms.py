"""Albumentations pipelines. Their draws are seeded per sample by the data set, see `StreamDataset`."""

import albumentations as A
import cv2


def training_transform(
    size: tuple[int, int], crop_scale: tuple[float, float], flip: bool, color_jitter: float
) -> A.Compose:
    """Crop of a random share of the image resized to ``size``, mirror, and colour jitter of the image alone.

    Args:
        size: (height, width) of the result.
        crop_scale: share of the image's area that the crop covers; (1, 1) resizes the whole image.
        flip: mirror with probability 1/2.
        color_jitter: strength of brightness, contrast and saturation changes; hue changes by a tenth of it.
    """
    steps: list[A.BasicTransform] = []
    if crop_scale == (1.0, 1.0):
        steps.append(_resize(size))
    else:
        aspect = size[1] / size[0]
        steps.append(A.RandomResizedCrop(size, scale=crop_scale, ratio=(0.9 * aspect, 1.1 * aspect)))
    if flip:
        steps.append(A.HorizontalFlip(p=0.5))
    if color_jitter:
        spread = (1 - color_jitter, 1 + color_jitter)
        hue = (-0.1 * color_jitter, 0.1 * color_jitter)
        steps.append(A.ColorJitter(brightness=spread, contrast=spread, saturation=spread, hue=hue, p=0.8))
    return A.Compose(steps)


def evaluation_transform(size: tuple[int, int]) -> A.Compose:
    """The whole image resized to ``size`` (height, width)."""
    return A.Compose([_resize(size)])


def _resize(size: tuple[int, int]) -> A.Resize:
    # Area averaging: photographs are usually reduced, and bilinear reduction by more than two aliases.
    return A.Resize(*size, interpolation=cv2.INTER_AREA)
