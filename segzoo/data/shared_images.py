"""Images that are trained on and scored on: their scores say nothing of new images."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from segzoo.data.splits import evenly

SAMPLE = 64
"""Scored images of a set that are looked for."""
OF_ONE_SIZE = 4
"""Files of another name that are read for one of them: uncompressed images all have one size."""


def shared_images(trained: Mapping[str, Sequence[Path]], scored: Mapping[str, Sequence[Path]]) -> list[str]:
    """Looks for scored images among those of a training: the same files, or copies of them under whatever name.

    Args:
        trained: the image files by set, e.g. of ``target/train``.
        scored: the same of the sets that are scored.

    Returns:
        A warning for each two sets that share images.
    """
    found = []
    for name, files in trained.items():
        by_size: dict[int, list[Path]] = {}
        for file in files:
            with suppress(OSError):  # a link to nowhere: reading the image says so
                by_size.setdefault(file.stat().st_size, []).append(file)
        for other, images in scored.items():
            looked = [images[i] for i in evenly(len(images), SAMPLE)]
            shared = [(image, twin) for image in looked if (twin := _twin(image, by_size))]
            if shared:
                image, twin = shared[0]
                found.append(
                    f"{other} and {name} share images ({len(shared)} of the {len(looked)} that were looked at; {image} is "
                    f"{twin if twin != image else 'in both'}): scores on images of the training say nothing of new ones"
                )
    return found


def _twin(image: Path, by_size: Mapping[int, Sequence[Path]]) -> Path | None:
    try:
        candidates = by_size.get(image.stat().st_size, ())
        named = [file for file in candidates if file.name == image.name]
        others = [file for file in candidates if file.name != image.name]
        content = image.read_bytes() if candidates else b""
        return next((file for file in (*named, *others[:OF_ONE_SIZE]) if file.read_bytes() == content), None)
    except OSError:
        return None
