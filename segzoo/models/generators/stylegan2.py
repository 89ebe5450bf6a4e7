"""StyleGAN2 (Karras et al., CVPR 2020) in plain PyTorch, with the parameter names of the authors' ADA release.

mapping     z -> w: normalised latent, then linear layers with leaky ReLU                        `_Mapping`
synthesis   a learned 4 x 4 constant; per resolution an upsampling and a plain modulated 3 x 3
            convolution, noise, leaky ReLU, and an RGB image added to the upsampled one before    `_Synthesis`
weights     N(0, 1) at the start, scaled by 1/√fan-in at run time (equalised learning rate)       `_Linear`, `_ToRGB`
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.errors import ConfigError
from segzoo.models.generators.base import Draws, Generator, Sample, normal

Noise = Literal["none", "const", "random"]

LR_MULTIPLIER = 0.01
"""Of the mapping network: its weights are that much larger and act that much smaller."""
W_AVERAGE_DECAY = 0.995
"""Of the running mean of w, per training batch."""


class StyleGAN2(Generator):
    """An unconditional StyleGAN2 generator of the "skip" architecture.

    Args:
        z_dim: length of a latent vector.
        w_dim: length of a style vector.
        resolution: height and width of the images, a power of two.
        channel_base: a map of side r has ``channel_base // r`` channels,
        channel_max: but no more than this.
        mapping_layers: layers from z to w.
        clamp: bound on all activations, which networks trained in half precision have (256); None for none.
        truncation: how `sample` draws w: 1 as it is, 0 the mean,
        cutoff: for as many of the first layers; None for all.
    """

    def __init__(
        self,
        z_dim: int = 512,
        w_dim: int = 512,
        resolution: int = 256,
        channel_base: int = 32768,
        channel_max: int = 512,
        mapping_layers: int = 8,
        clamp: float | None = None,
        truncation: float = 0.7,
        cutoff: int | None = 8,
    ) -> None:
        super().__init__()
        if resolution < 4 or resolution & (resolution - 1):
            raise ConfigError(f"resolution {resolution}: expected a power of two, 4 or more")
        self.latent_dim, self.resolution = z_dim, resolution
        self.settings = {
            "z_dim": z_dim,
            "w_dim": w_dim,
            "resolution": resolution,
            "channel_base": channel_base,
            "channel_max": channel_max,
            "mapping_layers": mapping_layers,
            "clamp": clamp,
            "truncation": truncation,
            "cutoff": cutoff,
        }
        self.truncation, self.cutoff = truncation, cutoff
        sides = [2**i for i in range(2, resolution.bit_length())]
        self.feature_channels = [min(channel_base // side, channel_max) for side in sides]
        self.num_layers = 2 * len(sides)
        self.mapping = _Mapping(z_dim, w_dim, mapping_layers)
        self.synthesis = _Synthesis(w_dim, sides, self.feature_channels, clamp)

    def styles(self, z: Tensor, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Latents (B, z_dim) to style vectors (B, layers, w_dim).

        Args:
            z: latent vectors.
            truncation: ψ in w̄ + ψ (w - w̄), w̄ the running mean of w.
            cutoff: how many of the first layers are truncated; None for all.
        """
        ws = self.mapping(z)[:, None].repeat(1, self.num_layers, 1)
        ws[:, :cutoff] = torch.lerp(self.mapping.w_avg, ws[:, :cutoff], truncation)
        return ws

    def forward(
        self,
        z: Tensor,
        truncation: float = 1.0,
        cutoff: int | None = None,
        noise: Noise = "const",
        generator: Draws = None,
    ) -> Sample:
        """Latents (B, z_dim) to images (B, 3, H, W) and the feature map behind each resolution's second convolution.

        Args:
            z: latent vectors.
            truncation: see `styles`.
            cutoff: see `styles`.
            noise: none, the learned generator's fixed pattern (const), or a fresh draw per image and layer (random).
            generator: where the random noise comes from.
        """
        return self.synthesis(self.styles(z, truncation, cutoff), noise, generator)

    def synthesise(self, z: Tensor, generator: Draws = None) -> Sample:
        """See `Generator.synthesise`: truncated as the network says, with random noise."""
        return self(z, self.truncation, self.cutoff, "random", generator)


class _Mapping(nn.Module):
    w_avg: Tensor

    def __init__(self, z_dim: int, w_dim: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        for i in range(layers):
            self.add_module(f"fc{i}", _Linear(z_dim if i == 0 else w_dim, w_dim, lr_multiplier=LR_MULTIPLIER))
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor) -> Tensor:
        """(B, z_dim) to (B, w_dim); training follows the mean of w."""
        x = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for i in range(self.layers):
            x = _leaky_relu(self.get_submodule(f"fc{i}")(x))
        x = x.to(self.w_avg.dtype)  # under autocast it comes in half precision
        if self.training:
            with torch.no_grad():
                self.w_avg.lerp_(x.mean(dim=0), 1 - W_AVERAGE_DECAY)
        return x


class _Synthesis(nn.Module):
    def __init__(self, w_dim: int, sides: list[int], channels: list[int], clamp: float | None) -> None:
        super().__init__()
        self.sides = sides
        for side, before, after in zip(sides, [0, *channels], channels, strict=False):
            self.add_module(f"b{side}", _Block(before, after, w_dim, side, clamp))

    def forward(self, ws: Tensor, noise: Noise, generator: Draws) -> Sample:
        """(B, layers, w_dim) to images and feature maps."""
        x: Tensor | None = None
        image: Tensor | None = None
        features, layers = [], list(ws.unbind(dim=1))
        for side in self.sides:
            x, image = self.get_submodule(f"b{side}")(x, image, layers, noise, generator)
            features.append(x)
        assert image is not None
        return Sample(image, features)


