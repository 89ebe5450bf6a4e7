"""Domain discriminators: how real does a pixel, a region, an image look? And what goes with them.

They judge maps (B, I, H, W): class probabilities, images, or an encoder's features. A logit is that of "real". No network has
a norm, so that none couples the images of a batch.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.distributed import sum_across_ranks
from segzoo.floats import widest

Level = Literal["pixel", "region", "image"]
Combination = Literal["mean", "prod"]


class PixelDiscriminator(nn.Sequential):
    """Three 3x3 convolutions: a pixel and its close neighbours. (B, I, H, W) to logits (B, K, H, W).

    Args:
        inputs: channels I.
        outputs: logits K per pixel.
        width: channels of the first layer.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 64) -> None:
        channels = [inputs, width, 2 * width, outputs]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.LeakyReLU(0.2)]
        super().__init__(*layers[:-1])


class _Strided(nn.Module):
    """All but the last of log2(cell) strided convolutions, for images of any size."""

    def __init__(self, inputs: int, width: int, cell: int) -> None:
        super().__init__()
        self.cell = cell
        self.channels = [inputs, *(width * 2**i for i in range(int(math.log2(cell)) - 1))]
        layers: list[nn.Module] = []
        for before, after in pairwise(self.channels):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.trunk = nn.Sequential(*layers)

    def encode(self, x: Tensor) -> Tensor:
        """Features at 2 / cell of the size, of an input that was padded to whole cells."""
        bottom, right = -x.shape[-2] % self.cell, -x.shape[-1] % self.cell
        features: Tensor = self.trunk(F.pad(x, (0, right, 0, bottom), mode="replicate"))
        return features


class RegionDiscriminator(_Strided):
    """Strided 4x4 convolutions, one logit per cell (the fully convolutional discriminator of output-space adaptation).

    Args:
        inputs: channels I.
        outputs: logits K per pixel.
        width: channels of the first layer; they double with every layer.
        cell: side length of a cell in pixels, a power of two from 4 on; 32 as published by the relatives.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 64, cell: int = 32) -> None:
        super().__init__(inputs, width, cell)
        self.head = nn.Conv2d(self.channels[-1], outputs, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) to logits (B, K, H, W), interpolated between the cells' centres."""
        cells = self.head(self.encode(x))
        logits = F.interpolate(cells, scale_factor=self.cell, mode="bilinear", align_corners=False)
        return logits[..., : x.shape[-2], : x.shape[-1]]


class ImageDiscriminator(_Strided):
    """The same layers without the last, their mean over the image, and a linear layer.

    Args:
        inputs: channels I.
        outputs: logits K per image.
        width: channels of the first layer.
        cell: as in `RegionDiscriminator`.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 64, cell: int = 32) -> None:
        super().__init__(inputs, width, cell)
        self.head = nn.Linear(self.channels[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) to logits (B, K)."""
        logits: Tensor = self.head(self.encode(x).mean(dim=(2, 3)))
        return logits


class DomainDiscriminators(nn.Module):
    """A discriminator per level, read at every pixel. With a logit per class (W_C) pixel i reads that of its class y_i.

    The image level with W_C takes the mean over the classes present: it stays one number per image.

    Args:
        inputs: channels of what is judged.
        num_classes: classes of the labels, void not counted.
        levels: which levels there are.
        per_class: a logit per class instead of one for all.
        width: channels of the first layers.
        cell: side length of a region in pixels.
    """

    def __init__(
        self,
        inputs: int,
        num_classes: int,
        levels: Sequence[Level] = ("pixel", "region", "image"),
        per_class: bool = False,
        width: int = 64,
        cell: int = 32,
    ) -> None:
        super().__init__()
        self.per_class = per_class
        outputs = num_classes if per_class else 1
        build: dict[Level, Callable[[], nn.Module]] = {
            "pixel": lambda: PixelDiscriminator(inputs, outputs, width),
            "region": lambda: RegionDiscriminator(inputs, outputs, width, cell),
            "image": lambda: ImageDiscriminator(inputs, outputs, width, cell),
        }
        self.levels = nn.ModuleDict({level: build[level]() for level in levels})

    def forward(self, inputs: Tensor, label: Tensor) -> Tensor:
        """Logits (L, B, H, W) of "real", a map per level.

        Args:
            inputs: (B, I, H, W).
            label: (B, H, W); void pixels get some logit, which nobody should use.
        """
        return torch.stack([self._own(_at_least_float32(net(inputs)), label) for net in self.levels.values()])

    def _own(self, logits: Tensor, label: Tensor) -> Tensor:
        """Of the logits (B, K, H, W) or (B, K) those that count for each pixel: (B, H, W)."""
        valid = label != IGNORE_INDEX
        own = torch.where(valid, label, 0)
        if logits.dim() == 4:
            return logits.gather(1, own[:, None])[:, 0] if self.per_class else logits[:, 0]
        if self.per_class:
            present = (
                logits.new_zeros(logits.shape).scatter_add_(1, own.flatten(1), valid.flatten(1).to(logits.dtype)) > 0
            )
            logits = (logits * present).sum(1) / present.sum(1).clamp_min(1)
        return logits.view(-1, 1, 1).expand(label.shape)


def frozen(module: nn.Module, *args: Tensor | None) -> Tensor:
    """``module(*args)`` with the parameters as constants: gradients reach the arguments alone."""
    constants = {name: p.detach() for name, p in module.named_parameters()}
    result: Tensor = functional_call(module, constants, args)
    return result


def domain_loss(logits: Tensor, real: bool, valid: Tensor, count: Tensor | float, smoothing: float = 0.0) -> Tensor:
    """Sum over the levels of the mean over the valid pixels of -log s (real) or -log(1 - s), s = sigmoid(logits).

    Args:
        logits: (L, B, H, W).
        real: which answer is wanted.
        valid: (B, H, W) bool.
        count: the number of pixels that the mean is of (`segzoo.methods.segmentation.pixel_count`).
        smoothing: the wanted answer is 1 - smoothing or smoothing instead of 1 or 0.
    """
    wanted = torch.full_like(logits, 1 - smoothing if real else smoothing)
    losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (losses * valid).sum() / count


def combine_levels(logits: Tensor, combination: Combination) -> Tensor:
    """What the levels say together of every pixel: the mean of their scores s = sigmoid(logits), or their product.

    Args:
        logits: (L, B, H, W).
        combination: how they combine.

    Returns:
        (B, H, W).
    """
    scores = logits.sigmoid()
    return scores.mean(0) if combination == "mean" else scores.prod(0)


def domain_auc(real: Tensor, synthetic: Tensor, bins: int = 4096) -> Tensor:
    """Probability that a real pixel scores higher than a synthetic one: 0.5 tells nothing, 1 tells the domains apart.

    The scores of all ranks count. They are compared through a histogram; two of the same bin are a draw.

    Args:
        real: logits, any shape.
        synthetic: logits, any shape.
        bins: of equal width over the scores (0, 1).

    Returns:
        A scalar, float64 where the device has it; NaN when one side is empty.
    """
    counts = []
    for logits in (real, synthetic):
        index = (widest(logits.flatten()).sigmoid() * bins).long().clamp_max(bins - 1)
        counts.append(torch.bincount(index, minlength=bins))
    high, low = widest(sum_across_ranks(torch.stack(counts)))
    below = low.cumsum(0) - low / 2
    return (high * below).sum() / (high.sum() * low.sum())


def _at_least_float32(x: Tensor) -> Tensor:
    # Under autocast the layers answer in half precision, too coarse for differences of scores.
    return x.to(torch.promote_types(x.dtype, torch.float32))
