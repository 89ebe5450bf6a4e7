"""Which photographs are turned upright, as their EXIF orientation says: those whose masks were drawn on the turned ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from segzoo.data.domains import ImageSet
from segzoo.data.image_files import drawn_upright, sizes_of, turned
from segzoo.data.mask_files import mask_size
from segzoo.data.splits import evenly
from segzoo.errors import DataError

SAMPLE = 64
"""Images of a set whose heads are looked at."""


class Turning:
    """Says of every image of a folder whether it is turned.

    Args:
        images: the files by name.
        masks: the same; empty where there are none.
        upright: turn all, or none; None: those that fit the size of their mask so, and all without masks.
    """

    def __init__(self, images: Mapping[str, Path], masks: Mapping[str, Path], upright: bool | None) -> None:
        self.upright, self._images, self._masks = upright, images, masks
        self._most: bool | None = None

    def size(self, name: str, drawn_size: tuple[int, int] | None = None) -> tuple[int, int]:
        """(width, height) of an image as it is read.

        Args:
            name: of the image.
            drawn_size: (width, height) of its mask, where it is known.

        Raises:
            DataError: see `is_turned`.
        """
        stored, turn = sizes_of(self._images[name])
        return turned(stored, turn) if self.is_turned(name, drawn_size) else stored

    def is_turned(self, name: str, drawn_size: tuple[int, int] | None = None) -> bool:
        """Whether an image is to be turned as its EXIF orientation says; of the mask the size is read if need be.

        Raises:
            DataError: its mask fits either way, and the other masks of the folder do not tell.
        """
        if self.upright is not None or not self._masks:
            return self.upright is not False
        image = self._images[name]
        turn = sizes_of(image)[1]
        if turn == 1:
            return False
        drawn = drawn_upright(image, drawn_size or mask_size(self._masks[name]))
        return self._others_are_turned(image, turn) if drawn is None else drawn

    def drawn_upright(self, name: str) -> bool | None:
        """Whether the mask of an image that is to be turned fits the turned one only, or the stored one only.

        None: the image is not to be turned, its mask fits both or neither, or all are treated alike.
        """
        if self.upright is not None or not self._masks:
            return None
        image, drawn = self._images[name], mask_size(self._masks[name])
        stored, turn = sizes_of(image)
        fits = [size for size in {stored, turned(stored, turn)} if size == drawn]
        return drawn_upright(image, drawn) if fits and turn != 1 else None

    def _others_are_turned(self, image: Path, turn: int) -> bool:
        """Whether masks of this folder were drawn on turned images, by those whose size tells."""
        if self._most is None:
            known = {drawn_upright(path, mask_size(self._masks[name])) for name, path in self._images.items()}
            known -= {None}
            if len(known) != 1:
                raise DataError(
                    f"{image} is to be turned (EXIF orientation {turn}), and by their sizes its mask and the others may have "
                    "been drawn on either: set upright (`data.DOMAIN.upright`) to true if they were on the turned images, "
                    "which labelling tools show, or to false"
                )
            (self._most,) = known
        return bool(self._most)


def turned_images(sets: Mapping[str, tuple[ImageSet, Sequence[int]]], as_they_should: bool = True) -> list[str]:
    """Says which sets have images that fit their masks one way only: photographs of telephones, mostly.

    Args:
        sets: by name, images with masks and which of them count; a sample of these is looked at.
        as_they_should: name, too, those that are turned and fit their masks.

    Returns:
        A line for each domain with images that lie on their side, and one for all that are turned.
    """
    well: list[str] = []
    aside: dict[str, list[str]] = {}
    for name, (images, indices) in sets.items():
        chosen = [indices[i] for i in evenly(len(indices), SAMPLE)]
        kinds = {index: kind for index in chosen if (kind := images.drawn_upright(index)) is not None}
        for wanted, into in ((True, well), (False, aside.setdefault(name.partition("/")[0], []))):
            those = [images.names[index] for index, kind in kinds.items() if kind == wanted]
            if those:
                into.append(f"{len(those)} of {len(chosen)} in {name} ('{those[0]}' is one)")
    lines = [
        f"images have an EXIF orientation and fit their masks only as they are stored: {', '.join(found)}: the network learns "
        "from pictures that lie on their side; export the masks of the turned images, or save these images without the "
        f"orientation; if all of them lie so, set upright (`data.{domain}.upright`) to false, which labels new photographs as "
        "they are stored, too"
        for domain, found in aside.items()
        if found
    ]
    if well and (as_they_should or lines):
        lines.append(
            "images fit their masks only when they are turned as their EXIF orientation says, and are read so: "
            + ", ".join(well)
        )
    return lines
