"""What the annotator asks of a generator: images together with the feature maps they were made of."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn


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
    """

    resolution: int
    feature_channels: list[int]
    latent_dim: int

    @abstractmethod
    def synthesise(self, z: Tensor, generator: torch.Generator | None = None) -> Sample:
        """Latents (B, latent_dim) to images, with the settings for training others on them.

        Args:
            z: latent vectors.
            generator: where further draws come from; None is torch's global one.
        """

    def sample(self, n: int, generator: torch.Generator | None = None) -> Sample:
        """Draws ``n`` images, without a graph and in the precision of the weights, whatever autocast says.

        Args:
            n: how many.
            generator: where all draws come from; None is torch's global one. Its device decides where they are made, so
                one on the CPU gives the same images on every device.
        """
        weight = next(self.parameters())
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            return self.synthesise(normal((n, self.latent_dim), weight, generator), generator)


def normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """N(0, 1) draws with dtype and device of ``like``, made where ``generator`` lives."""
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)
