"""Batch norm over the images of all ranks, with the forward-mode derivative that torch's SyncBatchNorm lacks."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from segzoo.bilevel import MissingDerivativeError
from segzoo.compat.tensors import AnyBatchNorm, differentiates_forward
from segzoo.distributed import sum_across_ranks, world_size


class SyncBatchNorm(AnyBatchNorm):
    """Batch norm whose batch is that of all ranks together: N ranks equal one process on the whole batch.

    On one process it is torch's batch norm. Of its derivatives the first backward and the forward mode exist; a derivative of
    the backward pass is an error (`MissingDerivativeError`), never a wrong number.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) to the same shape, normalised per channel over everything else and over the ranks."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        normal, mean, variance, count = _Normalise.apply(x, self.eps)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            self._track(mean, variance * (count / (count - 1)))
        if self.affine:
            normal = normal * _channels(self.weight, x) + _channels(self.bias, x)
        return normal.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


class _Normalise(torch.autograd.Function):
    """x -> (x - mean) / sqrt(variance + eps) with the moments of all ranks; also returns the moments and their count."""

    @staticmethod
    def forward(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        axes = [i for i in range(x.dim()) if i != 1]
        own = x.new_full((1,), x.numel() / x.shape[1])  # not copied from the host, which a CUDA graph cannot
        variance, mean = torch.var_mean(x, axes, correction=0)
        # Moments about each rank's own mean, put together: sums of squares would cancel.
        gathered = [torch.empty(2 * len(mean) + 1, dtype=x.dtype, device=x.device) for _ in range(world_size())]
        dist.all_gather(gathered, torch.cat([own, mean, variance]))
        counts, means, variances = torch.stack(gathered).split([1, len(mean), len(mean)], dim=1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        return (x - _channels(mean, x)) * _channels(variance + eps, x).rsqrt(), mean, variance, count

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, ...]) -> None:
        normal, _, variance, count = output
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(normal, (variance + inputs[1]).rsqrt(), count)
        ctx.save_for_forward(normal, (variance + inputs[1]).rsqrt(), count)
        ctx.dtype = inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        # Not `once_differentiable`: its error lies on a branch that `torch.autograd.grad` with `inputs` may never visit.
        if torch.is_grad_enabled() or differentiates_forward():
            raise MissingDerivativeError(
                "a batch norm over several processes has no second derivative; use `network.norm` group or frozen, or "
                "leave out `method.engine` double_backward"
            )
        normal, scale, count = ctx.saved_tensors
        return _project(grads[0], normal, scale, count).to(ctx.dtype), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None, None, None]:
        normal, scale, count = ctx.saved_tensors
        return _project(tangents[0].to(normal.dtype), normal, scale, count), None, None, None


def _project(t: Tensor, normal: Tensor, scale: Tensor, count: Tensor) -> Tensor:
    """The Jacobian of the normalisation times t. It is symmetric: the same map serves backward and forward mode."""
    axes = [i for i in range(t.dim()) if i != 1]
    sums = sum_across_ranks(torch.stack([t.sum(axes), (t * normal).sum(axes)])) / count
    return (t - _channels(sums[0], t) - normal * _channels(sums[1], t)) * _channels(scale, t)


def _channels(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.dim() - 2))
