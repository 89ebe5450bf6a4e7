"""What the study trains on: MiniCity, or CARLA and CamVid, with a source that is harmed and marked."""

import argparse
from typing import Any

from docs.pixel_weights.marked import Marked, MarkedData
from segzoo.configs import config_path, config_root
from segzoo.data import MiniCity, PairedFolders
from segzoo.data.domains import Domain
from segzoo.data.harm import Harmed
from segzoo.yaml_files import read_yaml

EXCHANGED = {"minicity": ("road", "building"), "carla_to_camvid": ("Road", "Pavement")}
"""The classes that the harm `exchanged` swaps."""
PHOTOGRAPHS = {
    "network": {"encoder_weights": None},
    "methods": {"metapix": {"method": {"weight_width": 8, "weight_lr": 1e-2}}},
}
"""What differs from segzoo's defaults for photographs: a few hundred steps have the weight network of MiniCity."""


def read_config(name: str) -> dict[str, Any]:
    """The options that a run with this data has: those of its file over those of all runs."""
    own = read_yaml(config_path("data", name))
    base = read_yaml(config_root() / "base.yaml") | PHOTOGRAPHS
    return {key: own.get(key, base.get(key, {})) for key in ("data", "network", "optimizer", "loss", "methods")}


def domains(name: str, data: dict[str, Any], size: tuple[int, int], flaws: float) -> tuple[Domain, Domain]:
    """Source and target."""
    if name == "minicity":
        return MiniCity("source", size=size, flaws=flaws), MiniCity("target", size=size)
    source, target = (PairedFolders(**data[domain]["init_args"]) for domain in ("source", "target"))
    return source, target


def make_data(config: dict[str, Any], seed: int, arguments: argparse.Namespace) -> MarkedData:
    """The pair of domains, its source harmed and marked.

    Args:
        config: of `read_config`.
        seed: of the order and the augmentation of the images.
        arguments: the options of `docs.pixel_weights.study`.
    """
    height, width = arguments.size
    options = {key: value for key, value in config["data"].items() if key not in ("source", "target", "root")}
    options |= {"target_labels": arguments.labels, "num_workers": 0}
    if arguments.data == "minicity":
        options["size"] = (height, width)
    else:  # the images have one size; that of the study is what a training sees of them
        options |= {"root": str(arguments.root), "crop_size": (height, width)}
    source, target = domains(arguments.data, config["data"], (height, width), arguments.flaws)
    pair = EXCHANGED[arguments.data] if arguments.kind == "exchanged" else None
    harmed = Marked(Harmed(source, arguments.harm, arguments.kind, classes=pair))
    return MarkedData(harmed, target, seed=seed, **options)
