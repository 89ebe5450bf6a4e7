"""How many images a training learns from, by resource: what makes two results comparable."""

from collections.abc import Mapping, Sequence

from segzoo.data.streams import Stream, StreamDataset


def count_images(loaders: object, streams: Mapping[str, Stream], resources: Sequence[str]) -> dict[str, int | None]:
    """The number of different images behind some loaders.

    Args:
        loaders: a trainer's ``train_dataloader``: loaders by the name of their stream, or anything else.
        streams: of the method.
        resources: that the method declares: ``source``, ``labels`` and ``unlabelled``.

    Returns:
        A number per resource; None where the loaders are not those of a `segzoo.data.DomainDataModule`.
    """
    found: dict[str, set[int]] = {}
    for name, loader in loaders.items() if isinstance(loaders, Mapping) else ():
        dataset, stream = getattr(loader, "dataset", None), streams.get(name)
        if stream is not None and isinstance(dataset, StreamDataset):
            target = "labels" if stream.labelled else "unlabelled"
            resource = "source" if stream.domain == "source" else target
            found.setdefault(resource, set()).update(dataset.indices)  # parts of a set have indices of their own
    return {name: len(found[name]) if name in found else None for name in resources}
