"""Segmentation networks: anything of segmentation_models_pytorch and our own, fed images in [0, 1] of any size."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import segmentation_models_pytorch as smp
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.compat.networks import architectures, asking_no_absent_hub, encoders
from segzoo.errors import ConfigError, SegzooError
from segzoo.models.daformer import DAFormer
from segzoo.models.deeplabv2 import DeepLabV2
from segzoo.models.dry_run import fitting_size, image_size, output_size
from segzoo.models.fcn8s import FCN8s
from segzoo.models.norms import Norm, replace_norms
from segzoo.models.state_dicts import load_encoder
from segzoo.suggest import did_you_mean

Scope = Literal["all", "decoder", "head"]

ARCHITECTURES: dict[str, Any] = {
    "deeplabv2": DeepLabV2,
    "daformer": DAFormer,
    "fcn8s": FCN8s,
    **{name.lower(): network_class for name, network_class in architectures().items()},
}
"""Network classes by name; all take ``encoder_name``, ``encoder_weights`` and ``classes``."""
OTHERWISE = {
    "classes": "the classes are those of the data's label space",
    "encoder_name": "the encoder is `network.encoder`",
    "encoder_weights": "its weights are `network.encoder_weights`",
    "in_channels": "images are RGB, of 3 channels",
    "activation": "losses and scores take the logits as they are",
    "aux_params": "there is no loss for a second head",
}
"""Arguments of the networks that are no options, and why."""
OTHER_STATISTICS = ("inception", "xception", "dpn")
"""Beginnings of the names of encoders that were not trained with the channel statistics of ImageNet."""
HARMLESS: dict[str, tuple[Any, ...]] = {"in_channels": (3,), "activation": (None, "identity"), "aux_params": (None,)}
"""Their values that change nothing."""


class Segmenter(nn.Module):
    """A network with normalisation in front, padding around, and logits of the image's own size.

    ``mean`` and ``std`` are part of the state dict: weights work with the statistics that they were trained with alone. Whoever
    moves ``segmenter.network`` into a plain network of segmentation_models_pytorch feeds it ``(image - mean) / std``, with
    sides that are multiples of ``stride``.

    Args:
        network: maps (B, 3, H, W) to (B, C, H, W) for H and W divisible by ``stride``.
        mean: channel means of the network's training images, RGB in [0, 1].
        std: channel standard deviations.
        stride: side lengths are padded to multiples of it.
        origin: what messages call the network; its class when None.
        upsampling: the factor of its last upsampling, if that is an option.
    """

    LATE: ClassVar[tuple[str, ...]] = ("mean", "std")
    """Entries that the state dicts of earlier versions lack; the segmenter's own stay."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: list[float],
        std: list[float],
        stride: int,
        origin: str | None = None,
        upsampling: float | None = None,
    ) -> None:
        super().__init__()
        self.network, self.stride = network, stride
        self.origin, self.upsampling = origin or f"the network {type(network).__name__}", upsampling
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.register_load_state_dict_pre_hook(_keep_late_entries)  # type: ignore[no-untyped-call]

    def __call__(self, image: Tensor, *args: Any, **kwargs: Any) -> Any:
        """See `forward`.

        Raises:
            ConfigError: the network does not take images of this size.
        """
        try:
            return super().__call__(image, *args, **kwargs)
        except (SegzooError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever the code of a network raises; most expect some size, and do not say so
            if why := self.refusal(image.shape[-2:]):
                raise ConfigError(why) from error
            raise

    def forward(self, image: Tensor, want: Literal["logits", "maps", "both"] = "logits") -> Any:
        """Image (B, 3, H, W), RGB in [0, 1], to logits (B, C, H, W).

        Args:
            image: the image.
            want: what is returned. All go through this call, which is what `compile` compiles; see `features` and
                `with_features`.

        Raises:
            ConfigError: the network makes logits of another size than its input's.
        """
        size = image.shape[-2:]
        if want == "logits":
            return self._cropped(self.network(self._input(image)), size)
        maps = list(self._part("encoder")(self._input(image)))
        return maps if want == "maps" else (self.decode(maps, size), maps)

    def refusal(self, size: Sequence[int], option: str = "") -> str | None:
        """Why the network does not take images of a size (H, W): one line that says what would fit, or None.

        Nothing is computed where that can be avoided.

        Args:
            size: (H, W) of the images.
            option: where the size comes from.
        """
        padded = self.padded(size)
        try:
            found = output_size(self.network, padded)
        except Exception as error:  # whatever the code of a network raises
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            other = fitting_size(self.network, padded, self.stride)
            if other is None:
                return f"{self.origin} does not work, whatever the size of the images: {reason}"
            where = f"{option}, height and width" if option else "height, width"
            fits = f"{other[0]} {other[1]} would fit"
            return f"{self.origin} cannot take images of {size[0]} {size[1]} ({where}): {reason}; {fits}"
        return None if found == padded else self._other_size(found, padded)

    def check_sizes(self, sizes: Mapping[str, Sequence[int]]) -> None:
        """Refuses a network that does not take the images it will get, before anything is spent.

        Args:
            sizes: (H, W) by the option that they come from.

        Raises:
            ConfigError: see there.
        """
        seen = set()
        for option, size in sizes.items():
            if (padded := self.padded(size)) in seen:
                continue
            seen.add(padded)
            if why := self.refusal(size, option):
                raise ConfigError(why)

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

    def deepest_channels(self, count: int) -> list[int]:
        """The channels of the last ``count`` maps of `features`, for networks that read them.

        Raises:
            ConfigError: there are fewer, or some without channels.
        """
        channels = self.feature_channels[-count:]
        if len(channels) < count or not all(channels):
            raise ConfigError(
                f"the encoder of {self.origin} makes maps of {self.feature_channels} channels; expected the last {count} to "
                "have some: use another `network.encoder` or a larger encoder_depth in `network.options`"
            )
        return channels

    def decode(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """What `forward` makes of the maps: logits (B, C, H, W).

        Args:
            features: all maps of `features`.
            size: (H, W) of the image.

        Raises:
            ConfigError: the network is more than encoder, decoder and head in a row.
        """
        return self._cropped(self._part("segmentation_head")(self._part("decoder")(features)), size)

    def _cropped(self, logits: Any, size: Sequence[int]) -> Tensor:
        """Logits of the padded image to those of the image: of another size they would be those of other pixels."""
        padded = self.padded(size)
        if not isinstance(logits, Tensor) or logits.shape[-2:] != padded:
            raise ConfigError(self._other_size(image_size(logits), padded))
        return logits[..., : size[0], : size[1]]

    def _other_size(self, found: Sequence[int], padded: Sequence[int]) -> str:
        made = (
            f"{self.origin} makes logits of {found[0]} {found[1]} (height, width) of an input of {padded[0]} {padded[1]}; "
            "expected the input's size"
        )
        if self.upsampling is None or not all(found) or found[0] * padded[1] != found[1] * padded[0]:
            return made
        factor = max(self.upsampling, 1) * padded[0] / found[0]
        whole = factor == round(factor)
        return f"{made}, as with `network.options` {{upsampling: {factor:.0f}}}" if whole else made

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


def _keep_late_entries(segmenter: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    assert isinstance(segmenter, Segmenter)
    for name in segmenter.LATE:
        state_dict.setdefault(f"{prefix}{name}", getattr(segmenter, name))


def check_names(architecture: str, encoder: str) -> None:
    """Refuses names of networks that do not exist.

    Raises:
        ConfigError: one of them is unknown.
    """
    if architecture.lower() not in ARCHITECTURES:
        raise ConfigError(
            f"unknown architecture '{architecture}'{did_you_mean(architecture.replace('+', 'plus'), ARCHITECTURES)}"
        )
    if not encoder.startswith("tu-") and encoder not in encoders():
        raise ConfigError(f"unknown encoder '{encoder}'{did_you_mean(encoder, encoders())} (timm's are named 'tu-...')")


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
        architecture: ``deeplabv2``, ``daformer``, ``fcn8s``, or a name of segmentation_models_pytorch: ``unet``,
            ``deeplabv3plus``, ``fpn``, ``segformer``, ...
        encoder: an encoder of segmentation_models_pytorch: ``resnet50``, ``mit_b2``, ``tu-convnext_tiny``, ...
        num_classes: number of logits per pixel.
        encoder_weights: pretrained weights by name (``imagenet``); they are downloaded.
        encoder_checkpoint: a local state dict for the encoder instead; loaded strictly, tensors only.
        norm: ``batch`` (as published), ``sync`` (over all processes), ``frozen`` (with fixed statistics), or ``group``.
        options: further arguments of the architecture.

    Raises:
        ConfigError: unknown names, arguments that the architecture refuses, or that this class has no use for.
        CheckpointError: the encoder checkpoint is missing or does not fit.
    """
    check_names(architecture, encoder)
    if encoder.startswith("tu-") and encoder_weights not in (None, "imagenet"):
        # smp would take any text for timm's own weights.
        raise ConfigError(
            f"`network.encoder_weights` {encoder_weights}: {encoder} has imagenet, or null for random ones"
        )
    if encoder_weights and Path(encoder_weights).suffix in (".pt", ".pth", ".ckpt", ".safetensors"):
        raise ConfigError(
            f"`network.encoder_weights` {encoder_weights} is a file, and a name such as imagenet is expected: give the file as "
            "`network.encoder_checkpoint`"
        )
    network_class, options = ARCHITECTURES[architecture.lower()], options or {}
    _check_options(architecture, network_class, options)
    # With a local checkpoint the downloaded weights would be overwritten.
    weights: str | bool | None = None if encoder_checkpoint else encoder_weights
    if weights and encoder.startswith("tu-"):
        weights = True  # which ones is a part of timm's names
    try:
        with asking_no_absent_hub():
            network = network_class(encoder_name=encoder, encoder_weights=weights, classes=num_classes, **options)
    except OSError as error:  # of a download
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        if "locate the file on the Hub" in reason:
            reason = "they are not in the cache, and the hub of weights cannot be reached"
        raise ConfigError(
            f"cannot load the weights '{encoder_weights}' of {encoder}: {reason}; download them elsewhere and give the file as "
            "`network.encoder_checkpoint`, or begin with random ones: `network.encoder_weights` null"
        ) from error
    except SegzooError:
        raise
    except Exception as error:  # whatever the code of a network makes of the values
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"cannot build {architecture} on {encoder}: {reason}") from error
    if encoder_checkpoint:
        load_encoder(network.encoder, Path(encoder_checkpoint), encoder)
    replace_norms(network, norm)
    own = getattr(network, "input_statistics", None)
    mean, std = own or _input_statistics(encoder, encoder_weights, local=bool(encoder_checkpoint))
    origin = f"{architecture} on {encoder}" + (f" with `network.options` {_spelled(options)}" if options else "")
    return Segmenter(network, mean, std, 32, origin, _upsampling(network_class, options))


def _check_options(architecture: str, network_class: Any, options: Mapping[str, Any]) -> None:
    # Some architectures swallow any keyword: a typo must not pass silently.
    known = set(inspect.signature(network_class).parameters) - {"kwargs"} - OTHERWISE.keys()
    for option, value in options.items():
        if not isinstance(option, str):
            raise ConfigError(f"`network.options`: {option!r} is no name of an option of {architecture}")
        if option in OTHERWISE:
            if not any(value == harmless for harmless in HARMLESS.get(option, ())):
                raise ConfigError(
                    f"`network.options`: '{option}' of {architecture} cannot be set: {OTHERWISE[option]}; leave it out"
                )
        elif option not in known:
            raise ConfigError(f"unknown option '{option}' of {architecture}{did_you_mean(option, known)}")


def _upsampling(network_class: Any, options: Mapping[str, Any]) -> float | None:
    """The factor of the last upsampling, where it is an option."""
    parameters = inspect.signature(network_class).parameters
    if "upsampling" not in parameters:
        return None
    values = {name: options.get(name, parameters[name].default) for name in parameters}
    factor = values["upsampling"]
    if factor is None:  # DeepLabV3 names the one by the other
        factor = values.get("encoder_output_stride")
    return float(factor) if isinstance(factor, int | float) else None


def _spelled(options: Mapping[str, Any]) -> str:
    """Options as a user writes them: {encoder_depth: 4}."""
    text: str = yaml.safe_dump(dict(options), default_flow_style=True, sort_keys=False, width=1000)
    return text.strip()


def _input_statistics(encoder: str, weights: str | None, local: bool) -> tuple[list[float], list[float]]:
    # timm knows its statistics offline; for the others they are downloaded together with the weights.
    if encoder.startswith("tu-") or weights:
        try:
            with asking_no_absent_hub():
                params = smp.encoders.get_preprocessing_params(encoder, pretrained=weights or "imagenet")
            return list(params["mean"]), list(params["std"])
        except OSError as error:
            if not local or encoder.startswith(OTHER_STATISTICS):
                raise ConfigError(
                    f"cannot load the input statistics of the weights '{weights}' of {encoder}: no network; with "
                    "`network.encoder_weights` null they are those of ImageNet"
                ) from error
        except (ValueError, KeyError, RuntimeError):  # an encoder without any pretrained weights
            pass
    return [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
