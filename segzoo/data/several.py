"""Several data sets as one domain, each with a weight: the simulators that a training learns from together."""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

from segzoo.checks import check_weight
from segzoo.data.domains import Domain, ImageSet, JoinedImages, Split
from segzoo.errors import ConfigError, DataError


class SeveralDomains(Domain):
    """Several domains with one label space; a step's images come from each by its weight, whatever its size.

    In YAML it is a list of sources, each with a ``weight`` beside its class:

        source:
          - class_path: segzoo.data.PairedFolders
            init_args: {images: carla/image, masks: carla/label, label_space: camvid11}
            weight: 2
          - class_path: segzoo.data.PairedFolders
            init_args: {images: airsim/image, masks: airsim/label, label_space: camvid11}

    Args:
        domains: Gives the data sets, two or more, each with a class_map of its own into the common label space.
        weights: Sets how often images are drawn from each, in proportion to the sum of all weights; null draws from all alike.
            (`segzoo.data.source_batches` says how.)
        name: Names them together in tables; null joins their names by a plus sign.

    Attributes:
        domains: by their names, which stand before the names of their images.
        weights: by the domain's name. A name that comes again gets a number: ``carla``, ``carla-2``.

    Raises:
        ConfigError: fewer than two domains, other label spaces, or weights that are not one number above 0 for each.
    """

    def __init__(self, domains: list[Domain], weights: list[float] | None = None, name: str | None = None) -> None:
        if len(domains) < 2:
            raise ConfigError(
                f"`data.source` lists {len(domains)} domains: several sources are two or more; of one source, give that domain "
                "itself"
            )
        for number, domain in enumerate(domains):
            if isinstance(domain, SeveralDomains):
                raise ConfigError(
                    f"`data.source[{number}]` is a list of sources itself; write its entries into one list"
                )
        weights = [1.0] * len(domains) if weights is None else list(weights)
        if len(weights) != len(domains):
            raise ConfigError(
                f"`data.source.weights` has {len(weights)} numbers for {len(domains)} sources; give each source one"
            )
        for number, weight in enumerate(weights):
            check_weight(f"`data.source[{number}].weight`", weight)
        names = _unique([domain.name for domain in domains])
        first = domains[0]
        for number, domain in enumerate(domains):
            if domain.label_space != first.label_space:
                raise ConfigError(
                    f"`data.source[{number}].label_space`: the sources must share a label space, found "
                    f"'{domain.label_space.name}' for '{names[number]}' and '{first.label_space.name}' for '{names[0]}'; give "
                    "all the same label_space and a class_map each"
                )
        self.label_space = first.label_space
        self.name = name or "+".join(names)
        self.domains = dict(zip(names, domains, strict=True))
        self.weights = dict(zip(names, (float(weight) for weight in weights), strict=True))

    def has_split(self, split: Split, root: Path) -> bool:
        """Whether one of them has it."""
        return any(domain.has_split(split, root) for domain in self.domains.values())

    def images(self, split: Split, root: Path) -> ImageSet:
        """The images of one split of all domains; of those that have it, where it is not train.

        Raises:
            DataError: see `Domain.images`; or a domain without any image to train on.
        """
        those = {
            name: domain
            for name, domain in self.domains.items()
            if split == "train" or domain.has_split(split, root) or not self.has_split(split, root)
        }
        parts = {name: domain.images(split, root) for name, domain in those.items()}
        for name, images in parts.items():
            if not len(images):
                raise DataError(f"the source '{name}' has no image in its {split} split; take it out of the list")
        return SeveralImages(parts)


class SeveralImages(JoinedImages):
    """The images of several domains, the domain's name before each name.

    Args:
        parts: the sets by the domain's name.
    """

    def __init__(self, parts: Mapping[str, ImageSet]) -> None:
        super().__init__([(images, range(len(images))) for images in parts.values()], labelled=True)
        self.parts = dict(parts)
        self.names = [f"{name}/{one}" for name, images in parts.items() for one in images.names]
        self._ends = list(accumulate(map(len, parts.values())))

    def origin(self, index: int) -> int:
        """See `ImageSet.origin`."""
        return bisect_right(self._ends, index)


def _unique(names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        again = (f"{name}-{number}" for number in range(2, len(names) + 2))
        found.append(name if name not in found else next(one for one in again if one not in found))
    return found


def by_domain(name: str, images: ImageSet) -> list[tuple[str, ImageSet]]:
    """The sets of several domains, called ``name: DOMAIN``; of a single domain the one set, called ``name``."""
    return [(f"{name}: {domain}", part) for domain, part in images.parts.items()] or [(name, images)]
