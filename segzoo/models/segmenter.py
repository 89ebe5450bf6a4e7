"""Segmentation networks: anything of segmentation_models_pytorch and our own, fed images in [0, 1] of any size."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.errors import CheckpointError, ConfigError
from segzoo.models.daformer import DAFormer
from segzoo.models.deeplabv2 import DeepLabV2
from segzoo.models.norms import Norm, replace_norms
from segzoo.models.state_dicts import misfit
from segzoo.suggest import did_you_mean

Scope = Literal["all", "decoder", "head"]

ARCHITECTURES: dict[str, Any] = {
    "deeplabv2": DeepLabV2,
    "daformer": DAFormer,
    **{name.lower(): network_class for name, network_class in smp.MODEL_ARCHITECTURES_MAPPING.items()},
}
"""Network classes by name; all take ``encoder_name``, ``encoder_weights`` and ``classes``."""


class Segmenter(nn.Module):
    """A network with normalisation in front, padding around, and logits of the image's own size.

    Args:
        network: maps (B, 3, H, W) to (B, C, H, W) for H and W divisible by ``stride``.
        mean: channel means of the network's training images, RGB in [0, 1].
        std: channel standard deviations.
        stride: side lengths are padded to multiples of it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: list[float], std: list[float], stride: int) -> None:
        super().__init__()
        self.network, self.stride = network, stride
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor, want: Literal["logits", "maps", "both"] = "logits") -> Any:
        """Image (B, 3, H, W), RGB in [0, 1], to logits (B, C, H, W).

        Args:
            image: the image.
            want: what is returned. All go through this call, which is what `compile` compiles; see `features` and
                `with_features`.
        """
        height, width = image.shape[-2:]
        if want == "logits":
            return self.network(self._input(image))[..., :height, :width]
        maps = list(self._part("encoder")(self._input(image)))
        return maps if want == "maps" else (self.decode(maps, (height, width)), maps)

    def with_features(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits of an image and the encoder's maps, in one pass.

        Raises:
            ConfigError: the network is more than encoder, decoder and head in a row.
        """
        both: tuple[Tensor, list[Tensor]] = self(image, "both")
        return both

    def features(self, image: Tensor) -> list[Tensor]:
        """The encoder's maps of an image (B, 3, H, W) in [0, 1], for methods that use them beside the logits.

        Map i has stride 2^i, or less where the encoder is dilated; map 0 is usually the network's input, and some encoders
        have a map without channels at stride 2. They cover the padded image, see `padded`.

        Raises:
            ConfigError: the network is more than encoder, decoder and head in a row.
        """
        maps: list[Tensor] = self(image, "maps")
        return maps

    def padded(self, size: Sequence[int]) -> tuple[int, int]:
        """The size (H, W) of the network's input for images of the given size."""
        return size[0] + -size[0] % self.stride, size[1] + -size[1] % self.stride

    @property
    def feature_channels(self) -> list[int]:
        """The channels of each map of `features`."""
        return list(self._part("encoder").out_channels)

    def decode(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """What `forward` makes of the maps: logits (B, C, H, W).

        Args:
            features: all maps of `features`.
            size: (H, W) of the image.

        Raises:
            ConfigError: the network is more than encoder, decoder and head in a row.
        """
        logits: Tensor = self._part("segmentation_head")(self._part("decoder")(features))
        return logits[..., : size[0], : size[1]]

    def _input(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        bottom, right = -height % self.stride, -width % self.stride
        x = (image - self.mean) / self.std
        if bottom or right:
            # Replicated borders look like the image; zeros would shift the statistics of small images.
            x = F.pad(x, (0, right, 0, bottom), mode="replicate")
        return x

    def _part(self, name: str) -> Any:
        # DPT, for one, hands more than maps from encoder to decoder, in a forward of its own.
        if type(self.network).forward is not smp.base.SegmentationModel.forward:
            raise ConfigError(f"the network {type(self.network).__name__} cannot be split into encoder and decoder")
        return self.network.get_submodule(name)

    def parameters_of(self, scope: Scope) -> dict[str, nn.Parameter]:
        """Trainable parameters by name: all, those of decoder and head, or those of the head alone.

        Raises:
            ConfigError: the network has no such part.
        """
        own = {name: p for name, p in self.named_parameters() if p.requires_grad}
        head = {name: p for name, p in own.items() if name.startswith("network.segmentation_head.")}
        behind = {name: p for name, p in own.items() if not name.startswith("network.encoder.")}
        found = {"all": own, "decoder": behind, "head": head}[scope]
        if not found:
            raise ConfigError(f"the network {type(self.network).__name__} has no trainable parameters in its '{scope}'")
        return found


def create_segmenter(
    architecture: str,
    encoder: str,
    num_classes: int,
    encoder_weights: str | None = None,
    encoder_checkpoint: str | None = None,
    norm: Norm = "batch",
    options: dict[str, Any] | None = None,
) -> Segmenter:
    """Builds a segmenter by name.

    Args:
        architecture: ``deeplabv2``, ``daformer``, or a name of segmentation_models_pytorch: ``unet``, ``deeplabv3plus``,
            ``fpn``, ``segformer``, ...
        encoder: an encoder of segmentation_models_pytorch: ``resnet50``, ``mit_b2``, ``tu-convnext_tiny``, ...
        num_classes: number of logits per pixel.
        encoder_weights: pretrained weights by name (``imagenet``); they are downloaded.
        encoder_checkpoint: a local state dict for the encoder instead; loaded strictly, tensors only.
        norm: ``batch`` (as published), ``sync`` (over all processes), ``frozen`` (with fixed statistics), or ``group``.
        options: further arguments of the architecture.

    Raises:
        ConfigError: unknown names, or arguments that the architecture refuses.
        CheckpointError: the encoder checkpoint is missing or does not fit.
    """
    if architecture.lower() not in ARCHITECTURES:
        raise ConfigError(f"unknown architecture '{architecture}'{did_you_mean(architecture, ARCHITECTURES)}")
    if not encoder.startswith("tu-") and encoder not in smp.encoders.encoders:
        raise ConfigError(
            f"unknown encoder '{encoder}'{did_you_mean(encoder, smp.encoders.encoders)} (timm's are named 'tu-...')"
        )
    network_class = ARCHITECTURES[architecture.lower()]
    # Some architectures swallow any keyword: a typo must not pass silently.
    known = set(inspect.signature(network_class).parameters) - {"kwargs"}
    for option in options or {}:
        if option not in known:
            raise ConfigError(f"unknown option '{option}' of {architecture}{did_you_mean(option, known)}")
    # With a local checkpoint the downloaded weights would be overwritten.
    weights = None if encoder_checkpoint else encoder_weights
    try:
        network = network_class(encoder_name=encoder, encoder_weights=weights, classes=num_classes, **(options or {}))
    except OSError as error:  # of a download
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"cannot load the weights '{weights}' of {encoder}: {reason}; download them elsewhere and give their file as "
            "--method.encoder_checkpoint, or leave out --method.encoder_weights"
        ) from error
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"cannot build {architecture} on {encoder}: {reason}") from error
    if encoder_checkpoint:
        _load_encoder(network.encoder, Path(encoder_checkpoint), encoder)
    replace_norms(network, norm)
    mean, std = _input_statistics(encoder, encoder_weights)
    return Segmenter(network, mean, std, stride=32)


def _load_encoder(encoder: nn.Module, path: Path, name: str) -> None:
    if not path.is_file():
        raise CheckpointError(f"no encoder checkpoint at {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler and zip reader raise
        raise CheckpointError(f"{path} is not a state dict: damaged, or more than tensors and plain types") from error
    try:
        encoder.load_state_dict(content)
    except Exception as error:  # each encoder of segmentation_models_pytorch has its own `load_state_dict`
        tensors = isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values())
        reason = misfit(encoder.state_dict(), content) if tensors else "expected names and tensors alone"
        raise CheckpointError(f"{path} is not a state dict of the encoder '{name}': {reason or error}") from error


def _input_statistics(encoder: str, weights: str | None) -> tuple[list[float], list[float]]:
    # timm knows its statistics offline; for the others they are downloaded together with the weights.
    if encoder.startswith("tu-") or weights:
        try:
            params = smp.encoders.get_preprocessing_params(encoder, pretrained=weights or "imagenet")
            return list(params["mean"]), list(params["std"])
        except (ValueError, KeyError, RuntimeError):  # an encoder without any pretrained weights
            pass
    return [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
