"""The strong augmentation of self-training: colours and sharpness; geometry stays, so that labels need no change."""

import math

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from segzoo.errors import ConfigError


def strong_augment(
    images: Tensor,
    generator: torch.Generator,
    jitter: float = 0.2,
    jitter_probability: float = 0.8,
    blur_probability: float = 0.5,
    blur_sigma: tuple[float, float] = (0.15, 1.15),
) -> Tensor:
    """Colour jitter and Gaussian blur, each with its probability and the same draws for all images.

    The number of draws does not depend on the images nor on the outcome: generators with the same seed treat source, target
    and mix of an iteration alike, as published, and all ranks too.

    Args:
        images: (B, 3, H, W) RGB in [0, 1], any floating dtype.
        generator: a CPU generator, one per iteration.
        jitter: brightness, contrast and saturation are scaled by factors from [1 - jitter, 1 + jitter] and the hue turned by
            up to ``jitter`` of the circle, in random order; torchvision's definitions (the published code used kornia's).
        jitter_probability: that the colours change.
        blur_probability: that the images are blurred.
        blur_sigma: range of the blur's standard deviation in pixels. The kernel spans 10 % of the side.

    Returns:
        (B, 3, H, W) in [0, 1], the dtype of ``images``.

    Raises:
        ConfigError: a jitter outside [0, 0.5].
    """
    if not 0 <= jitter <= 0.5:
        raise ConfigError(f"the colour jitter is {jitter}, expected 0 to 0.5: half a turn is the furthest a hue can go")
    jitters, blurs, sharpness, *turns = torch.rand(7, generator=generator, dtype=torch.float64).tolist()
    order = torch.randperm(4, generator=generator).tolist()
    if jitters < jitter_probability:
        brightness, contrast, saturation, hue = (jitter * (2 * turn - 1) for turn in turns)
        changes = [
            lambda x: functional.adjust_brightness(x, 1 + brightness),
            lambda x: functional.adjust_contrast(x, 1 + contrast),
            lambda x: functional.adjust_saturation(x, 1 + saturation),
            lambda x: functional.adjust_hue(x, hue),
        ]
        for index in order:
            images = changes[index](images)
    if blurs < blur_probability:
        low, high = blur_sigma
        images = _blur(images, low + (high - low) * sharpness)
    return images


def _blur(images: Tensor, sigma: float) -> Tensor:
    # Rows, then columns, and nothing beyond 8 sigma, where the weights are below 1e-13: the square kernel of 10 % of a
    # 640-pixel side would cost a hundred times as much for the same result.
    height, width = (2 * min((math.ceil(side / 10) - 1) // 2, math.ceil(8 * sigma)) + 1 for side in images.shape[-2:])
    images = functional.gaussian_blur(images, [width, 1], [sigma])
    # The weights sum to 1 only up to rounding.
    return functional.gaussian_blur(images, [1, height], [sigma]).clamp(0, 1)
