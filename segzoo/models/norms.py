"""Normalisation layers that do not couple the images of a batch or the ranks of a run."""

from typing import Literal, Self

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Norm = Literal["batch", "frozen", "group"]


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that always uses, and never changes, its running statistics; the affine part is trained.

    For small batches on a pretrained encoder, and wherever the result must not depend on how a batch is split.
    """

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, whatever ``mode`` is."""
        return super().train(False)


def replace_norms(module: nn.Module, norm: Norm) -> None:
    """Replaces every batch norm below ``module``, in place; ``batch`` leaves it as it is."""
    if norm == "batch":
        return
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, _frozen(child) if norm == "frozen" else _group(child))
        else:
            replace_norms(child, norm)


def _frozen(old: _BatchNorm) -> nn.Module:
    # timm's fused batch norm + activation classes are subclasses with a forward of their own: keep it, freeze the rest.
    frozen_class = type(f"Frozen{type(old).__name__}", (type(old),), {"train": FrozenBatchNorm2d.train})
    old.__class__ = FrozenBatchNorm2d if type(old) is nn.BatchNorm2d else frozen_class
    return old.eval()


def _group(old: _BatchNorm) -> nn.Module:
    channels = old.num_features
    groups = next(g for g in (32, 16, 8, 4, 2, 1) if (channels % g == 0 and channels // g >= 2) or g == 1)
    new = nn.GroupNorm(groups, channels, eps=old.eps, affine=old.affine)
    if old.affine:
        with torch.no_grad():
            new.weight.copy_(old.weight)
            new.bias.copy_(old.bias)
    # timm's BatchNormAct2d carries its activation; a plain group norm would silently drop it.
    tail = [layer for layer in (getattr(old, "drop", None), getattr(old, "act", None)) if layer is not None]
    return nn.Sequential(new, *tail) if tail else new
