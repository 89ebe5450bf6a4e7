"""Weights of mean one over the pixels of all ranks, and the gradient back through that normalisation.

With the source loss (1/N) sum_i w_i l_i, mean one is the sum to one of Ren et al. (2018) and of Meta-Weight-Net, and with
exponentials for s it is a softmax over the pixels.
"""

from collections.abc import Callable

from torch import Tensor


def mean_one(
    weights: Tensor, valid: Tensor, count: Tensor, mean: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """w_i = s_i / S with S the mean of s over the valid pixels of all ranks.

    Args:
        weights: raw weights s, any shape.
        valid: which of them count, bool of the same shape.
        count: valid pixels per rank, averaged over the ranks.
        mean: mean of a scalar over the ranks.

    Returns:
        The normalised weights, detached, and the map from dL/dw to dL/ds = (dL/dw - mean(w dL/dw)) / S.

    Raises:
        ValueError: the two shapes differ.
    """
    if weights.shape != valid.shape:
        raise ValueError(
            f"weights of shape {tuple(weights.shape)} and a mask of shape {tuple(valid.shape)}; expected the same"
        )
    s = weights.detach()
    scale = (mean((s * valid).sum()) / count).clamp_min(1e-12)
    w = s / scale

    def pull_back(gradient: Tensor) -> Tensor:
        inner = mean((w * gradient * valid).sum()) / count
        return (gradient - inner) * valid / scale

    return w, pull_back
