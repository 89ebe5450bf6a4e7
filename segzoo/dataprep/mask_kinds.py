"""What masks store, found by reading a sample of them: ids, colours, or ids in the red channel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from segzoo.data.class_maps import looks_lossy
from segzoo.data.image_files import opened
from segzoo.data.mask_files import check_alpha_is_no_class, read_ids
from segzoo.data.splits import evenly
from segzoo.errors import DataError

SAMPLE = 64
MANY = 64
"""Masks of classes hold fewer ids; more colours than these are instances, or edges that were smoothed."""
NEARLY_NONE = 0.25
"""Of the pixels: what JPEG changes along borders is less."""
GREY = 0x010101
STRAY = 1e-4
"""Share of the pixels below which a value that one mask alone holds is hardly a class."""
Kind = Literal["ids", "binary", "colours", "red"]


@dataclass(frozen=True)
class Stored:
    """What the masks of a domain store.

    Attributes:
        kind: ids; 0 and 255 alone; a colour per class; ids in red with instances in the other channels.
        pixels: pixels of the sample by id, or by colour as 0xRRGGBB.
        masks: how many were read.
        alone: the one mask that holds a value, of those values that no second one holds.
    """

    kind: Kind
    pixels: Mapping[int, int]
    masks: int
    alone: Mapping[int, Path] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Pixels of the sample."""
        return sum(self.pixels.values())

    @property
    def strays(self) -> dict[int, Path]:
        """Values that are probably mistakes, such as a stroke of a wrong brush, and the one mask of several that holds each.

        Of two values none is: the other one would be the only class.
        """
        if self.masks < 2 or len(self.values) < 3:
            return {}
        return {value: self.alone[value] for value in self.values if value in self.alone and self.share(value) < STRAY}

    @property
    def values(self) -> list[int]:
        """The ids that are not 255 where that means ignored, or the colours; in rising order."""
        ignored = {255} if self.kind in ("ids", "red") else set()
        return sorted(set(self.pixels) - ignored)

    def share(self, value: int) -> float:
        """Of all pixels."""
        return self.pixels.get(value, 0) / max(1, self.total)


def what_is_stored(masks: Sequence[Path]) -> Stored:
    """Reads a sample of masks, evenly spread.

    Raises:
        DataError: one cannot be read, or they hold more ids or colours than there could be classes.
    """
    chosen = [masks[i] for i in evenly(len(masks), SAMPLE)]
    found = _count(chosen)
    ids, colours = (
        {value: pixels for (value, kind), pixels in found.pixels.items() if kind == of} for of in (False, True)
    )
    if not colours:
        _check_loss(ids, masks[0].parent)
        if len(ids) > 2 * MANY:
            raise DataError(
                f"the masks of {masks[0].parent} hold {len(ids)} different values, as photographs or smoothed masks do: "
                "expected an id per class; name the folder of the masks, or export them anew without smoothing"
            )
        return Stored("binary" if set(ids) == {0, 255} else "ids", ids, len(chosen), found.alone(lambda value: value))
    for grey, count in ids.items():  # masks without a coloured class among them
        colours[grey * GREY] = colours.get(grey * GREY, 0) + count
    red: dict[int, int] = {}
    for colour, count in colours.items():
        red[colour >> 16] = red.get(colour >> 16, 0) + count
    alone = all(colour & 0xFFFF == 0 for colour in colours)
    if alone or (len(colours) > max(MANY, 2 * len(red)) and len(red) <= MANY):
        return Stored("red", red, len(chosen), found.alone(lambda colour: colour >> 16))
    if len(colours) > 2 * MANY:
        raise DataError(
            f"the masks of {masks[0].parent} hold {len(colours)} different colours, as photographs or smoothed masks do: "
            "expected a colour per class; name the folder of the masks, or export them anew without smoothing"
        )
    return Stored("colours", colours, len(chosen), found.alone(lambda colour: colour))


@dataclass(frozen=True)
class _Counted:
    """Pixels of every value, which is an id or a colour (True), and some masks that hold it: two are as good as all."""

    pixels: dict[tuple[int, bool], int]
    holders: dict[tuple[int, bool], set[Path]]

    def alone(self, key: Callable[[int], int]) -> dict[int, Path]:
        """The one mask that holds what a value, or a colour, stands for; grey ones among colours are colours, too."""
        coloured = any(kind for _, kind in self.pixels)
        holders: dict[int, set[Path]] = {}
        for (value, kind), paths in self.holders.items():
            holders.setdefault(key(value * GREY if coloured and not kind else value), set()).update(paths)
        return {value: next(iter(paths)) for value, paths in holders.items() if len(paths) == 1}


def _count(chosen: Sequence[Path]) -> _Counted:
    counted = _Counted({}, {})
    wrong: list[DataError] = []
    for path in chosen:
        try:
            values, are_colours = _read(path)
        except DataError as error:
            wrong.append(error)
            continue
        for value, count in zip(*(each.tolist() for each in np.unique(values, return_counts=True)), strict=True):
            counted.pixels[value, are_colours] = counted.pixels.get((value, are_colours), 0) + count
            if len(holders := counted.holders.setdefault((value, are_colours), set())) < 2:
                holders.add(path)
    if wrong:
        more = (
            f" (and {len(wrong) - 1} more of the {len(chosen)} that were looked at are wrong)" if len(wrong) > 1 else ""
        )
        raise DataError(f"{wrong[0]}{more}") from wrong[0]
    return counted


def _check_loss(ids: Mapping[int, int], folder: Path) -> None:
    """Refuses values that lie around 0 and 255 as JPEG leaves them, whatever the files are now."""
    around = sorted(set(ids) - {0, 255})
    if not looks_lossy(ids) or sum(ids[value] for value in around) > NEARLY_NONE * sum(ids.values()):
        return
    shown = ", ".join(map(str, around[:4])) + (", ..." if len(around) > 5 else "") + f", {around[-1]}"
    raise DataError(
        f"the masks of {folder} hold 0 and 255, and {len(around)} values next to these ({shown}), as JPEG makes them along "
        "borders: they were saved with loss once; export them anew as PNG, or give every pixel from 128 on 255 and all others "
        "0"
    )


def _read(path: Path) -> tuple[npt.NDArray[np.integer[npt.NBitBase]], bool]:
    """The values of a mask, and whether they are colours."""
    if path.suffix.lower() == ".npy":
        try:
            return np.load(path, allow_pickle=False), False
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"cannot read the mask {path}: {error}; replace the file") from error
    with opened(path, "mask") as file:
        if file.mode not in ("RGB", "RGBA"):
            return np.asarray(read_ids(path)), False
        if file.mode == "RGBA":
            check_alpha_is_no_class(np.asarray(file), path)
        pixels = np.asarray(file.convert("RGB"))
    if (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all():
        return pixels[..., 0], False
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue, True
