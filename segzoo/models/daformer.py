"""DAFormer's network (Hoyer, Dai, Van Gool, CVPR 2022): all levels of the encoder fused with context at several dilations."""

from collections.abc import Sequence

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from segzoo.models.heads import classifier, conv_norm_relu, same_size


class DAFormer(smp.base.SegmentationModel):  # type: ignore[misc]
    """An encoder with maps at strides 4, 8, 16 and 32, `DAFormerDecoder`, and a 1x1 classifier.

    Args:
        encoder_name: any encoder of segmentation_models_pytorch; published: mit_b5.
        encoder_weights: pretrained weights by name, or None.
        classes: number of logits per pixel.
        channels: of each level and each branch of the decoder.
        dilations: of the decoder's branches.
        dropout: share of the channels that is dropped before the classifier.
        in_channels: channels of the image.
    """

    def __init__(
        self,
        encoder_name: str = "mit_b5",
        encoder_weights: str | None = None,
        classes: int = 1,
        channels: int = 256,
        dilations: Sequence[int] = (1, 6, 12, 18),
        dropout: float = 0.1,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.encoder = smp.encoders.get_encoder(encoder_name, in_channels=in_channels, weights=encoder_weights)
        self.decoder = DAFormerDecoder(self.encoder.out_channels[2:], channels, dilations)
        self.segmentation_head = nn.Sequential(
            nn.Dropout2d(dropout),
            classifier(channels, classes),
            nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False),
        )
        self.classification_head = None


class DAFormerDecoder(nn.Module):
    """A linear layer per level, all levels at stride 4, depthwise-separable branches at several dilations, a 3x3 bottleneck.

    Args:
        in_channels: channels of the maps of stride 4 and more.
        channels: of each level, each branch and the result.
        dilations: one branch each; that of dilation 1 is a 1x1 convolution.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in in_channels)
        width = channels * len(in_channels)
        self.branches = nn.ModuleList(
            conv_norm_relu(width, channels) if dilation == 1 else _separable(width, channels, dilation)
            for dilation in dilations
        )
        self.bottleneck = conv_norm_relu(channels * len(dilations), channels, kernel_size=3)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps of strides 1, 2, 4, 8, ... to (B, channels, H/4, W/4); the first two are not used."""
        levels = [level(x) for level, x in zip(self.levels, features[2:], strict=True)]
        fused = torch.cat(same_size(levels), dim=1)
        return self.bottleneck(torch.cat([branch(fused) for branch in self.branches], dim=1))


def _separable(in_channels: int, out_channels: int, dilation: int) -> nn.Sequential:
    depthwise = conv_norm_relu(in_channels, in_channels, kernel_size=3, dilation=dilation, groups=in_channels)
    return nn.Sequential(depthwise, conv_norm_relu(in_channels, out_channels))
