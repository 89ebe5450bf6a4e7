"""What the study trains on: MiniCity, or CARLA and CamVid, with a source that is harmed and marked."""

import argparse
from typing import Any

import torch

from docs.pixel_weights.marked import Marked, MarkedData
from docs.pixel_weights.rows import area_under_curve
from segzoo.configs import config_path, config_root
from segzoo.data import MiniCity, PairedFolders
from segzoo.data.domains import Domain, Pixels
from segzoo.data.harm import Harmed, HarmedImages
from segzoo.methods.segmentation import SegmentationMethod
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


def own_confidence(method: SegmentationMethod, image: Pixels, label: Pixels) -> float:
    """The mean probability that a finished network gives to the labels of an image (H, W, 3) with labels (H, W)."""
    logits = method(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[0]
    ids = torch.from_numpy(label).long()
    valid = ids < logits.shape[0]
    own = logits.softmax(dim=0).gather(0, ids.clamp_max(logits.shape[0] - 1)[None])[0]
    return float(own[valid].mean())


@torch.no_grad()
def image_area(method: SegmentationMethod, data: MarkedData, every: int = 1) -> float | None:
    """The chance that a finished network believes the labels of an image more than those of a harmed one.

    Args:
        method: trained, in evaluation mode.
        data: its source may be harmed.
        every: takes one source image of so many.

    Returns:
        None where no image is harmed, or every one.
    """
    images: HarmedImages = data.images("source", "train").images  # type: ignore[attr-defined]
    indices = range(0, len(images), every)
    own = torch.tensor([own_confidence(method, images.image(i), images.label(i)) for i in indices])
    right = torch.tensor([i not in images.harmed for i in indices])
    return None if right.all() or not right.any() else area_under_curve(own, right)
