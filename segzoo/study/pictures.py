"""The same test images as all rows label them, as a report shows them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segzoo.study.entries import Entry, kept
from segzoo.study.findings import Findings

FOLDER, IGNORED = "examples", 255
MIME = {".jpg": "jpeg", ".png": "png"}


@dataclass(frozen=True)
class Said:
    """What a row says of an image.

    Attributes:
        row: its name.
        picture: its labels as a data URI.
        wrong: the share of the labelled pixels that it has wrong; None where no pixel is labelled.
    """

    row: str
    picture: str
    wrong: float | None


@dataclass(frozen=True)
class Example:
    """A test image.

    Attributes:
        position: of the image in the split.
        image: as a data URI.
        truth: its labels, as a data URI.
        said: by row.
        disagreement: the share of the pixels that not all rows call the same.
    """

    position: int
    image: str
    truth: str
    said: tuple[Said, ...]
    disagreement: float


@dataclass(frozen=True)
class Pictures:
    """All of a pair of data sets.

    Attributes:
        seed: of the runs that they are of.
        examples: in the order of the split.
        legend: name and CSS colour of the classes that occur.
    """

    seed: int
    examples: tuple[Example, ...]
    legend: tuple[tuple[str, str], ...]


def find_pictures(findings: Findings, out: Path) -> Pictures | None:
    """Those of the first seed that all rows have; None where they have none, or kept no pictures.

    Args:
        findings: of one pair of data sets.
        out: folder that the runs are named from.
    """
    common = set.intersection(*(set(row.seeds) for row in findings.rows))
    for seed in sorted(common):
        found = {row.name: _folder(row.entries, seed, out) for row in findings.rows}
        folders = {name: folder for name, folder in found.items() if folder is not None}
        if len(folders) < len(found):
            continue
        if positions := sorted(set.intersection(*(_positions(folder) for folder in folders.values()))):
            occurring: set[int] = set()
            examples = tuple(_example(position, folders, occurring) for position in positions)
            first = next(iter(folders.values())) / f"{positions[0]:05d}-label.png"
            return Pictures(seed, examples, _legend(first, list(findings.rows[0].classes), occurring))
    return None


def data_uri(path: Path) -> str:
    """A picture as an address that holds it. Where it is smaller so, it is kept with 8 bits of palette."""
    return f"data:image/{MIME[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _example(position: int, folders: dict[str, Path], occurring: set[int]) -> Example:
    first = next(iter(folders.values()))
    truth = _ids(first / f"{position:05d}-label.png")
    counted = truth != IGNORED
    occurring |= set(np.unique(truth).tolist())
    said, maps = [], []
    for name, folder in folders.items():
        path = folder / f"{position:05d}-prediction.png"
        labels = _ids(path)
        occurring |= set(np.unique(labels).tolist())
        maps.append(labels)
        same_size = labels.shape == truth.shape and counted.any()
        said.append(Said(name, data_uri(path), float((labels != truth)[counted].mean()) if same_size else None))
    alike = len({one.shape for one in maps}) == 1
    disagreement = float((np.ptp(np.stack(maps), axis=0) > 0).mean()) if alike else 0.0
    paths = first / f"{position:05d}-image.jpg", first / f"{position:05d}-label.png"
    return Example(position, data_uri(paths[0]), data_uri(paths[1]), tuple(said), disagreement)


def _legend(path: Path, classes: Sequence[str], occurring: set[int]) -> tuple[tuple[str, str], ...]:
    with Image.open(path) as picture:
        palette = np.array(picture.getpalette() or [], dtype=int)
    palette = np.pad(palette, (0, max(0, 768 - len(palette)))).reshape(-1, 3)
    names = {number: classes[number] for number in sorted(occurring) if number < len(classes)}
    if IGNORED in occurring:
        names[IGNORED] = "ignored"
    return tuple(
        (name, "#" + "".join(f"{channel:02x}" for channel in palette[number])) for number, name in names.items()
    )


def _folder(entries: Sequence[Entry], seed: int, out: Path) -> Path | None:
    one = next(one for one in entries if one["seed"] == seed)
    return kept(one, out, FOLDER)


def _positions(folder: Path) -> set[int]:
    return {int(path.name.split("-")[0]) for path in folder.glob("*-prediction.png")}


def _ids(path: Path) -> npt.NDArray[Any]:
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        return np.array(picture)
