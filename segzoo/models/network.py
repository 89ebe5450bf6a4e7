"""The options of the network that is trained."""

from dataclasses import dataclass, replace
from typing import Any, Self

from segzoo.models.norms import Norm
from segzoo.models.segmenter import Segmenter, create_segmenter
from segzoo.options import check_values


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which segmentation network is trained, and from which weights it starts.

    Args:
        architecture: Chooses the network around the encoder: a name of segmentation_models_pytorch, such as unet, fpn,
            deeplabv3plus or segformer, or one of our own, deeplabv2, daformer or fcn8s.
        encoder: Chooses the backbone: a name of segmentation_models_pytorch, such as resnet50 or mit_b2, or tu- and a name of
            timm, such as tu-convnext_tiny.
        encoder_weights: Names the pretrained weights to download for the encoder, usually imagenet; null starts from random
            weights.
        encoder_checkpoint: Loads the encoder's weights from this file instead, without a network connection.
        initial_checkpoint: Starts the whole network from the weights of another segzoo run, for example of source-only.
        norm: Chooses how batch norms work: batch, as published, uses the statistics of the images of each process; sync those
            of all processes; frozen fixed statistics; group none. Only with batch do several processes give another result than
            one process with all images.
        options: Passes further arguments to the architecture, such as {decoder_channels: [128, 64, 32, 32, 16]} for unet.
    """

    architecture: str = "fpn"
    encoder: str = "tu-tf_efficientnet_lite0"
    encoder_weights: str | None = "imagenet"
    encoder_checkpoint: str | None = None
    initial_checkpoint: str | None = None
    norm: Norm = "batch"
    options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: a value of another type, a choice that there is not.
        """
        check_values(type(self).__init__, vars(self), "network")

    def without_weights(self) -> Self:
        """The same network when its weights come from a checkpoint: no file is opened and nothing is downloaded."""
        return replace(self, encoder_weights=None, encoder_checkpoint=None, initial_checkpoint=None)

    def build(self, num_classes: int) -> Segmenter:
        """The network, with the encoder's weights; see `create_segmenter` for errors."""
        return create_segmenter(
            self.architecture,
            self.encoder,
            num_classes,
            self.encoder_weights,
            self.encoder_checkpoint,
            self.norm,
            self.options,
        )
