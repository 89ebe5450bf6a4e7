"""What segmentation_models_pytorch, timm and the hub of their weights do not document."""

import os
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlparse

import segmentation_models_pytorch as smp
from huggingface_hub import constants
from torch import nn


@contextmanager
def asking_no_absent_hub() -> Iterator[None]:
    """Where the hub's address cannot be found, weights are in the cache or an `OSError` at once, and not after a minute."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _hub_has_an_address()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _hub_has_an_address() -> bool:
    if urllib.request.getproxies():  # a proxy finds it
        return True
    try:
        socket.getaddrinfo(urlparse(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname, 443)
    except OSError:
        return False
    return True


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
