"""The smallest data, networks and trainers that exercise everything."""

import dataclasses
import inspect
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch

from segzoo.data import DomainDataModule, MiniCity
from segzoo.methods.loss import Loss
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.registry import load_method, methods
from segzoo.methods.speed import Speed
from segzoo.models.network import Network

SIZE = (32, 64)
METHODS = sorted(methods())
SECTIONS: dict[str, Any] = {"network": Network, "optimizer": Optimizer, "loss": Loss, "speed": Speed}
NETWORK: dict[str, Any] = {
    "architecture": "unet",
    "encoder": "tu-test_resnet",
    "encoder_weights": None,
    "options": {"decoder_channels": [16, 16, 8, 8, 8]},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "gan": {
        "generator": "stylegan2",
        "generator_options": {"z_dim": 8, "w_dim": 8, "resolution": 8, "channel_base": 64, "mapping_layers": 1},
        "critic_width": 4,
    },
    "gradient-annotator": {"annotator_width": 8},
    "metapix": {"weight_width": 4},
    "sepico": {"contrast_start": 0, "projection_dim": 8},
}
"""Settings that keep a method small; everything else is its default."""


def data(**options: Any) -> DomainDataModule:
    """MiniCity with 8 source and 8 target images, 4 of them labelled."""
    domains = {d: options.pop(d, None) or MiniCity(d, train=8, val=2, test=3, size=SIZE) for d in ("source", "target")}
    settings = {"size": SIZE, "batch_size": 2, "target_labels": 4, "num_workers": 0, "name": "tiny"}
    return DomainDataModule(**domains, **(settings | options))


def method(slug: str, **options: Any) -> Any:
    """A method on a small network; the same weights at every call.

    Args:
        slug: its name.
        options: its own options, and those of the dataclasses `Network`, `Optimizer`, `Loss` and `Speed` without their section.
    """
    torch.manual_seed(0)
    cls, sections, own = load_method(slug), sectioned(options), dict(OPTIONS.get(slug, {}))
    own |= sections.pop("method")
    if "network" in inspect.signature(cls).parameters:
        sections["network"] = NETWORK | sections["network"]
    else:  # it has no segmenter
        sections.pop("network")
        sections.pop("loss")
    return cls(label_space=MiniCity("target", size=SIZE).label_space, **sections, **own)


def sectioned(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Options by their section: ``lr`` is the optimiser's, ``norm`` the network's, others are the method's."""
    sections: dict[str, dict[str, Any]] = {"network": {}, "optimizer": {}, "loss": {}, "speed": {}, "method": {}}
    fields = {f.name: name for name, cls in SECTIONS.items() for f in dataclasses.fields(cls) if f.name != "name"}
    for name, value in options.items():
        if name in SECTIONS and isinstance(value, dict):
            sections[name] |= value
        else:
            sections[fields.get(name, "method")][name] = value
    return sections


def trainer(steps: int, **options: Any) -> L.Trainer:
    """A trainer that writes nothing."""
    settings: dict[str, Any] = {
        "max_steps": steps,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        "use_distributed_sampler": False,
        "log_every_n_steps": 1,
        "default_root_dir": str(Path(tempfile.gettempdir()) / "segzoo-tests"),  # of what a run leaves when it fails
    }
    return L.Trainer(**(settings | options))


def fit(
    slug: str,
    steps: int = 2,
    *,
    data_options: dict[str, Any] | None = None,
    trainer_options: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Trains a tiny method and returns it."""
    L.seed_everything(0, verbose=False)
    trained = method(slug, **options)
    trainer(steps, **(trainer_options or {})).fit(trained, datamodule=data(**(data_options or {})))
    return trained
