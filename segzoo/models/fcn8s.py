"""FCN-8s (Long et al., CVPR 2015) on VGG as MetaPix has it: resized scores of three depths, one or two stems."""

from collections.abc import Mapping, Sequence
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model_weights

from segzoo.errors import ConfigError
from segzoo.models.stems import DomainConv2d

PUBLISHED_CHANNELS = 4096
CAFFE_MEAN = (122.679, 116.669, 104.007)
"""Of red, green and blue in 0..255."""

Depths = tuple[Tensor, Tensor, Tensor]
"""Maps at strides 8, 16 and 32 (the last one smaller where fc6 is not padded)."""


class FCN8s(smp.base.SegmentationModel):  # type: ignore[misc]
    """VGG, its classifier as convolutions (fc6, fc7), and scores at strides 32, 16 and 8 that are resized and added.

    Args:
        encoder_name: a VGG of segmentation_models_pytorch; published: vgg16, which has no batch norm.
        encoder_weights: pretrained weights by name, or None; fc6 and fc7 of 4096 channels then come from the classifier.
        classes: number of logits per pixel.
        stems: 2 (published) for first layers (two convolutions) of their own for source images, or 1.
        fc_channels: channels of fc6 and fc7.
        fc_padding: of fc6 (7x7): 3 leaves its map in place; 0 (published) makes it smaller by six, to be stretched again.
        dropout: of whole channels behind fc6 and fc7.
        bgr: feed blue, green and red of 0 to 255 less their mean, undivided, as published; the weights expect another scale.

    Raises:
        ConfigError: another encoder, or another number of stems.
    """

    def __init__(
        self,
        encoder_name: str = "vgg16",
        encoder_weights: str | None = None,
        classes: int = 1,
        stems: int = 1,
        fc_channels: int = PUBLISHED_CHANNELS,
        fc_padding: int = 3,
        dropout: float = 0.5,
        bgr: bool = False,
    ) -> None:
        super().__init__()
        if not encoder_name.startswith("vgg"):
            raise ConfigError(
                f"`network.encoder` {encoder_name}: fcn8s is built on a vgg of segmentation_models_pytorch; use vgg16"
            )
        if stems not in (1, 2):
            raise ConfigError(f"`network.options`: stems of fcn8s is {stems}, expected 1, or 2 for one per domain")
        self.encoder = smp.encoders.get_encoder(encoder_name, weights=encoder_weights)
        if stems == 2:
            _split_stem(self.encoder.features)
        self.input_statistics: tuple[list[float], list[float]] | None = None
        if bgr:
            self.input_statistics = [value / 255 for value in CAFFE_MEAN], [1 / 255] * 3
            self.encoder.register_forward_pre_hook(_reversed_channels)
        channels = self.encoder.out_channels
        self.decoder = Classifier(channels[-1], fc_channels, fc_padding, dropout)
        if encoder_weights and fc_channels == PUBLISHED_CHANNELS:
            # segmentation_models_pytorch leaves the classifier out.
            weights: Any = get_model_weights(encoder_name)
            self.decoder.load_classifier(weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True))
        self.segmentation_head = nn.Sequential(
            FusedScores((channels[2], channels[3], fc_channels), classes),
            nn.Upsample(scale_factor=8, mode="bilinear", align_corners=True),
        )
        self.classification_head = None


class Classifier(nn.Module):
    """The classifier of VGG as convolutions over its last map; the maps behind pool3 and pool4 pass by.

    Args:
        inputs: channels of the last map.
        channels: of fc6 and fc7.
        padding: of fc6.
        dropout: of whole channels.
    """

    def __init__(self, inputs: int, channels: int, padding: int, dropout: float) -> None:
        super().__init__()
        self.fc6 = nn.Conv2d(inputs, channels, 7, padding=padding)
        self.fc7 = nn.Conv2d(channels, channels, 1)
        self.drop6, self.drop7 = nn.Dropout2d(dropout), nn.Dropout2d(dropout)

    def forward(self, features: Sequence[Tensor]) -> Depths:
        """The encoder's maps, of which those of strides 4 and 8 lie before pool3 and pool4."""
        x = self.drop6(F.relu(self.fc6(features[5])))
        x = self.drop7(F.relu(self.fc7(x)))
        return F.max_pool2d(features[2], 2), F.max_pool2d(features[3], 2), x

    @torch.no_grad()
    def load_classifier(self, state: Mapping[str, Tensor]) -> None:
        """Takes fc6 and fc7 over from the linear layers of torchvision's VGG, by its names."""
        for layer, name in ((self.fc6, "classifier.0"), (self.fc7, "classifier.3")):
            assert layer.bias is not None
            layer.weight.copy_(state[f"{name}.weight"].view_as(layer.weight))
            layer.bias.copy_(state[f"{name}.bias"])


class FusedScores(nn.Module):
    """A 1x1 classifier per depth, resized to the next and added.

    Args:
        inputs: channels at strides 8, 16 and 32.
        classes: number of logits.
    """

    def __init__(self, inputs: Sequence[int], classes: int) -> None:
        super().__init__()
        self.score_pool3, self.score_pool4, self.score = (nn.Conv2d(channels, classes, 1) for channels in inputs)
        for pool in (self.score_pool3, self.score_pool4):  # published: the finer depths begin with nothing to say
            nn.init.zeros_(pool.weight)
            assert pool.bias is not None
            nn.init.zeros_(pool.bias)

    def forward(self, depths: Depths) -> Tensor:
        """Logits (B, C, H / 8, W / 8)."""
        pool3, pool4, deepest = depths
        total = self.score(deepest)
        for scores in (self.score_pool4(pool4), self.score_pool3(pool3)):
            total = scores + F.interpolate(total, scores.shape[-2:], mode="bilinear", align_corners=True)
        return total


def _split_stem(features: nn.Sequential) -> None:
    for number, layer in enumerate(features):
        if isinstance(layer, nn.MaxPool2d):
            return
        if isinstance(layer, nn.Conv2d):
            features[number] = DomainConv2d.of(layer)


def _reversed_channels(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return args[0].flip(1), *args[1:]
