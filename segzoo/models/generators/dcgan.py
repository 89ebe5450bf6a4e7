"""The deep convolutional GAN of Radford et al. (ICLR 2016): small enough to sample on a CPU."""

from pathlib import Path

import torch
from torch import Tensor, nn

from segzoo.errors import CheckpointError
from segzoo.models.generators.base import Draws, Generator, Sample
from segzoo.models.state_dicts import misfit
from segzoo.models.weight_files import load_tensors


class DCGAN(Generator):
    """Transposed convolutions from a latent vector to 64 x 64 pixels; the features are the maps after each ReLU.

    Args:
        latent_dim: length of a latent vector.
        channels: channels of the finest feature map, at 32 x 32; each coarser one has twice as many.
    """

    resolution = 64

    def __init__(self, latent_dim: int = 100, channels: int = 64) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.settings = {"latent_dim": latent_dim, "channels": channels}
        self.feature_channels = [8 * channels, 4 * channels, 2 * channels, channels]
        inputs = [latent_dim, *self.feature_channels]
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip(inputs, self.feature_channels, strict=False)):
            layers += [_up(before, after, first=i == 0), nn.BatchNorm2d(after), nn.ReLU()]
        self.main = nn.Sequential(*layers, _up(channels, 3), nn.Tanh())
        for layer in self.main:
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=0.02)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1.0, 0.02)

    def forward(self, z: Tensor) -> Sample:
        """Latents (B, latent_dim) to images (B, 3, 64, 64) in [-1, 1] and features at 4, 8, 16 and 32 pixels."""
        x, features = z[:, :, None, None], []
        for layer in self.main:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                features.append(x)
        return Sample(x, features)

    def synthesise(self, z: Tensor, generator: Draws = None) -> Sample:
        """See `Generator.synthesise`; nothing further is drawn."""
        return self(z)


def load_dcgan(path: str | Path) -> DCGAN:
    """Reads a state dict, whose shapes say how large the network is.

    Returns:
        The generator in evaluation mode, on the CPU.

    Raises:
        CheckpointError: no such file, not a state dict, or one of another network.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"no generator weights at {path}")
    try:
        state = load_tensors(Path(path))
    except CheckpointError:
        raise
    except Exception as error:  # torch raises whatever its unpickler and zip reader raise
        raise CheckpointError(f"{path} is not a state dict: damaged, or more than tensors and plain types") from error
    first = state.get("main.0.weight") if isinstance(state, dict) else None
    if not isinstance(first, Tensor) or first.dim() != 4 or first.shape[1] % 8:
        raise CheckpointError(
            f"{path} is not a DCGAN generator: expected 'main.0.weight' of shape (latent, 8 channels, 4, 4)"
        )
    with torch.device("meta"):  # no random weights for nothing
        network = DCGAN(latent_dim=first.shape[0], channels=first.shape[1] // 8)
    if reason := misfit(network.state_dict(), state):
        raise CheckpointError(f"{path} is not a DCGAN generator: {reason}")
    network.to_empty(device="cpu").load_state_dict(state)
    return network.eval()


def _up(inputs: int, outputs: int, first: bool = False) -> nn.ConvTranspose2d:
    stride, padding = (1, 0) if first else (2, 1)
    return nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False)
