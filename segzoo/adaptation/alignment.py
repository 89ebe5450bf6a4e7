"""Distribution alignment (Berthelot et al., "ReMixMatch", ICLR 2020): pseudo labels whose classes have the shares they should.

    p'_c ~ p_c (s_c / m_c)^a          m: running mean of the teacher's probabilities on unlabelled images
    s_c = clamp(m_c, prior_c, 2 prior_c)

A teacher that is never quite sure of a thin class labels ever fewer of its pixels, the network unlearns it, and the teacher
follows; one that learned by a loss in favour of rare classes labels far too many. Brought near the shares of the true labels
its probabilities do neither. ReMixMatch has s = prior, for images of one domain; photographs may well hold more of a class than
rendered images or a few labelled photographs, so that up to twice the prior is left as it is.
"""

import torch
from torch import Tensor, nn

from segzoo.distributed import mean_across_ranks

MOMENTUM = 0.99
TOLERANCE = 2.0
"""How many times the prior a mean share may be before it is brought down to that."""
LIMIT = 10.0
"""The largest factor, and the inverse of the smallest."""


class DistributionAlignment(nn.Module):
    """Scales probabilities until their means are at a prior, or above it by `TOLERANCE` at the most.

    The running mean is a buffer: a resumed run continues with it.

    Args:
        num_classes: C.
        strength: a, from 0 (nothing changes) to 1 (the means are brought there, as far as `LIMIT` allows).

    Attributes:
        prior: (C,) shares of the true labels; a class without any is left as it is. Not part of the state.
        mean: (C,) m, zeros before the first images.
    """

    prior: Tensor
    mean: Tensor

    def __init__(self, num_classes: int, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.register_buffer("prior", torch.zeros(num_classes), persistent=False)
        self.register_buffer("mean", torch.zeros(num_classes))

    @torch.no_grad()
    def forward(self, probs: Tensor) -> Tensor:
        """Probabilities (B, C, H, W) to aligned ones that sum to 1; every rank must call it.

        The mean takes the batch of all ranks in first.
        """
        batch = mean_across_ranks(probs.mean(dim=(0, 2, 3))).to(self.mean.dtype)
        self.mean.copy_(torch.where(self.mean.sum() > 0, self.mean.lerp(batch, 1 - MOMENTUM), batch))
        known = (self.prior > 0) & (self.mean > 0)
        wanted = self.mean.clamp(self.prior, self.prior * TOLERANCE)
        ratio = torch.where(known, wanted / self.mean.clamp_min(torch.finfo(self.mean.dtype).tiny), 1.0)
        scaled = probs * ratio.clamp(1 / LIMIT, LIMIT).pow(self.strength).to(probs.dtype)[:, None, None]
        return scaled / scaled.sum(dim=1, keepdim=True)
