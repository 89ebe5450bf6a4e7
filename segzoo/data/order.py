"""In which order a stream's images come, and how often each class is in them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from segzoo.data.class_counts import class_counts
from segzoo.data.domains import ImageSet
from segzoo.data.rare_classes import RareClassBatches
from segzoo.data.sampling import EndlessBatches, derived_seed, used_batches
from segzoo.data.source_batches import SourceBatches, SourceDraws
from segzoo.data.streams import Stream, StreamDataset


def training_batches(data: Any, name: str, stream: Stream, dataset: StreamDataset) -> EndlessBatches:
    """The batches of a stream, by passes or by rare classes; of several sources first by their weights.

    Args:
        data: a `segzoo.data.DomainDataModule` with a trainer, whose attributes are its options.
        name: of the stream, a part of the seed.
        stream: what the method asks for.
        dataset: its images.

    Raises:
        DataError: a label cannot be read, or there are none, where they are counted.
    """
    trainer: Any = data.trainer
    overfit = trainer.overfit_batches
    cycle = overfit if isinstance(overfit, int) and overfit > 0 else None
    place = (trainer.global_rank, trainer.world_size, partial(used_batches, trainer), cycle)
    temperature = data.rare_class_temperature

    def of_one(images: ImageSet, indices: Sequence[int], *source: str) -> EndlessBatches:
        seed = derived_seed(data.seed, name, "order", *source)
        if not stream.by_class or temperature is None:
            return EndlessBatches(len(indices), data.batch_size, seed, *place)
        counts = class_counts(images, indices, data.label_space.num_classes, progress=trainer.is_global_zero)
        return RareClassBatches(counts, temperature, data.rare_class_min_share, data.batch_size, seed, *place)

    images, indices = dataset.images, dataset.indices
    if not images.parts:
        return of_one(images, indices)
    draws, first = [], 0
    for source, part in images.parts.items():
        positions = [p for p, i in enumerate(indices) if first <= i < first + len(part)]
        if positions:
            batches = of_one(part, [indices[p] - first for p in positions], source)
            draws.append(SourceDraws(data.source_weights[source], positions, batches))
        first += len(part)
    return SourceBatches(draws, data.batch_size, derived_seed(data.seed, name, "sources"), *place)


def drawn_shares(
    images: ImageSet, indices: Sequence[int] | None, weights: Mapping[str, float], num_classes: int
) -> npt.NDArray[np.float64]:
    """The share (C,) of every class in the labelled pixels of a training, zeros where there are none.

    Args:
        images: a set with labels.
        indices: which of its images; None for all.
        weights: of the sources that it is joined from, by name, all of whose images count; {} for a single domain.
        num_classes: C.

    Raises:
        DataError: a label cannot be read.
    """
    if not weights:
        these = range(len(images)) if indices is None else indices
        return class_counts(images, these, num_classes, progress=True).frequencies
    shares = np.zeros(num_classes)
    for name, part in images.parts.items():
        shares += weights[name] * class_counts(part, range(len(part)), num_classes, progress=True).frequencies
    return shares / max(shares.sum(), np.finfo(np.float64).tiny)
