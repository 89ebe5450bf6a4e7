"""Miniatures of public data sets, in the trees and encodings of their archives."""

import base64
import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

HEIGHT, WIDTH = 24, 48
Labels = npt.NDArray[np.uint8]
CITYSCAPES = ("road", "building", "traffic light", "sky", "person", "car")
"""Classes of a miniature, in the order of the rectangles of `drawn`; the last rectangle is ignored."""


def drawn(number: int) -> Labels:
    """Which of seven things every pixel is: six classes and, as 6, what is ignored; no two images are alike."""
    things = np.zeros((HEIGHT, WIDTH), np.uint8)
    for thing in range(1, 7):
        top, left = 8 * (thing % 3), (7 * thing + 3 * number) % (WIDTH - 10)
        things[top : top + 6, left : left + 10] = thing
    return things


def write_image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write_ids(path: Path, number: int, ids: Sequence[int], palette: bool = False) -> None:
    """Ids in one channel, or as indices of a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.array(ids, np.uint8)[drawn(number)])
    if palette:
        picture.putpalette([(37 * value) % 256 for value in range(768)])
    picture.save(path)


def write_colours(path: Path, number: int, colours: Sequence[Sequence[int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(colours, np.uint8)[drawn(number)]).save(path)


def write_deep(path: Path, number: int, ids: Sequence[int]) -> None:
    """SYNTHIA: 16 bits, class in red, instance in green."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint16)
    pixels[..., 2], pixels[..., 1] = np.array(ids)[drawn(number)], 1000 + number  # OpenCV's order: red is last
    assert cv2.imwrite(str(path), pixels)


def write_tags(path: Path, number: int, ids: Sequence[int]) -> None:
    """CARLA: class in red, an instance in green and blue, opaque."""
    things = drawn(number)
    pixels = np.dstack([np.array(ids, np.uint8)[things], things * 9, things + 200, np.full_like(things, 255)])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def corners(number: int, thing: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a rectangle of `drawn`, all inclusive."""
    top, left = 8 * (thing % 3), (7 * thing + 3 * number) % (WIDTH - 10)
    return left, top, left + 9, min(top + 5, HEIGHT - 1)


def write_polygons(path: Path, number: int, names: Sequence[str], plate: str = "license plate") -> None:
    """Cityscapes and IDD: what is behind comes first; a plate on the car, a deleted object and a group."""
    objects: list[dict[str, Any]] = [{"label": names[0], "polygon": [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]}]
    for thing in range(1, 7):
        left, top, right, bottom = corners(number, thing)
        label = f"{names[thing]}group" if names[thing] == "car" else names[thing]
        objects.append({"label": label, "polygon": [[left, top], [right, top], [right, bottom], [left, bottom]]})
        if label == "cargroup" and plate:
            objects.append({"label": plate, "polygon": [[left + 1, top + 1], [left + 3, top + 1], [left + 3, top + 2]]})
    objects.append({"label": "sky", "deleted": 1, "polygon": [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT]]})
    write_json(path, {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects})


def write_supervisely(path: Path, number: int, names: Sequence[str]) -> None:
    """A polygon with a hole, in which nothing is drawn, and bitmaps with an origin over it."""
    left, top, right, bottom = corners(number, 6)
    hole = [[left, top], [right, top], [right, bottom], [left, bottom]]
    outline = [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]
    ground = {"classTitle": names[0], "geometryType": "polygon", "points": {"exterior": outline, "interior": [hole]}}
    objects: list[dict[str, Any]] = [ground]
    things = drawn(number)
    for thing in range(1, 6):
        rows, columns = np.nonzero(things == thing)
        left, top = int(columns.min()), int(rows.min())
        shape = (things == thing)[top : rows.max() + 1, left : columns.max() + 1]
        buffer = io.BytesIO()
        Image.fromarray(shape.astype(np.uint8)).save(buffer, "PNG", transparency=0)
        data = base64.b64encode(zlib.compress(buffer.getvalue())).decode()
        objects.append(
            {"classTitle": names[thing], "geometryType": "bitmap", "bitmap": {"data": data, "origin": [left, top]}}
        )
    write_json(path, {"size": {"height": HEIGHT, "width": WIDTH}, "objects": objects, "tags": []})


def write_replicator(folder: Path, number: int, names: Sequence[str]) -> None:
    """Colours that differ from frame to frame, with their names beside; what is ignored is black and transparent."""
    colours = [(20 * number + 30 * thing + 5, 255 - 30 * thing, 40 + number, 255) for thing in range(6)]
    entries = {str(colour): {"class": name} for colour, name in zip(colours, names, strict=False)}
    entries |= {"(0, 0, 0, 0)": {"class": "BACKGROUND"}, "(0, 0, 0, 255)": {"class": "UNLABELLED"}}
    write_colours(folder / f"semantic_segmentation_{number:04}.png", number, [*colours, (0, 0, 0, 0)])
    write_json(folder / f"semantic_segmentation_labels_{number:04}.json", entries)
    write_image(folder / f"rgb_{number:04}.png", number)
