"""Sums and means over the ranks of a distributed run; the identity in a single process."""

import math
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from segzoo.floats import widest


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


def max_across_ranks(value: Tensor) -> Tensor:
    """The largest value of every entry over all ranks, without graph."""
    value = value.detach()
    if world_size() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value


def mean_across_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over all ranks, without graph."""
    return sum_across_ranks(value) / world_size()


def mean_terms(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The means of scalars over all ranks, by name, in one collective; nothing waits for the device.

    A mean is finite exactly where every rank's value is: those of less than float64 do not overflow in it.
    """
    if not terms:
        return {}
    means = mean_across_ranks(torch.stack([widest(term.detach()) for term in terms.values()]))
    return dict(zip(terms, means, strict=True))


def non_finite_terms(means: Mapping[str, Tensor]) -> dict[str, float]:
    """Those of some scalars of one device that are NaN or infinite, with their values.

    The host waits for the device once, however many they are. What is computed in several places of a step is therefore put
    together and looked at in one call.

    Args:
        means: from `mean_terms`, so that all ranks find the same.
    """
    if not means:
        return {}
    values = torch.stack([widest(mean.detach()) for mean in means.values()]).tolist()
    return {name: value for name, value in zip(means, values, strict=True) if not math.isfinite(value)}


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


def previous_in_batch(images: Tensor) -> Tensor:
    """For every image of this rank the one before it in the batch of all ranks, the last one for the first; without graph.

    Image i of rank r is number ``i * world + r`` of the batch, as the data modules deal them out.

    Args:
        images: (B, ...), as many on every rank.
    """
    images = images.detach()
    if world_size() == 1:
        return images.roll(1, 0)
    parts = [torch.empty_like(images) for _ in range(world_size())]
    dist.all_gather(parts, images.contiguous())
    whole = torch.stack(parts, dim=1).flatten(0, 1).roll(1, 0)
    return whole[dist.get_rank() :: world_size()]


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
