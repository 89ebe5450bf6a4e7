"""One domain alone: the two ends that every transfer is measured against.

Source only is the lower bound: train on the synthetic images, test on the real ones. Target only is what a transfer must beat
to be worth its synthetic images: train on the labelled real ones.
"""

from typing import ClassVar, Literal

from torch import Tensor

from segzoo.data.streams import Batch
from segzoo.methods.segmentation import SegmentationMethod


class SingleDomain(SegmentationMethod):
    """The supervised loss on the labelled images of one domain; the other is never seen."""

    domain: ClassVar[Literal["source", "target"]]

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """The loss of pixels, and of areas where `Loss` has one."""
        images = batch[self.domain]
        return self.total({self.domain: self.supervised(self(images["image"]), images["label"])})


class SourceOnly(SingleDomain):
    """Learns from the labelled source alone, and is tested on the target.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
    """

    slug = "source-only"
    resources = ("source",)
    domain = "source"


class TargetOnly(SingleDomain):
    """Learns from the few labelled target images alone.

    Args:
        label_space: Gives the classes; the command takes them from the data.
        network: Says which network is trained, and from which weights.
        optimizer: Says how the network learns.
        loss: Says by which loss the network learns from labels.
        speed: Says how a step is computed.
    """

    slug = "target-only"
    resources = ("labels",)
    domain = "target"
