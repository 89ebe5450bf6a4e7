"""Networks on image and label that weigh source pixels: ``weighting(image, label) -> (B, H, W)``.

They have the weights' logits, too: ``weighting(image, label, logits=True)``.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.checks import check_range
from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.errors import ConfigError

WeightNorm = Literal["instance", "group"]


class _WeightNet(nn.Module):
    def __init__(self, num_classes: int, width: int, norm: WeightNorm, stride: int) -> None:
        super().__init__()
        check_range("`method.weight_width`", width, 1)
        check_range("`method.weight_stride`", stride, 1)
        self.num_classes, self.norm, self.stride = num_classes, norm, stride
        channels = [width, 2 * width, 4 * width, 4 * width]
        inputs = [3 + num_classes + 1, *channels]
        self.down = nn.ModuleList(_double_conv(i, o, norm) for i, o in zip(inputs, channels, strict=False))

    def encode(self, image: Tensor, label: Tensor) -> list[Tensor]:
        """Feature maps at 1, 1/2, 1/4, 1/8 of the size; void is a class of its own.

        Raises:
            ConfigError: images so small that nothing is left at 1/8 of the size.
        """
        classes = label.masked_fill(label == IGNORE_INDEX, self.num_classes)
        x = image.new_zeros(*label.shape, 3 + self.num_classes + 1)
        # Raw 0..255 pixels would swamp the one-hot channels: both are of order one here.
        x[..., :3] = (image.movedim(1, -1) - 0.5) / 0.25
        x[..., 3:].scatter_(-1, classes[..., None], 1)  # F.one_hot counts in int64
        x = x.movedim(-1, 1)  # channels last, which a CPU convolves in half the time
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        maps: list[Tensor] = []
        for level in self.down:
            maps.append(level(_max_pool(maps[-1]) if maps else x))
        if self.norm == "instance" and maps[-1][0, 0].numel() == 1:
            height, width = label.shape[-2:]
            raise ConfigError(
                f"instance norms of the weight network: of images of {height}x{width} its coarsest map is one pixel, which "
                "they make zero; use `method.weight_net_norm` group, a smaller `method.weight_stride`, or larger crops"
            )
        return maps

    def initialise(self, head: nn.Conv2d) -> None:
        """Convolutions N(0, 0.01), head bias 1: every pixel starts near sigmoid(1) = 0.73."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
        assert head.bias is not None
        nn.init.ones_(head.bias)


class PixelWeightNet(_WeightNet):
    """A U-Net on image and one-hot label (MetaPix's "UNet2" at ``width=64``): one weight in (0, 1) per pixel.

    The published network ends in a softmax over two channels, of which one is the weight; that is this sigmoid of their
    difference.

    Args:
        num_classes: classes of the labels, void not counted.
        width: channels at full resolution; cost grows with its square.
        norm: ``instance`` (published) removes contrast between images; ``group`` keeps it.
        stride: the network sees image and label averaged over squares of this side, in which the weight is constant.
    """

    def __init__(self, num_classes: int, width: int = 64, norm: WeightNorm = "instance", stride: int = 1) -> None:
        super().__init__(num_classes, width, norm, stride)
        self.up = nn.ModuleList(
            _double_conv(i, o, norm, middle=i // 2)
            for i, o in ((8 * width, 2 * width), (4 * width, width), (2 * width, width))
        )
        self.head = nn.Conv2d(width, 1, 1)
        self.initialise(self.head)

    def forward(self, image: Tensor, label: Tensor, logits: bool = False) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] and (B, H, W) labels to (B, H, W) weights, or their logits; see `as_weights`."""
        *skips, x = self.encode(image, label)
        for level, skip in zip(self.up, reversed(skips), strict=True):
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=True)
            x = level(torch.cat([skip, x], dim=1))
        weights = as_weights(self.head(x), logits)
        if self.stride > 1:
            height, width = label.shape[-2:]
            weights = weights.repeat_interleave(self.stride, -2).repeat_interleave(self.stride, -1)[
                ..., :height, :width
            ]
        return weights.squeeze(1)


class ImageWeightNet(_WeightNet):
    """The encoder alone (MetaPix's "UNet4"): one weight in (0, 1) per image, the same for all its pixels.

    Args:
        num_classes: classes of the labels, void not counted.
        width: channels at full resolution.
        norm: see `PixelWeightNet`.
        stride: see `PixelWeightNet`.
    """

    def __init__(self, num_classes: int, width: int = 64, norm: WeightNorm = "instance", stride: int = 1) -> None:
        super().__init__(num_classes, width, norm, stride)
        self.head = nn.Conv2d(4 * width, 1, 1)
        self.initialise(self.head)

    def forward(self, image: Tensor, label: Tensor, logits: bool = False) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] and (B, H, W) labels to (B, H, W) weights or logits, constant within an image."""
        logit = _at_least_float32(self.head(self.encode(image, label)[-1])).mean(dim=(1, 2, 3))
        return as_weights(logit, logits)[:, None, None].expand(label.shape)


def as_weights(x: Tensor, logits: bool) -> Tensor:
    """The weights sigmoid(x) of what a head made, or x itself, in float32 at least.

    A softmax over the pixels, whose terms are exp(x) = w / (1 - w), takes the logits: at x = 14 a float32 weight is
    14 steps below 1, from x = 17 on it is 1, without a gradient.
    """
    x = _at_least_float32(x)
    return x if logits else torch.sigmoid(x)


class _Norm(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        # Channels last, a CPU's group norm is inexact (1e-4 in float32) and its backward pass six times as slow.
        return super().forward(x.contiguous())


def _double_conv(inputs: int, outputs: int, norm: WeightNorm, middle: int | None = None) -> nn.Sequential:
    layers: list[nn.Module] = []
    middle = middle or outputs
    for before, after in ((inputs, middle), (middle, outputs)):
        # No bias: the norm that follows would remove it.
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
        # Instance norm is a group norm of single channels; on a CPU that kernel needs no copies around it.
        layers.append(_Norm(after, after, affine=False) if norm == "instance" else _Norm(math.gcd(8, after), after))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _max_pool(x: Tensor) -> Tensor:
    # Channels last, a CPU pools three times as fast, the copy included, and the next convolution likes it, too.
    return F.max_pool2d(x.contiguous(memory_format=torch.channels_last), 2, ceil_mode=True)


def _at_least_float32(x: Tensor) -> Tensor:
    # Under autocast the head answers in half precision, in which 0.73 and 0.731 are the same weight.
    return x.to(torch.promote_types(x.dtype, torch.float32))
