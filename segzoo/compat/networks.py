"""What segmentation_models_pytorch and timm do not document of their networks."""

from collections.abc import Mapping
from typing import Any

import segmentation_models_pytorch as smp
from torch import nn


def architectures() -> Mapping[str, Any]:
    """The classes of segmentation_models_pytorch by their names in lower case."""
    found: Mapping[str, Any] = smp.MODEL_ARCHITECTURES_MAPPING
    return found


def encoders() -> Mapping[str, Mapping[str, Any]]:
    """What segmentation_models_pytorch knows of each of its own encoders; timm's are not among them."""
    found: Mapping[str, Mapping[str, Any]] = smp.encoders.encoders
    return found


def pretrained_names(encoder: str) -> list[str]:
    """The names of the weights that one of the `encoders` can start from."""
    return list(encoders().get(encoder, {}).get("pretrained_settings", {}))


def norm_tail(norm: nn.Module) -> list[nn.Module]:
    """What timm's batch norms do behind the normalisation: a dropout and an activation. Of other norms nothing."""
    return [layer for layer in (getattr(norm, "drop", None), getattr(norm, "act", None)) if layer is not None]
