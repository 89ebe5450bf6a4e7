"""Fourier domain adaptation (Yang & Soatto, "FDA", CVPR 2020): source images with the low frequencies of target images.

Low frequencies of the amplitude hold light, colour and haze, the phase holds what is where: labels stay right.
"""

import torch
from torch import Tensor


@torch.no_grad()
def low_frequency_swap(source: Tensor, target: Tensor, beta: float) -> Tensor:
    """Source images with the amplitudes of target images at low frequencies.

    Args:
        source: (B, 3, H, W) in [0, 1].
        target: (B', 3, H', W'), resized to the source's size if need be; source image i gets those of target image i mod B'.
        beta: half the side of the square of exchanged frequencies as a share of the image's shorter side; 0.01 to 0.09
            published.

    Returns:
        (B, 3, H, W) in [0, 1], the dtype of ``source``.
    """
    height, width = source.shape[-2:]
    style = target[torch.arange(len(source), device=target.device) % len(target)].float()
    if style.shape[-2:] != (height, width):
        style = torch.nn.functional.interpolate(style, (height, width), mode="bilinear", align_corners=False)
    content = torch.fft.fft2(source.float())
    amplitude, phase, other = content.abs(), content.angle(), torch.fft.fft2(style).abs()
    reach = int(beta * min(height, width))
    rows, columns = (torch.fft.fftfreq(n, d=1 / n, device=source.device).abs() <= reach for n in (height, width))
    low = rows[:, None] & columns[None, :]
    swapped = torch.fft.ifft2(torch.polar(torch.where(low, other, amplitude), phase)).real
    return swapped.clamp(0, 1).to(source.dtype)
