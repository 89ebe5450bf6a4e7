"""What methods that adapt to unlabelled target images share: the supervised half of their loss."""

import contextlib
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from segzoo.bilevel import frozen_buffers
from segzoo.methods.base import SegmentationMethod, pixel_count, valid_pixels


class UnsupervisedAdaptation(SegmentationMethod):
    """Labelled source, unlabelled target: the data module does not even read the target's masks.

    Args:
        running_statistics: what batch norms keep for testing: target, the statistics of the passes with target pixels; or
            both, as published, in which those of the synthetic images are mixed.
        pixel_mean: valid: losses are means over labelled pixels; all, as the DAFormer line of work has it: void counts as 0.
        kwargs: see `SegmentationMethod`.
    """

    supervision = "none"

    def __init__(
        self,
        *,
        running_statistics: Literal["target", "both"] = "target",
        pixel_mean: Literal["valid", "all"] = "valid",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.running_statistics, self.pixel_mean = running_statistics, pixel_mean

    @property
    def starts(self) -> dict[str, int]:
        """The first step of each term that begins late, by its option."""
        return {}

    def setup(self, stage: str) -> None:
        """Says so where a term begins after the last step: a start that suits long runs is easily left in a short one."""
        super().setup(stage)
        for option, start in self.starts.items():
            if stage == "fit" and 0 < self.trainer.max_steps <= start:
                rank_zero_warn(f"--method.{option} {start} is not reached in {self.trainer.max_steps} steps")

    def source_pass(self) -> AbstractContextManager[None]:
        """For a pass of source images beside one of target images: whether running statistics follow it."""
        return frozen_buffers(self.segmenter) if self.running_statistics == "target" else contextlib.nullcontext()

    def mean_over(self, label: Tensor) -> Tensor:
        """The number of pixels, per rank, that a loss on these labels is the mean of."""
        return pixel_count(
            valid_pixels(label) if self.pixel_mean == "valid" else torch.ones_like(label, dtype=torch.bool)
        )
