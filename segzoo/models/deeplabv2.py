"""DeepLabV2 (Chen et al., TPAMI 2018) as domain adaptation uses it: a dilated encoder, a sum of dilated convolutions."""

from collections.abc import Sequence
from typing import Any

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from segzoo.errors import ConfigError
from segzoo.models.heads import DilatedHead


class DeepLabV2(smp.base.SegmentationModel):  # type: ignore[misc]
    """An encoder dilated to stride 8, and `DilatedHead` on its last map.

    Args:
        encoder_name: a CNN of segmentation_models_pytorch that can be dilated; published: resnet101.
        encoder_weights: pretrained weights by name, or None.
        classes: number of logits per pixel.
        encoder_output_stride: stride of the last map: 8 (published) or 16.
        dilations: of the classifier.
        align_corners: of the upsampling: True in MaxSquare, False in SePiCo.
        in_channels: channels of the image.

    Raises:
        ConfigError: the encoder cannot be dilated.
    """

    def __init__(
        self,
        encoder_name: str = "resnet101",
        encoder_weights: str | None = None,
        classes: int = 1,
        encoder_output_stride: int = 8,
        dilations: Sequence[int] = (6, 12, 18, 24),
        align_corners: bool = True,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.encoder = _dilated(encoder_name, in_channels, encoder_weights, encoder_output_stride)
        self.decoder = LastMap()
        self.segmentation_head = nn.Sequential(
            DilatedHead(self.encoder.out_channels[-1], classes, dilations),
            nn.Upsample(scale_factor=encoder_output_stride, mode="bilinear", align_corners=align_corners),
        )
        self.classification_head = None


class LastMap(nn.Module):
    """A decoder without parameters: of the encoder's maps it passes on the deepest."""

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps to the last of them."""
        return features[-1]


def _dilated(name: str, in_channels: int, weights: str | None, stride: int) -> Any:
    if stride not in (8, 16):
        raise ConfigError(f"the encoder_output_stride of deeplabv2 is 8 or 16, not {stride}")
    refusal = ConfigError(f"the encoder '{name}' cannot be dilated to stride {stride}; resnet101, for one, can")
    if name.startswith("mit_"):
        raise refusal  # segmentation_models_pytorch would take the strides of its attention away as well
    try:
        return smp.encoders.get_encoder(name, in_channels=in_channels, weights=weights, output_stride=stride)
    except (
        AssertionError,
        NotImplementedError,
        TypeError,
        ValueError,
    ) as error:  # what timm and the library refuse with
        raise refusal from error
