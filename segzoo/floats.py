"""The precision in which pixels are counted."""

import torch
from torch import Tensor


def wide_dtype(device: torch.device) -> torch.dtype:
    """float64; float32 on Apple GPUs, which have nothing wider. A count up to 2^24 is exact in it, a larger one to 6e-8."""
    return torch.float32 if device.type == "mps" else torch.float64


def widest(x: Tensor) -> Tensor:
    """A tensor in the `wide_dtype` of its device."""
    return x.to(wide_dtype(x.device))
