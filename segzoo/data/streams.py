"""The streams of training images a method asks for, and the torch data set behind each."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import albumentations as A
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from segzoo.data.domains import ImageSet, Pixels
from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.data.permutation import permutation
from segzoo.data.sampling import Key, derived_seed
from segzoo.data.transforms import CropRule
from segzoo.errors import ConfigError

Batch = dict[str, Any]
"""``image`` (B, 3, H, W) float32 RGB in [0, 1]; ``label`` (B, H, W) int64, 255 ignored, absent without labels; ``name``;
``reference`` (B, 3, H, W) for streams that ask for it; ``counted`` (B,) bool where some images of an evaluation are not;
``origin`` (B,) int64 in training on several domains, the position of each image's domain among them. An evaluation in several
views has, as ``image``, lists of inputs (3, h, w) uint8 of an image, see `segzoo.data.views.Views`, and labels of uint8."""


@dataclass(frozen=True)
class Stream:
    """What one entry of a training batch holds.

    Attributes:
        domain: which images.
        labelled: whether the method sees their labels. Labelled target images are those of the budget, unlabelled ones all.
        part: the share of them to draw from, as the two ends of an interval of [0, 1]; disjoint parts share no image.
        whole: images come resized, mirrored, jittered and blurred but not cropped, for a method that crops by itself.
        reference: each image comes with its reference image, transformed by the same draws.
        by_class: images are drawn by the rare classes that they hold, as the DataModule's rare-class options say
            (`segzoo.data.rare_classes`).

    Raises:
        ConfigError: images that are drawn by class without their labels.
    """

    domain: Literal["source", "target"]
    labelled: bool = True
    part: tuple[float, float] = (0.0, 1.0)
    whole: bool = False
    reference: bool = False
    by_class: bool = False

    def __post_init__(self) -> None:
        if self.by_class and not self.labelled:
            raise ConfigError(f"rare-class sampling of the {self.domain} images needs their labels")

    def select(self, indices: Sequence[int]) -> list[int]:
        """The images of this part, a fixed random choice: each part has images from all over a drive."""
        order = permutation(len(indices), len(indices))
        first, last = (round(end * len(indices)) for end in self.part)
        return [indices[i] for i in sorted(order[first:last])]


def with_labels(streams: Mapping[str, Stream]) -> bool:
    """Whether one of the streams gives target labels."""
    return any(stream.domain == "target" and stream.labelled for stream in streams.values())


def usual_streams(resources: Collection[str]) -> dict[str, Stream]:
    """What methods with these resources ask for, by name: ``source``, ``target`` and, beside target labels, ``unlabelled``."""
    found = {"source": Stream("source")} if "source" in resources else {}
    if "labels" in resources:
        found["target"] = Stream("target")
    if "unlabelled" in resources:
        found["unlabelled" if "target" in found else "target"] = Stream("target", labelled=False)
    return found


def without_labels(streams: Mapping[str, Stream]) -> bool:
    """Whether one of the streams gives target images without their labels."""
    return any(stream.domain == "target" and not stream.labelled for stream in streams.values())


class StreamDataset(Dataset[Batch]):
    """Transformed samples, drawn per (seed, stream, epoch, index): neither workers nor resuming change them.

    With rare-class sampling the number of the draw stands for the epoch, and the key has a class for the crop to hold.

    Args:
        images: where the pixels come from.
        indices: which of them.
        transform: an albumentations pipeline.
        seed: seed of the transform's draws.
        name: the stream's name, a part of the seed.
        labelled: whether labels are read at all.
        reference: whether reference images are.
        rule: which crops of a labelled image will do.
    """

    def __init__(
        self,
        images: ImageSet,
        indices: Sequence[int],
        transform: A.Compose,
        seed: int,
        name: str,
        labelled: bool,
        reference: bool,
        rule: CropRule,
    ) -> None:
        self.images, self.indices, self.transform = images, indices, transform
        self.seed, self.name, self.rule = seed, name, rule
        self.labelled, self.reference = labelled, reference

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: Key) -> Batch:
        epoch, position, *rare_class = key
        index = self.indices[position]
        self.transform.set_random_seed(derived_seed(self.seed, self.name, epoch, index))
        # What belongs together is transformed together, with one draw.
        parts: dict[str, Any] = {"image": self.images.image(index)}
        if self.reference:
            parts["reference"] = self.images.reference(index)
        if self.labelled:
            rule = replace(self.rule, rare_class=rare_class[0]) if rare_class else self.rule
            parts |= {"mask": self.images.label(index), "rule": rule}
        done = self.transform(**parts)
        sample = _sample(done["image"], done.get("mask"), self.images.names[index])
        if self.images.parts:
            sample["origin"] = torch.tensor(self.images.origin(index))
        return sample | ({"reference": image_tensor(done["reference"])} if self.reference else {})


class EvaluationDataset(Dataset[Batch]):
    """Images resized to the network's input, labels at their native size.

    Args:
        images: where the pixels come from.
        resize: an albumentations pipeline for the image alone.
        indices: which of them.
        padding: how many of the last ones are not counted: their labels are void.
        inputs: makes the inputs (h, w, 3) of an image at its own size, which come instead of the resized image.
    """

    def __init__(
        self,
        images: ImageSet,
        resize: A.Compose,
        indices: Sequence[int],
        padding: int = 0,
        inputs: Callable[[Pixels], list[Pixels]] | None = None,
    ) -> None:
        self.images, self.resize, self.indices, self.padding = images, resize, indices, padding
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Batch:
        index = self.indices[position]
        label = self.images.label(index) if self.images.has_labels else None
        counted = position < len(self) - self.padding
        if label is not None and not counted:
            label = np.full_like(label, IGNORE_INDEX)
        image, name = self.images.image(index), self.images.names[index]
        if self.inputs is None:
            sample = _sample(self.resize(image=image)["image"], label, name)
        else:  # the label stays a byte per pixel, as photographs may be large
            sample = {"image": [channels_first(one) for one in self.inputs(image)], "name": name}
            if label is not None:
                sample["label"] = torch.from_numpy(np.ascontiguousarray(label))
        return sample | ({"counted": torch.tensor(counted)} if self.padding else {})


def collate(samples: list[Batch]) -> Batch:
    """Stacks samples; labels of different sizes and lists of inputs stay a list."""
    images = [s["image"] for s in samples]
    batch: Batch = {"image": images if isinstance(images[0], list) else torch.stack(images)}
    batch["name"] = [s["name"] for s in samples]
    for part in ("reference", "counted", "origin"):
        if part in samples[0]:
            batch[part] = torch.stack([s[part] for s in samples])
    if "label" in samples[0]:
        labels = [s["label"] for s in samples]
        same = all(label.shape == labels[0].shape for label in labels)
        batch["label"] = torch.stack(labels) if same else labels
    return batch


def image_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 RGB to (3, H, W) float32 in [0, 1]."""
    return channels_first(image).float() / 255


def channels_first(image: np.ndarray) -> Tensor:
    """(H, W, 3) to (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _sample(image: np.ndarray, label: np.ndarray | None, name: str) -> Batch:
    sample: Batch = {"image": image_tensor(image), "name": name}
    if label is not None:
        sample["label"] = torch.from_numpy(np.ascontiguousarray(label)).long()
    return sample
