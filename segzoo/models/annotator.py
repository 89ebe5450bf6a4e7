"""The annotator of gradient matching: a generator's feature maps to labels of what it painted (Yang et al., ICLR 2022)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class Annotator(nn.Module):
    """Sums the projected maps from coarse to fine, then classifies every pixel with a small convolutional head.

    Args:
        feature_channels: channels of the maps, coarse to fine.
        num_classes: logits per pixel.
        width: channels that every map is projected to.
    """

    def __init__(self, feature_channels: Sequence[int], num_classes: int, width: int = 128) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in feature_channels)
        self.head = nn.Sequential(
            *_conv_norm_relu(width), *_conv_norm_relu(width), nn.Conv2d(width, num_classes, 3, padding=1)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i), coarse to fine, to logits (B, C, H, W) of the finest map's size.

        Raises:
            ValueError: not as many maps as ``feature_channels``.
        """
        if len(features) != len(self.laterals):
            raise ValueError(f"{len(features)} feature maps for an annotator of {len(self.laterals)}")
        x: Tensor | None = None
        for lateral, feature in zip(self.laterals, features, strict=True):
            projected = lateral(feature)
            if x is not None:
                if x.shape[-2:] != projected.shape[-2:]:
                    x = F.interpolate(x, size=projected.shape[-2:], mode="bilinear", align_corners=False)
                projected = projected + x
            x = projected
        return self.head(x)


def _conv_norm_relu(width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
