"""Sums and means over the ranks of a distributed run; the identity in a single process."""

import math

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks; 1 outside a distributed run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_across_ranks(value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, without graph."""
    value = value.detach()
    if world_size() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value


def mean_across_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over all ranks, without graph."""
    return sum_across_ranks(value) / world_size()


def finite_means(terms: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The means of scalars over the ranks, and which of them are no numbers: one collective and one wait for the device.

    Args:
        terms: scalars by name, of less precision than float64.

    Returns:
        The means in the terms' own types, and ``"name = value"`` of every term that is NaN or infinite on any rank.
    """
    # The mean is finite where every rank's value is: numbers of less than float64 do not overflow in it.
    means = mean_across_ranks(torch.stack([term.double() for term in terms.values()]))
    bad = [f"{name} = {v}" for name, v in zip(terms, means.tolist(), strict=True) if not math.isfinite(v)]
    return {name: mean.to(term.dtype) for (name, term), mean in zip(terms.items(), means, strict=True)}, bad


def average_gradients(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean of every gradient over all ranks, in one collective per dtype."""
    if world_size() == 1:
        return gradients
    averaged = dict(gradients)
    for dtype in {g.dtype for g in gradients.values()}:
        names = [name for name, g in gradients.items() if g.dtype == dtype]
        flat = mean_across_ranks(torch.cat([gradients[name].reshape(-1) for name in names]))
        parts = flat.split([gradients[name].numel() for name in names])
        averaged.update({name: part.view_as(gradients[name]) for name, part in zip(names, parts, strict=True)})
    return averaged


def gather_columns(values: Tensor) -> Tensor:
    """The columns of all ranks' (L, N) side by side, rank by rank, without graph; N may differ from rank to rank."""
    values = values.detach()
    if world_size() == 1:
        return values
    count = torch.tensor(values.shape[1], device=values.device)
    counts = [torch.zeros_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    sizes = [int(n) for n in counts]
    padded = torch.nn.functional.pad(values, (0, max(sizes) - values.shape[1])).contiguous()
    found = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(found, padded)
    return torch.cat([part[:, :size] for part, size in zip(found, sizes, strict=True)], dim=1)
