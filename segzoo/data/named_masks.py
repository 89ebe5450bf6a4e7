"""Masks whose objects have names: polygons and bitmaps in JSON, and colours that a JSON beside the mask names.

What a file is, its content says: a ``.json`` with ``imgHeight`` holds polygons as Cityscapes and IDD have them, one with
``size`` an annotation of Supervisely, and a ``.png`` is of Omniverse Replicator's BasicWriter, whose colours differ from file
to file. Objects are drawn in the order of the file, later ones over earlier ones, as the official tools do.
"""

import base64
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from segzoo.data.class_maps import OTHERS, UNDEFINED, UNLABELED, ClassMap
from segzoo.data.image_files import check_pages, opened
from segzoo.errors import DataError
from segzoo.suggest import did_you_mean

NAMED_TYPES = (".png", ".json")
GROUP = "group"
"""The end of the name of several objects that could not be told apart: ``cargroup`` are cars."""
REPLICATOR, REPLICATOR_LABELS = "semantic_segmentation_", "semantic_segmentation_labels_"
REPLICATOR_VOID = ("BACKGROUND", "UNLABELLED")
ANEW = "export the annotation anew, or remove the file and its image"
Ids = npt.NDArray[np.uint16]
Draw = Callable[[Image.Image, int], None]
"""Draws one object: sets its pixels of a picture of ids (mode I) to an id."""


def read_named(path: Path, class_map: ClassMap) -> Ids:
    """The (H, W) raw ids of a mask whose objects have names: positions in ``class_map.names``.

    Args:
        path: a JSON of polygons or of Supervisely, or a PNG with a JSON of its colours beside it.
        class_map: a map of names.

    Raises:
        DataError: the file cannot be read, or has a name that the map does not list.
    """
    return _read_colours(path, class_map) if path.suffix.lower() == ".png" else _read_objects(path, class_map)


def named_size(path: Path) -> tuple[int, int]:
    """(width, height) of a mask in JSON.

    Raises:
        DataError: the file cannot be read, or does not say it.
    """
    return _size(_load(path), path)


def sidecar(path: Path) -> Path | None:
    """The JSON that names the colours of a PNG mask; None for other files."""
    if path.suffix.lower() != ".png":
        return None
    head, found, tail = path.stem.rpartition(REPLICATOR)
    return path.with_name(f"{head}{REPLICATOR_LABELS if found else ''}{tail}{'' if found else '_labels'}.json")


def _read_objects(path: Path, class_map: ClassMap) -> Ids:
    content = _load(path)
    picture = Image.new("I", _size(content, path), _id(UNLABELED, class_map, path))
    for name, draw in _objects(content, path):
        number = _id(name, class_map, path)
        if class_map.lut[number] != UNDEFINED:  # such as number plates, which are parts of cars
            draw(picture, number)
    return np.asarray(picture).astype(np.uint16)


def _objects(content: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Draw]]:
    """Name and shape of every object, in the order in which they are drawn."""
    listed = content.get("objects")
    if not isinstance(listed, list):
        raise DataError(f"the mask {path} has no list of 'objects'; {ANEW}")
    for position, one in enumerate(listed):
        where = f"object {position} of the mask {path}"
        try:
            if one.get("deleted"):
                continue
            if "polygon" in one:
                yield str(one["label"]), _polygon(one["polygon"], [])
            else:
                yield str(one["classTitle"]), _supervisely(one, where)
        except DataError:
            raise
        except Exception as error:  # whatever a broken file makes of a missing key or a text for a number
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"cannot read {where}: {type(error).__name__}: {reason}; {ANEW}") from error


def _supervisely(one: Mapping[str, Any], where: str) -> Draw:
    kind = one.get("geometryType") or ("bitmap" if one.get("bitmap") else "polygon")
    if kind == "bitmap":
        return _bitmap(one["bitmap"]["data"], one["bitmap"]["origin"], where)
    outline = one.get("points", {}).get("exterior", [])
    if kind == "rectangle":
        (left, top), (right, bottom) = outline
        outline = [(left, top), (right, top), (right, bottom), (left, bottom)]
    elif kind != "polygon":
        raise DataError(
            f"{where} is a '{kind}', which has no area; expected bitmap, polygon or rectangle: convert it, or remove it"
        )
    return _polygon(outline, one.get("points", {}).get("interior", []))


def _polygon(outline: Any, holes: Any) -> Draw:
    rings = [[(x, y) for x, y in ring] for ring in (outline, *holes)]

    def draw(picture: Image.Image, number: int) -> None:
        if len(rings[0]) < 2:  # a slip of the hand, which has no area
            return
        if len(rings) == 1:
            ImageDraw.Draw(picture).polygon(rings[0], fill=number)
            return
        shape = Image.new("1", picture.size)
        for position, ring in enumerate(rings):
            if len(ring) > 1:
                ImageDraw.Draw(shape).polygon(ring, fill=int(position == 0))
        picture.paste(number, mask=shape)

    return draw


