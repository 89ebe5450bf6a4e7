"""Class maps: tables that turn what masks hold, ids or colours, into label ids."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segzoo.errors import DataError

IGNORE_INDEX = 255
LARGEST_ID = 65535
"""Of a raw mask: 16 bits."""
IGNORE, OTHERS = "ignore", "others"
IDENTITY, PALETTE, BINARY, NAMES = "identity", "palette", "binary", "names"
"""Maps that need not be written: label ids, the colours of the label space, masks of two classes of 0 and 255 (or 1), and masks
whose objects have the names of the classes."""
UNLABELED = "unlabeled"
"""The name of pixels on which no object is drawn."""
UNDEFINED = -1
AROUND = 63
"""How far JPEG, of a quality that people choose, takes 0 and 255 from where they were."""

RawIds = npt.NDArray[np.integer[Any] | np.bool_]
Colour = tuple[int, int, int]


def packed(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Colours (..., 3) as one number each, red in the highest byte: 0xRRGGBB."""
    values = pixels[..., 0].astype(np.uint32)  # in place from here on: photographs of masks are large
    for channel in (1, 2):
        values <<= np.uint32(8)
        values |= pixels[..., channel]
    return values


def unpacked(value: int) -> Colour:
    """The (r, g, b) of a packed colour."""
    return value >> 16 & 255, value >> 8 & 255, value & 255


