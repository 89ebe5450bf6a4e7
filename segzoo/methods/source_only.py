"""Source only: train on the synthetic images, test on the real ones. The lower bound of every transfer."""

from torch import Tensor

from segzoo.data.streams import Batch, Stream
from segzoo.losses import cross_entropy
from segzoo.methods.base import SegmentationMethod, pixel_count, valid_pixels


class SourceOnly(SegmentationMethod):
    """Cross-entropy on the labelled source images; the target is never seen in training.

    Args:
        kwargs: see `SegmentationMethod`.
    """

    slug = "source-only"
    supervision = "none"

    @property
    def streams(self) -> dict[str, Stream]:
        """Labelled source images alone."""
        return {"source": Stream("source")}

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Mean cross-entropy over the valid source pixels."""
        source = batch["source"]
        count = pixel_count(valid_pixels(source["label"]))
        return self.total({"source": cross_entropy(self(source["image"]), source["label"], count)})
