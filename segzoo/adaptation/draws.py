"""Random numbers that CPU generators draw for each image, on the images' device."""

from collections.abc import Sequence

import torch
from torch import Tensor


def put_together(draws: Sequence[Tensor], device: torch.device) -> Tensor:
    """The draws of all images, (B, ...), for which the host does not wait, as it would for memory that is not pinned."""
    whole = torch.stack(list(draws))
    return whole.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else whole.to(device)