@dataclass(frozen=True, eq=False)
class ClassMap:
    """A lookup table from what masks hold to label ids: of raw ids, of colours, or of names.

    Attributes:
        lut: (256,) or (65536,) int16: the label id of every raw id, or (K,) that of every one of ``colours``; 255 = ignore,
            -1 = undefined, which is an error when met.
        name: name of the map, for error messages.
        space: name of the label space, for error messages.
        void_listed: whether the map itself says what 255 is. Of colours it is true: none is ignored that is not listed.
        colours: (K,) uint32 packed colours in rising order where masks hold colours; None where they hold ids.
        others: label id of all other colours, -1 = undefined.
        classes: names of the classes, for error messages.
        names: where masks give names to what they hold: the name of every raw id but the last one, which stands for all other
            names. A name whose label id is -1 is not drawn; what lies beneath counts. None where masks hold ids or colours.
    """

    lut: npt.NDArray[np.int16]
    name: str = IDENTITY
    space: str = ""
    void_listed: bool = False
    colours: npt.NDArray[np.uint32] | None = None
    others: int = UNDEFINED
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None

    def defines(self, raw: RawIds) -> bool:
        """Whether the map defines every id, or packed colour, of a mask."""
        return bool((self._look_up(raw) >= 0).all())

    def label_of(self, value: int) -> int:
        """The label id of one id or packed colour; -1: undefined."""
        return int(self._look_up(np.array([value], np.int64))[0])

    def listed(self) -> npt.NDArray[np.int64]:
        """The ids, or packed colours, that are a class by the map."""
        chosen = np.flatnonzero((self.lut >= 0) & (self.lut < IGNORE_INDEX))
        return chosen if self.colours is None else self.colours[chosen].astype(np.int64)

    def written(self, value: int) -> str:
        """How messages call an id (``7``), a packed colour (``128 64 128``) or a name (``'kerb'``)."""
        if self.names is not None:
            return f"'{self.names[value]}'" if value < len(self.names) else OTHERS
        return str(value) if self.colours is None else " ".join(map(str, unpacked(value)))

    def digest(self) -> str:
        """A hash of what the map does."""
        content = self.lut.tobytes()
        if self.colours is not None:
            content += self.colours.tobytes() + str(self.others).encode()
        if self.names is not None:
            content += "\0".join(self.names).encode()
        return hashlib.sha256(content).hexdigest()

    def with_labels(self, new: Mapping[int, int], classes: Sequence[str], space: str) -> "ClassMap":
        """The map of a space that keeps some classes, whose new label ids these are by the old ones; the others are ignored."""

        def label(old: int) -> int:
            return UNDEFINED if old < 0 else new.get(old, IGNORE_INDEX)

        lut = np.array([label(old) for old in self.lut.tolist()], np.int16)
        return replace(self, lut=frozen(lut), others=label(self.others), classes=tuple(classes), space=space)

    def apply(self, raw: RawIds, where: str | Path) -> npt.NDArray[np.uint8]:
        """Label ids of a mask.

        Args:
            raw: (H, W) raw ids of any integer type, or packed colours.
            where: the file, for the error message.

        Returns:
            (H, W) uint8 label ids, 255 = ignore.

        Raises:
            DataError: an id or a colour that the map does not define.
        """
        labels = self._look_up(raw)
        if labels.size and labels.min() < 0:
            unknown, counts = np.unique(raw[labels < 0], return_counts=True)
            if self.colours is not None:
                raise DataError(self._unknown_colours(raw, unknown, counts, where))
            more = f" (and {unknown.size - 1} more unknown ids)" if unknown.size > 1 else ""
            raise DataError(
                f"unknown label id {int(unknown[0])} in {where} ({counts[0]} pixels){more}: "
                f"the class map '{self.name}' of label space '{self.space}' defines "
                f"{_ranges(np.flatnonzero(self.lut >= 0))}; {self._remedy(raw, int(unknown[0]))}"
            )
        return labels.astype(np.uint8)

    @cached_property
    def _table(self) -> npt.NDArray[np.int16]:
        """The label of every value that fits the table plus one; 0 for those that are not listed, and behind it for all others.

        Of colours it has 32 MiB, of which the system keeps the few pages that are not zero, and reads a large mask three to ten
        times as fast as a search among the colours.
        """
        listed = slice(self.lut.size) if self.colours is None else self.colours
        table = np.zeros((self.lut.size if self.colours is None else 2**24) + 1, np.int16)
        table[listed] = self.lut + 1
        return table

    def __getstate__(self) -> dict[str, Any]:
        """Without the table, which every process builds for itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_table"}

    def _look_up(self, raw: RawIds) -> npt.NDArray[np.int16]:
        size = self._table.size - 1
        if raw.dtype == np.bool_:
            raw = raw.astype(np.uint8)
        if raw.dtype == np.uint8 or (raw.dtype == np.uint16 and size > LARGEST_ID):
            bounded = raw
        elif np.issubdtype(raw.dtype, np.unsignedinteger):
            bounded = raw if raw.size and raw.max() < size else np.minimum(raw, raw.dtype.type(size))
        else:
            wide = raw.astype(np.int64)
            bounded = np.where((wide < 0) | (wide >= size), size, wide)
        found: npt.NDArray[np.int16] = self._table[bounded]
        found -= 1
        if self.colours is not None and self.others != UNDEFINED:
            found[(found < 0) & (bounded < size)] = self.others
        return found

    def _remedy(self, ids: RawIds, raw: int) -> str:
        if not 0 <= raw <= LARGEST_ID:
            return f"ids are whole numbers from 0 to {LARGEST_ID}: save the masks anew"
        if self.name == IDENTITY and looks_lossy(np.unique(ids).tolist()):
            return (
                "the values lie around 0 and 255, as JPEG and smoothing leave them: save the masks anew without loss, as PNG, "
                f"and where 0 and 255 are two classes set class_map to {BINARY}"
            )
        if self.name == IDENTITY:
            found = [int(one) for one in np.unique(ids)[:6]]
            return (
                "name the class_map that fits the masks, or write one into a YAML of the label space, e.g. maps: "
                f"{{mine: {{{', '.join(f'{one}: CLASS' for one in found)}{', ...' if len(found) > 5 else ''}}}}}"
            )
        if self.name == BINARY:
            return (
                "interpolation, smoothing and JPEG make values in between: save the masks anew without, or write a map of your "
                f"own, e.g. maps: {{mine: {{0: {self.classes[0]}, 255: {self.classes[1]}, {OTHERS}: {IGNORE}}}}}"
            )
        return "choose the class_map that fits the masks or add the id to it"

    def _unknown_colours(
        self, raw: RawIds, unknown: npt.NDArray[Any], counts: npt.NDArray[Any], where: str | Path
    ) -> str:
        assert self.colours is not None
        first = int(unknown[counts.argmax()])
        known = np.array([unpacked(one) for one in self.colours.tolist()], np.int64)
        distances = np.abs(known - unpacked(first)).sum(axis=1)
        nearest = int(distances.argmin())
        of = self.classes[self.lut[nearest]] if 0 <= self.lut[nearest] < len(self.classes) else IGNORE
        more = f" (and {unknown.size - 1} more unknown colours)" if unknown.size > 1 else ""
        return (
            f"unknown colour {self.written(first)} (#{first:06x}) in {where} ({100 * counts.max() / raw.size:.3g} % of the "
            f"pixels){more}: of the {self.colours.size} colours of class map '{self.name}' (label space '{self.space}') the "
            f"nearest is {self.written(int(self.colours[nearest]))}, '{of}'; {self._colour_remedy(unknown, distances.min())}"
        )

    def _colour_remedy(self, unknown: npt.NDArray[Any], distance: int) -> str:
        channels = [unknown >> shift & 255 for shift in (16, 8, 0)]
        if self.defines(channels[2] << 16 | channels[1] << 8 | channels[0]):
            return "with red and blue exchanged all of them are listed: save the masks anew as RGB (OpenCV writes BGR)"
        if (channels[0] == channels[1]).all() and (channels[1] == channels[2]).all():
            return f"if these greys are ids, choose a class_map of ids, such as {IDENTITY}; else add the colours to the map"
        if unknown.size > 32 or distance <= 3:
            return (
                "interpolation, smoothing and JPEG make such colours: export the masks anew without, as PNG; a colour that is "
                "meant belongs into the map"
            )
        return f"add it to the map, e.g. \"{self.written(int(unknown[0]))}\": CLASS, or '{OTHERS}: {IGNORE}' for all the rest"


def looks_lossy(values: Iterable[int]) -> bool:
    """Whether values lie around 0 and 255, as in masks of two values that were compressed with loss."""
    found = set(values)
    low, high = {v for v in found if 0 < v <= AROUND}, {v for v in found if 255 - AROUND <= v < 255}
    return {0, 255} <= found and len(low) > 1 and len(high) > 1 and len(low) + len(high) + 2 == len(found)


def frozen(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same array, read-only."""
    table.flags.writeable = False
    return table


