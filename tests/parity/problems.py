"""A segmenter with a source and a target batch, in float64, and what tests ask of it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.bilevel import Engine, Hypergradient, Replayed, VirtualStep, hypergradient
from segzoo.losses import pixel_cross_entropy


@dataclass
class Problem:
    """A segmenter, a source and a target batch."""

    net: nn.Module
    source: tuple[Tensor, Tensor]
    target: tuple[Tensor, Tensor]
    weights: Tensor

    @property
    def params(self) -> dict[str, Tensor]:
        return dict(self.net.named_parameters())

    def source_losses(self, seed: int = 1) -> Replayed:
        image, label = self.source
        return Replayed(self.net, image, lambda z: pixel_cross_entropy(z, label), seed)

    def target_loss(self, seed: int = 2) -> Replayed:
        image, label = self.target
        return Replayed(self.net, image, lambda z: F.cross_entropy(z, label, ignore_index=255), seed)

    def solve(self, engine: Engine, step: VirtualStep, **kwargs: Any) -> Hypergradient:
        return hypergradient(
            self.net,
            [self.source_losses()],
            [kwargs.pop("target", self.target_loss())],
            self.params,
            self.weights,
            float(self.weights.numel()),
            step,
            engine,
            **kwargs,
        )


def problem(net: nn.Module, size: int = 64, classes: int = 5) -> Problem:
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Tensor, Tensor]:
        image = torch.rand(2, 3, size, size, generator=generator, dtype=torch.float64)
        label = torch.randint(classes, (2, size, size), generator=generator)
        label[torch.rand(label.shape, generator=generator) < 0.1] = 255
        return image, label

    source, target = batch(), batch()
    weights = torch.rand(2, size, size, generator=generator, dtype=torch.float64)
    return Problem(net.double().train(), source, target, weights)


def toy(seed: int = 0) -> Problem:
    """Convolution, batch norm, dropout: everything that can go wrong, in milliseconds."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(), nn.Dropout2d(0.5), nn.Conv2d(8, 5, 3, padding=1)
    )
    return problem(net, size=8)


def relative_error(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def buffers(net: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in net.named_buffers()}
