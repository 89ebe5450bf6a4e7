"""What the options of the DataModule may be."""

import math
from typing import Any

from segzoo.checks import check_range
from segzoo.data.domains import Domain, ImageSet
from segzoo.data.several import SeveralDomains
from segzoo.data.streams import Stream
from segzoo.errors import ConfigError

RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("batch_size", "eval_batch_size"), (1, math.inf)),
    **dict.fromkeys(("ignore_top", "ignore_bottom", "rare_class_min_crop_ratio"), (0, math.inf)),
    **dict.fromkeys(("color_jitter", "blur", "crop_max_class_share", "rare_class_min_share"), (0, 1)),
}
"""Smallest and largest value of the options that are single numbers."""


def check_domains(source: Domain, target: Domain) -> None:
    """Refuses domains that do not go together.

    Raises:
        ConfigError: several targets, other label spaces, or a label space of one class.
    """
    if isinstance(target, SeveralDomains):
        raise ConfigError(
            f"`data.target` lists {len(target.domains)} domains, and only `data.source` may be several; name the one "
            "that is learned for and scored"
        )
    if source.label_space != target.label_space:
        raise ConfigError(
            f"source and target must share a label space, found '{source.label_space.name}' and "
            f"'{target.label_space.name}'; give both the same label_space and a class_map each"
        )
    if target.label_space.num_classes < 2:
        raise ConfigError(
            f"label space '{target.label_space.name}' has the one class '{target.label_space.classes[0]}', and there is "
            "nothing to tell it from; add the background as a class of its own"
        )


def check_options(data: Any) -> None:
    """Refuses options outside their ranges, and crops that do not fit.

    Args:
        data: a `segzoo.data.DomainDataModule`, whose attributes are its options.

    Raises:
        ConfigError: such an option.
    """
    sizes = {"size": data.size, "crop_size": data.crop_size or data.size}
    for option, size in (sizes | {f"{domain}_size": size for domain, size in data.train_sizes.items()}).items():
        check_range(f"`data.{option}` (height, width)", min(size), 1)
    if data.rare_class_temperature is not None:
        check_range("`data.rare_class_temperature`", data.rare_class_temperature, 1e-9)
    if data.num_workers is not None:
        check_range("`data.num_workers`", data.num_workers, 0)
    for option, (least, most) in RANGES.items():
        check_range(f"`data.{option}`", getattr(data, option), least, most)
    low, high = data.crop_scale
    if not 0 < low <= high <= 1:
        raise ConfigError(
            f"`data.crop_scale` {low} {high}: expected the smallest and the largest share of an image's area, above 0 "
            "and at most 1"
        )
    if data.crop_max_class_share < 1 and data.crop_size is None and low == 1:
        raise ConfigError(
            f"`data.crop_max_class_share` {data.crop_max_class_share} chooses among crops but there are none: set "
            "`data.crop_size`, or a `data.crop_scale` below 1"
        )
    height, width = data.crop_size or (1, 1)
    for domain, size in data.train_sizes.items():
        if height > size[0] or width > size[1]:
            raise ConfigError(
                f"`data.crop_size` {height} {width} does not fit into {domain} images of {size[0]} {size[1]} (height, "
                f"width); make it smaller or `data.{domain}_size` larger"
            )


def check_stream(stream: Stream, images: ImageSet, target_labels: int | None, divided: bool) -> None:
    """Refuses images that lack what a method wants of them.

    Args:
        stream: what it wants.
        images: where the stream takes it from.
        target_labels: the budget.
        divided: whether there is a train split of the domain.

    Raises:
        ConfigError: no labels or reference images, or a budget of none.
    """
    if stream.domain == "target" and stream.labelled and target_labels == 0:
        raise ConfigError(
            "this method learns from target labels but `data.target_labels` is 0; "
            "give it some, or choose a method without target labels (`segzoo methods`)"
        )
    if stream.labelled and not images.has_labels:
        without = [name for name, part in images.parts.items() if not part.has_labels]
        if without:
            raise ConfigError(
                f"this method learns from {stream.domain} labels but the source '{without[0]}' has no masks; give it masks, or "
                "take it out of the list `data.source`"
            )
        wanted = f"this method learns from {stream.domain} labels but the {stream.domain} domain has no "
        remedy = f"masks; set `data.{stream.domain}.masks`"
        if not divided:
            remedy = (
                "train split; put labelled images into train/ beside its other folders, or name the folder that has them in "
                f"`data.{stream.domain}.split_folders` (train: FOLDER)"
            )
        raise ConfigError(f"{wanted}{remedy}, or choose a method without target labels (`segzoo methods`)")
    if stream.reference and not images.has_references:
        raise ConfigError(
            f"`method.night` asks for a reference image of every {stream.domain} image and there are none; set "
            f"`data.{stream.domain}.references` to their folder, or leave the option out"
        )