class _Block(nn.Module):
    """One resolution: two convolutions (one on the constant at the coarsest) and what they add to the image."""

    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int, w_dim: int, side: int, clamp: float | None) -> None:
        super().__init__()
        self.register_buffer("resample_filter", binomial_filter())
        if inputs:
            self.conv0 = _StyledConv(inputs, outputs, w_dim, side, clamp, up=True)
        else:
            self.const = nn.Parameter(torch.randn(outputs, side, side))
        self.conv1 = _StyledConv(outputs, outputs, w_dim, side, clamp)
        self.torgb = _ToRGB(outputs, w_dim, clamp)

    def forward(
        self, x: Tensor | None, image: Tensor | None, ws: list[Tensor], noise: Noise, generator: Draws
    ) -> tuple[Tensor, Tensor]:
        """Takes its convolutions' styles off the front of ``ws``; the RGB layer shares its own with the next block."""
        if x is None or image is None:
            x = self.const.expand(len(ws[0]), -1, -1, -1)
        else:
            x = self.conv0(x, ws.pop(0), noise, generator)
        x = self.conv1(x, ws.pop(0), noise, generator)
        rgb = self.torgb(x, ws[0])
        return x, rgb if image is None else rgb + upsample2d(image, self.resample_filter)


class _StyledConv(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias, leaky ReLU."""

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(self, inputs: int, outputs: int, w_dim: int, side: int, clamp: float | None, up: bool = False) -> None:
        super().__init__()
        self.up, self.clamp = up, clamp
        self.affine = _Linear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(side, side))
        self.register_buffer("resample_filter", binomial_filter())

    def forward(self, x: Tensor, w: Tensor, noise: Noise, generator: Draws) -> Tensor:
        """(B, C, H, W) and styles (B, w_dim) to (B, O, H, W), or twice the size."""
        x = modulated_conv2d(x, self.weight, self.affine(w), self.resample_filter if self.up else None)
        if noise == "const":
            x = x + self.noise_const * self.noise_strength
        elif noise == "random":
            x = x + normal((len(x), 1, *x.shape[-2:]), x, generator) * self.noise_strength
        return _clamp(_leaky_relu(x + self.bias[:, None, None]), self.clamp)


class _ToRGB(nn.Module):
    """Modulated 1 x 1 convolution to an image, not demodulated."""

    def __init__(self, inputs: int, w_dim: int, clamp: float | None) -> None:
        super().__init__()
        self.clamp, self.gain = clamp, 1 / math.sqrt(inputs)
        self.affine = _Linear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, C, H, W) and styles (B, w_dim) to (B, 3, H, W)."""
        image = modulated_conv2d(x, self.weight, self.affine(w) * self.gain, demodulate=False)
        return _clamp(image + self.bias[:, None, None], self.clamp)


class _Linear(nn.Module):
    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.weight_gain, self.bias_gain = lr_multiplier / math.sqrt(inputs), lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)


def modulated_conv2d(
    x: Tensor, weight: Tensor, styles: Tensor, upsample_filter: Tensor | None = None, demodulate: bool = True
) -> Tensor:
    """Convolves each image with its own weights: w'_oik = s_i w_oik, divided by their norm over i and k if demodulated.

    Scaling the inputs by s and the outputs by the norm is the same, and needs one convolution for the whole batch.

    Args:
        x: (B, C, H, W).
        weight: (O, C, k, k), k = 1 or 3; k = 3 when upsampling.
        styles: (B, C).
        upsample_filter: given, doubles the size and smooths with this low-pass filter (4, 4).
        demodulate: whether outputs get unit variance for inputs of unit variance.

    Returns:
        (B, O, H, W), or (B, O, 2H, 2W).
    """
    x = x * styles[:, :, None, None]
    if upsample_filter is None:
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    else:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        x = filter2d(x, 4 * upsample_filter, padding=1)
    if demodulate:
        power = styles.square() @ weight.square().sum(dim=(2, 3)).T
        x = x * (power + 1e-8).rsqrt()[:, :, None, None]
    return x


def binomial_filter() -> Tensor:
    """The low-pass filter [1, 3, 3, 1] ⊗ [1, 3, 3, 1] with sum 1: (4, 4)."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / taps.sum() ** 2


def filter2d(x: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """Convolves (a flipped correlation) every channel of (B, C, H, W) with one kernel, zeros around."""
    channels = x.shape[1]
    return F.conv2d(x, kernel.flip(0, 1).expand(channels, 1, -1, -1), padding=padding, groups=channels)


def upsample2d(x: Tensor, kernel: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, 2H, 2W): zeros between the pixels, then a (4, 4) low-pass filter of sum 1, gain 4."""
    channels = x.shape[1]
    return F.conv_transpose2d(x, 4 * kernel.expand(channels, 1, -1, -1), stride=2, padding=1, groups=channels)


def _leaky_relu(x: Tensor) -> Tensor:
    # √2 restores about the second moment that the activation takes away.
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def _clamp(x: Tensor, bound: float | None) -> Tensor:
    return x if bound is None else x.clamp(-bound, bound)
