"""What the annotator asks of a generator: images together with the feature maps they were made of."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.nonblocking import sent

Draws = torch.Generator | Sequence[torch.Generator] | None
"""Where random numbers come from: one generator for a batch, one per image of it, or None for torch's global one.

With one per image an image is the same in whatever batch it is made."""


class Sample(NamedTuple):
    """Generated images.

    Attributes:
        image: (B, 3, H, W) RGB in about [-1, 1], not clamped.
        features: the maps (B, C_i, H_i, W_i) inside the generator, coarse to fine.
    """

    image: Tensor
    features: list[Tensor]


class Generator(nn.Module, ABC):
    """A generator of images.

    Attributes:
        resolution: height and width of the images.
        feature_channels: channels C_i of the feature maps, coarse to fine.
        latent_dim: length of a latent vector, which is drawn from N(0, I).
        settings: arguments of the class that build the same network again; plain types.
    """

    resolution: int
    feature_channels: list[int]
    latent_dim: int
    settings: dict[str, Any]

    @abstractmethod
    def synthesise(self, z: Tensor, generator: Draws = None) -> Sample:
        """Latents (B, latent_dim) to images, with the settings for training others on them.

        Args:
            z: latent vectors.
            generator: where further draws come from.
        """

    def sample(self, n: int, generator: Draws = None) -> Sample:
        """Draws ``n`` images, without a graph and in the precision of the weights, whatever autocast says.

        Args:
            n: how many.
            generator: where all draws come from. Its device decides where they are made, so one on the CPU gives the same
                images on every device.
        """
        weight = next(self.parameters())
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            return self.synthesise(normal((n, self.latent_dim), weight, generator), generator)


def normal(shape: tuple[int, ...], like: Tensor, generator: Draws) -> Tensor:
    """N(0, 1) draws with dtype and device of ``like``, made in float32 where ``generator`` lives: the same in every precision.

    Raises:
        ValueError: not one generator per entry of the first dimension.
    """
    if isinstance(generator, Sequence):
        if len(generator) != shape[0]:
            raise ValueError(f"{len(generator)} random generators for a batch of {shape[0]}")
        drawn = torch.cat([_standard_normal((1, *shape[1:]), one, one.device) for one in generator])
    else:
        drawn = _standard_normal(shape, generator, like.device if generator is None else generator.device)
    return sent(drawn, like.device).to(like.dtype)


def _standard_normal(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=generator, device=device, dtype=torch.float32)


def resize_square(maps: Tensor, size: Sequence[int], crop: bool = False) -> Tensor:
    """A generator's square maps (B, C, R, R) at the size (H, W) of others' images, interpolated linearly.

    Args:
        maps: images or logits.
        size: (H, W).
        crop: keep the aspect ratio and lose margins, instead of stretching.
    """
    side = maps.shape[-1]
    if crop:
        rows, columns = (round(side * length / max(size)) for length in size)
        top, left = (side - rows) // 2, (side - columns) // 2
        maps = maps[..., top : top + rows, left : left + columns]
    if maps.shape[-2:] == tuple(size):
        return maps
    return F.interpolate(
        maps, size=tuple(size), mode="bilinear", align_corners=False, antialias=size[0] < maps.shape[-2]
    )
