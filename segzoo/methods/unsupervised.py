"""What methods that adapt to unlabelled target images share: the supervised half of their loss."""

import contextlib
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor

from segzoo.adaptation import class_balance as balance
from segzoo.bilevel import frozen_buffers
from segzoo.losses import pixel_cross_entropy
from segzoo.methods.base import SegmentationMethod, pixel_count, valid_pixels


class UnsupervisedAdaptation(SegmentationMethod):
    """Labelled source, unlabelled target: the data module does not even read the target's masks.

    Args:
        running_statistics: what batch norms keep for testing: target, the statistics of the passes with target pixels; or
            both, as published, in which those of the synthetic images are mixed.
        pixel_mean: valid: losses are means over labelled pixels; all, as the DAFormer line of work has it: void counts as 0.
        class_balance: s of class weights 1 + s (mean(log f) - log f_c) / std(log f) of cross-entropy and pseudo labels, which
            favour rare classes; 0: none. SePiCo on Dark Zurich: 0.05.
        test_class_balance: the same for the probabilities of images outside training; SePiCo on Dark Zurich: 0.16.
        class_frequencies: f, the share of pixels of every class by name.
        kwargs: see `SegmentationMethod`.
    """

    supervision = "none"

    def __init__(
        self,
        *,
        running_statistics: Literal["target", "both"] = "target",
        pixel_mean: Literal["valid", "all"] = "valid",
        class_balance: float = 0.0,
        test_class_balance: float = 0.0,
        class_frequencies: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.running_statistics, self.pixel_mean = running_statistics, pixel_mean
        self.class_weight: Tensor | None
        self.test_class_weight: Tensor | None
        for name, strength in (("class_weight", class_balance), ("test_class_weight", test_class_balance)):
            weight = balance(class_frequencies or {}, self.label_space.classes, strength) if strength else None
            self.register_buffer(name, weight if weight is None else weight.float(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W), RGB in [0, 1], to logits (B, C, H, W); of balanced probabilities outside training."""
        logits = super().forward(image)
        if self.training or self.test_class_weight is None:
            return logits
        return logits + self.test_class_weight.log().to(logits.dtype)[:, None, None]

    def source_pass(self) -> AbstractContextManager[None]:
        """For a pass of source images beside one of target images: whether running statistics follow it."""
        return frozen_buffers(self.segmenter) if self.running_statistics == "target" else contextlib.nullcontext()

    def supervised(self, logits: Tensor, label: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean cross-entropy of logits (B, C, H, W) with labels (B, H, W), by request with weights (B, H, W)."""
        losses = pixel_cross_entropy(logits, label, class_weight=self.class_weight)
        return (losses if weights is None else weights * losses).sum() / self.mean_over(label)

    def mean_over(self, label: Tensor) -> Tensor:
        """The number of pixels, per rank, that a loss on these labels is the mean of."""
        return pixel_count(
            valid_pixels(label) if self.pixel_mean == "valid" else torch.ones_like(label, dtype=torch.bool)
        )
