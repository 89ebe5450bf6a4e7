"""What a generator is trained against: how real is this image?"""

from itertools import pairwise

import torch
from torch import Tensor, nn


class ImageCritic(nn.Module):
    """Strided 4x4 convolutions down to 4x4 cells, and a linear layer that knows where each cell is. No norm.

    Args:
        resolution: height and width of the images, a power of two, 8 or more.
        width: channels behind the first convolution; they double with every further one,
        max_width: but to no more than this.
    """

    def __init__(self, resolution: int, width: int = 32, max_width: int = 256) -> None:
        super().__init__()
        depth = resolution.bit_length() - 3
        channels = [3, *(min(width * 2**i, max_width) for i in range(depth))]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(16 * channels[-1], 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, R, R) RGB in about [-1, 1] to logits (B,) of "real", in float32 at least."""
        logits: Tensor = self.head(self.trunk(image).flatten(1))[:, 0]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
