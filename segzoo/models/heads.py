"""Heads on an encoder's maps: DeepLabV2's classifier, and SePiCo's projection to the embeddings that are contrasted."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.errors import ConfigError

MapChoice = Literal["last", "fuse"]


class DilatedHead(nn.Module):
    """DeepLabV2's classifier: the sum of 3x3 convolutions at several dilations.

    Weights start as N(0, 0.01²), biases at 0.

    Args:
        in_channels: channels of the map.
        num_classes: C.
        dilations: one convolution each. MaxSquare's published code returns from inside its loop: it sums (6, 12) alone.
    """

    def __init__(self, in_channels: int, num_classes: int, dilations: Sequence[int] = (6, 12, 18, 24)) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            classifier(in_channels, num_classes, kernel_size=3, dilation=dilation) for dilation in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, F, h, w) to logits (B, C, h, w); the caller resizes them."""
        return torch.stack([conv(x) for conv in self.convs]).sum(0)


class ProjectionHead(nn.Module):
    """SePiCo's projection: twice 1x1 convolution, batch norm and ReLU, then unit length over the channels.

    The last ReLU, as published, makes embeddings non-negative: cosines lie in [0, 1].

    Args:
        in_channels: channels of the map.
        dim: channels of the embeddings.
        hidden: channels in between; ``in_channels`` by default.
    """

    def __init__(self, in_channels: int, dim: int = 512, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or in_channels
        self.layers = nn.Sequential(conv_norm_relu(in_channels, hidden), conv_norm_relu(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, F, h, w) to embeddings (B, dim, h, w) of unit length."""
        # The ReLU can leave next to nothing of a pixel; the default epsilon would multiply its gradient by up to 1e12.
        return F.normalize(self.layers(x), dim=1, eps=1e-4)


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution that keeps height and width, batch norm and ReLU; `replace_norms` can exchange the norm."""
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, groups=groups, bias=False
    )
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def classifier(in_channels: int, num_classes: int, kernel_size: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Convolution to logits that keeps height and width, with weights N(0, 0.01²) and biases 0."""
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(in_channels, num_classes, kernel_size, padding=padding, dilation=dilation)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def select_features(maps: Sequence[Tensor], choice: MapChoice) -> Tensor:
    """The map that a projection head reads.

    Args:
        maps: an encoder's, as `Segmenter.features` returns them: map i has stride 2^i, or less where the encoder is dilated.
        choice: ``last``: the deepest map, for a CNN. ``fuse``: all maps of stride 4 and more, resized to the largest of them
            and concatenated, for a MiT.

    Returns:
        A map with ``selected_channels(encoder.out_channels, choice)`` channels.
    """
    return maps[-1] if choice == "last" else torch.cat(same_size(maps[2:]), dim=1)


def selected_channels(out_channels: Sequence[int], choice: MapChoice) -> int:
    """The number of channels of `select_features`, given the encoder's ``out_channels``.

    Raises:
        ConfigError: there is nothing to read.
    """
    channels = out_channels[-1] if choice == "last" else sum(out_channels[2:])
    if not channels:
        raise ConfigError(
            f"`method.projection_input` {choice}: the encoder's maps have {list(out_channels)} channels, of which none is "
            "read; use a larger encoder_depth in `network.options`"
        )
    return channels


def same_size(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps (B, F_i, h_i, w_i), all resized bilinearly to the size of the first."""
    size = maps[0].shape[-2:]
    return [F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in maps]
