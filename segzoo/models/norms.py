"""Normalisation layers other than a batch norm per process."""

from typing import Literal

import torch
from torch import nn

from segzoo.compat.networks import norm_tail
from segzoo.compat.tensors import BatchNorm
from segzoo.models.sync_norm import SyncBatchNorm

Norm = Literal["batch", "sync", "frozen", "group"]


def replace_norms(module: nn.Module, norm: Norm) -> None:
    """Replaces every batch norm below ``module``, in place.

    Args:
        module: the network.
        norm: ``batch`` leaves it as it is. ``frozen`` always uses, and never changes, the running statistics, while the
            affine part is trained: for small batches on a pretrained encoder. ``group`` is group norm. ``sync`` is batch norm
            over the images of all ranks.
    """
    if norm == "batch":
        return
    for name, child in module.named_children():
        if isinstance(child, BatchNorm):
            setattr(module, name, {"frozen": _frozen, "group": _group, "sync": _sync}[norm](child))
        else:
            replace_norms(child, norm)


def _frozen(old: BatchNorm) -> nn.Module:
    # A subclass of whatever it is, so that the fused batch norm + activation layers of timm keep their own forward.
    old.__class__ = type(f"Frozen{type(old).__name__}", (type(old),), {"train": _stay_in_evaluation})
    return old.train()


def _stay_in_evaluation(self: nn.Module, mode: bool = True) -> nn.Module:
    return nn.Module.train(self, False)


def _group(old: BatchNorm) -> nn.Module:
    channels = old.num_features
    groups = next(g for g in (32, 16, 8, 4, 2, 1) if (channels % g == 0 and channels // g >= 2) or g == 1)
    new = nn.GroupNorm(groups, channels, eps=old.eps, affine=old.affine)
    if old.affine:
        with torch.no_grad():
            new.weight.copy_(old.weight)
            new.bias.copy_(old.bias)
    return _with_tail(new, old)


def _sync(old: BatchNorm) -> nn.Module:
    new = SyncBatchNorm(old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats)
    new.load_state_dict({name: value for name, value in old.state_dict().items() if name in new.state_dict()})
    return _with_tail(new, old)


def _with_tail(new: nn.Module, old: nn.Module) -> nn.Module:
    # timm's BatchNormAct2d carries its activation; a plain norm would silently drop it.
    tail = norm_tail(old)
    return nn.Sequential(new, *tail) if tail else new
