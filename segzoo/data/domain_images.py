"""The images of a source and a target domain: what there is in each split, and which of them a training may see."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segzoo.data.domains import Domain, ImageSet, JoinedImages, Split
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.order import drawn_shares
from segzoo.data.several import SeveralDomains, by_domain
from segzoo.data.splits import labelled_subset
from segzoo.data.streams import Stream, with_labels, without_labels
from segzoo.errors import ConfigError


class DomainImages:
    """What `segzoo.data.DomainDataModule` takes its batches from. Every split is read from disk once, when it is asked for.

    Args:
        source: Gives the images with labels that every method learns from; one domain, or several joined.
        target: Gives the images to learn for, and the splits that are scored.
        root: Names the folder that relative paths of both start from.
        target_labels: Limits how many labelled target images a method may see; None for all.
        labelled_order: Chooses which these are: drawn from the whole set, or the first by name.
    """

    trainer: Any

    def __init__(
        self,
        source: Domain,
        target: Domain,
        root: Path,
        target_labels: int | None,
        labelled_order: Literal["random", "sorted"],
    ) -> None:
        super().__init__()
        self.source, self.target, self.root = source, target, root
        self.target_labels, self.labelled_order = target_labels, labelled_order
        self._images: dict[tuple[str, Split], ImageSet] = {}
        self._further: list[ImageSet | None] = []

    @property
    def label_space(self) -> LabelSpace:
        """The classes that both domains share."""
        return self.target.label_space

    def images(self, domain: str, split: Split) -> ImageSet:
        """The images of one split of one domain, read from disk once."""
        if (key := (domain, split)) not in self._images:
            self._images[key] = getattr(self, domain).images(split, self.root)
        return self._images[key]

    def class_shares(self, domain: Literal["source", "target"]) -> npt.NDArray[np.float64]:
        """The share (C,) of every class in the labelled pixels that a training may see; of several sources as it draws them.

        Raises:
            DataError: a label cannot be read.
        """
        indices = self._labelled_target() if domain == "target" else None
        weights = self.source_weights if domain == "source" else {}
        return drawn_shares(self.images(domain, "train"), indices, weights, self.label_space.num_classes)

    @property
    def source_weights(self) -> dict[str, float]:
        """The weight of each of several sources by its name; {} for a single one."""
        return self.source.weights if isinstance(self.source, SeveralDomains) else {}

    @property
    def sources(self) -> dict[str, dict[str, float]]:
        """Of each of several sources the number of its training ``images`` and its ``weight``; {} for a single one."""
        parts = self.images("source", "train").parts if self.source_weights else {}
        return {name: {"images": len(part), "weight": self.source_weights[name]} for name, part in parts.items()}

    def scored(self, split: Split) -> ImageSet | None:
        """The target's images of a split to score on; None where it has no such split or no masks in it."""
        if not self.target.has_split(split, self.root):
            return None
        images = self.images("target", split)
        return images if images.has_labels else None

    def lacking(self, split: Split) -> str:
        """Why a split is not scored."""
        if self.target.has_split(split, self.root):
            return f"the target's {split} split has no masks"
        return f"the target has no {split} split (blocks, or {{split}} in its folders, make one)"

    def counts(self) -> dict[str, int]:
        """Number of images per domain and split that this run opened; of several sources also of each (``source/train: NAME``).

        ``target/labelled`` are those of the budget, ``target/unlabelled`` those that a method sees without labels; each only
        where the trainer's method uses them.
        """
        counts = {}
        for (domain, split), images in sorted(self._images.items()):
            counts[f"{domain}/{split}"] = len(images)
            counts |= {name: len(part) for name, part in by_domain(f"{domain}/{split}", images)}
        if ("target", "train") in self._images:
            module = self.trainer.lightning_module if self.trainer else None
            streams: Mapping[str, Stream] | None = getattr(module, "streams", None)
            if self.images("target", "train").has_labels and (streams is None or with_labels(streams)):
                counts["target/labelled"] = len(self._labelled_target())
            if streams and without_labels(streams):
                counts["target/unlabelled"] = len(self._unlabelled_target())
        return counts

    def further_images(self) -> ImageSet | None:
        """The target's folder of photographs that nobody labelled, beside its splits; None where there is none."""
        if not self._further:
            self._further = [self.target.unlabelled(self.root)]
        return self._further[0]

    def _method(self) -> Any:
        # The method says what it needs; without a trainer there is none to ask.
        if self.trainer is None:
            raise ConfigError("DomainDataModule needs a Trainer: pass it to trainer.fit(method, datamodule=...)")
        return self.trainer.lightning_module

    def _labelled_target(self) -> Sequence[int]:
        total = len(self.images("target", "train"))
        budget = total if self.target_labels is None else self.target_labels
        chosen = labelled_subset(total, budget)
        return range(budget) if self.labelled_order == "sorted" else [int(i) for i in chosen]

    def _unlabelled_target(self) -> ImageSet:
        """The target's training images without their labels; for a method that has the labels of some, all but those.

        Where every one of them is labelled and there are no others, they serve without their labels, too.
        """
        images, further = self.images("target", "train"), self.further_images()
        indices: Sequence[int] = range(len(images))
        if with_labels(self._method().streams):
            labelled = set(self._labelled_target())
            rest = [i for i in indices if i not in labelled]
            indices = rest or ([] if further is not None else indices)
        return JoinedImages([(images, indices), *([] if further is None else [(further, range(len(further)))])])