def identity_map(classes: Sequence[str], space: str) -> ClassMap:
    """Masks that hold label ids 0..C-1, and 255 for what is ignored."""
    table = np.full(256, UNDEFINED, np.int16)
    table[: len(classes)] = np.arange(len(classes))
    table[IGNORE_INDEX] = IGNORE_INDEX
    return ClassMap(frozen(table), IDENTITY, space, classes=tuple(classes))


def binary_map(classes: Sequence[str], space: str) -> ClassMap:
    """Masks of two classes: 0 is the first one, 255 or 1 the second."""
    table = np.full(256, UNDEFINED, np.int16)
    table[[0, 1, 255]] = 0, 1, 1
    return ClassMap(frozen(table), BINARY, space, void_listed=True, classes=tuple(classes))


def colour_map(
    labels: Mapping[int, int], others: int, classes: Sequence[str], name: str = PALETTE, space: str = ""
) -> ClassMap:
    """Masks that hold colours.

    Args:
        labels: label id by packed colour.
        others: label id of all other colours; -1: they are an error.
        classes: names of the classes.
        name: of the map.
        space: of the label space.
    """
    colours = np.array(sorted(labels), np.uint32)
    lut = np.array([labels[int(colour)] for colour in colours], np.int16)
    return ClassMap(frozen(lut), name, space, True, frozen(colours), others, tuple(classes))


def palette_map(classes: Sequence[str], palette: Sequence[Colour], space: str) -> ClassMap:
    """Masks in the colours of the label space; black is ignored, as in pictures of labels."""
    labels = {int(packed(np.array(colour, np.uint8))): number for number, colour in enumerate(palette)}
    return colour_map({0: IGNORE_INDEX} | labels, UNDEFINED, classes, PALETTE, space)


def names_map(
    labels: Mapping[str, int], others: int, classes: Sequence[str], name: str = NAMES, space: str = ""
) -> ClassMap:
    """Masks whose objects have names, such as polygons in JSON.

    Args:
        labels: label id by name; -1: objects of that name are not drawn.
        others: label id of all other names; -1: they are an error.
        classes: names of the classes.
        name: of the map.
        space: of the label space.
    """
    void = IGNORE_INDEX if others == UNDEFINED else others
    labels = {UNLABELED: void} | dict(labels)
    lut = np.array([*labels.values(), others], np.int16)
    return ClassMap(frozen(lut), name, space, True, others=others, classes=tuple(classes), names=tuple(labels))


def _ranges(ids: Iterable[int]) -> str:
    """``0-10, 255`` for 0, 1, ..., 10, 255."""
    runs: list[list[int]] = []
    for number in map(int, ids):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) or "no id"