def _bitmap(data: str, origin: Any, where: str) -> Draw:
    """A PNG, packed by zlib and written in base64, whose upper left corner lies at ``origin`` (x, y)."""
    packed = zlib.decompress(base64.b64decode(data))
    with Image.open(io.BytesIO(packed)) as file:
        # With alpha that is the shape; without, whatever is not black.
        if file.mode == "P" and "transparency" not in file.info:
            shape = np.asarray(file) > 0
        elif file.mode in ("RGBA", "LA", "PA") or "transparency" in file.info:
            shape = np.asarray(file.convert("RGBA"))[..., 3] > 0
        else:
            shape = np.asarray(file.convert("L")) > 0
    left, top = (int(value) for value in origin)

    def draw(picture: Image.Image, number: int) -> None:
        right, bottom = left + shape.shape[1], top + shape.shape[0]
        if left < 0 or top < 0 or right > picture.width or bottom > picture.height:
            raise DataError(
                f"{where} reaches from ({left}, {top}) to ({right}, {bottom}), out of its image of {picture.width}x"
                f"{picture.height} (width x height); {ANEW}"
            )
        picture.paste(number, (left, top, right, bottom), Image.fromarray(shape))

    return draw


def _read_colours(path: Path, class_map: ClassMap) -> Ids:
    """A mask of Replicator: its colours, or ids that are stored as colours, have names in the JSON beside it."""
    beside = sidecar(path)
    assert beside is not None
    with opened(path, "mask") as file:
        check_pages(file, path, "mask")
        if file.mode.startswith("I") or file.mode == "L":
            values = np.asarray(file).astype(np.uint32)
        else:  # as viewers show them; alpha tells the background from what has no label, which are both black
            values = np.ascontiguousarray(np.asarray(file.convert("RGBA"))).view(np.uint32)[..., 0]
    found, positions = np.unique(values, return_inverse=True)
    ids = {_value(key, beside): _id_of_colour(name, class_map, path) for key, name in _load(beside).items()}
    unnamed = [int(value) for value in found if int(value) not in ids]
    if unnamed:
        colour = " ".join(map(str, int(unnamed[0]).to_bytes(4, "little")))
        share = 100 * np.count_nonzero(values == unnamed[0]) / values.size
        raise DataError(
            f"the mask {path} holds {colour} (red, green, blue, alpha; {share:.3g} % of the pixels), which {beside.name} does "
            "not name; the two files belong to different frames, or the mask was smoothed: render them anew"
        )
    table = np.array([ids[int(value)] for value in found], np.uint16)
    return table[positions.reshape(values.shape)]


def _value(key: str, path: Path) -> int:
    """The number of ``(r, g, b, a)`` as a little-endian machine reads the four bytes, or an id as it is."""
    numbers = [int(part) for part in re.findall(r"\d+", key)]
    if len(numbers) == 1:
        return numbers[0]
    if len(numbers) not in (3, 4) or max(numbers) > 255:
        raise DataError(f"{path}: found the key '{key}', expected a colour such as '(140, 25, 255, 255)'; {ANEW}")
    return int.from_bytes([*numbers, 255][:4], "little")


def _id_of_colour(entry: Any, class_map: ClassMap, path: Path) -> int:
    name = entry.get("class") if isinstance(entry, Mapping) else entry
    if not isinstance(name, str):
        raise DataError(
            f"{sidecar(path)}: found {entry!r}, expected e.g. {{'class': 'car'}}; give the objects of the scene a semantic "
            "label of the type 'class'"
        )
    listed = class_map.names or ()
    number = _id(UNLABELED if name in REPLICATOR_VOID and name not in listed else name, class_map, path)
    return _id(UNLABELED, class_map, path) if class_map.lut[number] == UNDEFINED else number


def _id(name: str, class_map: ClassMap, path: Path) -> int:
    """The raw id of a name.

    Raises:
        DataError: the map does not list it and has no others.
    """
    listed = class_map.names or ()
    for known in (name, name.removesuffix(GROUP)):
        if known in listed:
            return listed.index(known)
    if class_map.others == UNDEFINED:
        raise DataError(
            f"unknown name '{name}' in {path}: the class map '{class_map.name}' of label space '{class_map.space}' lists "
            f"{len(listed)} names{did_you_mean(name, listed)}; write it into a map of the label space, e.g. maps: {{mine: "
            f"{{names: {{{name}: CLASS, ...}}}}}}, or '{OTHERS}: ignore' there for all the rest"
        )
    return len(listed)


def _size(content: Mapping[str, Any], path: Path) -> tuple[int, int]:
    size = content.get("size")
    if isinstance(size, Mapping):
        width, height = size.get("width"), size.get("height")
    else:
        width, height = content.get("imgWidth"), content.get("imgHeight")
    if not isinstance(width, int) or not isinstance(height, int) or min(width, height) < 1:
        raise DataError(
            f"the mask {path} does not say how large it is: expected imgWidth and imgHeight (polygons of Cityscapes) or size "
            f"(Supervisely), found the keys {', '.join(map(str, content)) or 'of nothing'}; {ANEW}"
        )
    return width, height


def _load(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise DataError(f"cannot read the mask {path}: {reason}; {ANEW}") from error
    if not isinstance(content, Mapping):
        raise DataError(
            f"the mask {path} holds a {type(content).__name__}, expected an annotation of one image; {ANEW}"
        )
    return content
