"""Losses as pure functions of tensors."""

from segzoo.losses.cross_entropy import cross_entropy, pixel_cross_entropy

__all__ = ["cross_entropy", "pixel_cross_entropy"]
