"""Random blocks of images without content, for masked image consistency (Hoyer et al., "MIC", CVPR 2023)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from segzoo.nonblocking import sent


@torch.no_grad()
def mask_blocks(images: Tensor, generators: Sequence[torch.Generator], block: int, ratio: float) -> Tensor:
    """Images some of whose square blocks are 0, so that what stands there has to be told from what is around it.

    Args:
        images: (B, 3, H, W).
        generators: one CPU generator per image.
        block: side of a block in pixels.
        ratio: probability that a block is masked.

    Returns:
        (B, 3, H, W).

    Raises:
        ValueError: not one generator per image.
    """
    height, width = images.shape[-2:]
    grid = -(-height // block), -(-width // block)
    draws = [torch.rand(grid, generator=generator) for _, generator in zip(images, generators, strict=True)]
    kept = (sent(torch.stack(draws), images.device) >= ratio).to(images.dtype)[:, None]
    return images * F.interpolate(kept, scale_factor=block, mode="nearest")[..., :height, :width]
