"""Target only: train on the labelled real images alone. What a transfer must beat to be worth its synthetic images."""

from torch import Tensor

from segzoo.data.streams import Batch, Stream
from segzoo.losses import cross_entropy
from segzoo.methods.base import SegmentationMethod, pixel_count, valid_pixels


class TargetOnly(SegmentationMethod):
    """Cross-entropy on the labelled target images; the source is never seen.

    Args:
        kwargs: see `SegmentationMethod`.
    """

    slug = "target-only"
    supervision = "few"

    @property
    def streams(self) -> dict[str, Stream]:
        """Labelled target images alone."""
        return {"target": Stream("target")}

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Mean cross-entropy over the valid target pixels."""
        target = batch["target"]
        count = pixel_count(valid_pixels(target["label"]))
        return self.total({"target": cross_entropy(self(target["image"]), target["label"], count)})
