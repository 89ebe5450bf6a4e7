"""A copy of a data set at the size that is trained on: written file by file, so that it goes on where it stopped.

Training images keep their shape. They are reduced until the smallest crop of a training would have to be enlarged, and never
enlarged themselves. What is scored keeps its own size, as scores are taken there.
"""

import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from segzoo.data import DomainDataModule, LabelSpace
from segzoo.data.domains import ImageSet, Pixels
from segzoo.data.image_files import opened, orientation, raw_mode
from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.data.transforms import LABELS
from segzoo.dataprep.sets import Sets, in_threads
from segzoo.errors import ConfigError, DataError
from segzoo.files import named_errors, whole_file, write_text
from segzoo.inference.pictures import with_palette

QUALITY = 95
JOURNAL, MANIFEST = "done.jsonl", "manifest.json"
SCORED = ("target/val", "target/test")


@dataclass(frozen=True)
class Entry:
    """An image that was copied, with its mask.

    Attributes:
        set: its set, e.g. ``target/train``.
        name: of the image.
        of: what says that the files it was made of are the same: their sizes and times.
        files: the files of the copy below its folder, and the SHA-256 of each.
        pixels: of every label id.
    """

    set: str
    name: str
    of: str
    files: Mapping[str, str]
    pixels: Mapping[int, int]


class Copy:
    """A folder with the copy.

    Args:
        folder: where; an earlier call of the same settings may have begun it.
        data: what is copied.
        png: images as PNG, which loses nothing; else JPEG.
        resize_scored: reduce what is scored, too.

    Raises:
        ConfigError: the folder was begun with other settings.
    """

    def __init__(self, folder: Path, data: DomainDataModule, png: bool, resize_scored: bool) -> None:
        self.folder, self.space, self.png = folder, data.label_space, png
        share = 1.0 if data.crop_size else data.crop_scale[0]
        self.sizes = {
            domain: (math.ceil(height / math.sqrt(share)), math.ceil(width / math.sqrt(share)))
            for domain, (height, width) in data.train_sizes.items()
        }
        self.native = () if resize_scored else SCORED
        self.settings: dict[str, Any] = {
            "sizes": {domain: list(size) for domain, size in self.sizes.items()},
            "own_size": list(self.native),
            "images": "png" if png else f"jpeg {QUALITY}",
            "label_space": self.space.to_dict(),
        }
        self._done = self._read_journal()

    def missing(self, sets: Sets) -> list[tuple[str, int]]:
        """Set and position of the images that are still to be copied.

        Raises:
            ConfigError: the folder holds files of something else.
        """
        wanted = {(name, one) for name, images in sets.images.items() for one in images.names}
        for place, entry in list(self._done.items()):
            if place not in wanted:  # no longer among the images
                for file in entry.files:
                    (self.folder / file).unlink(missing_ok=True)
                del self._done[place]
        known = {file for entry in self._done.values() for file in entry.files}
        begun = {
            f"{folder_of(name)}/{kind}/{one}" for name, one in wanted for kind in ("images", "masks", "references")
        }
        for domain in ("source", "target"):
            for path in sorted((self.folder / domain).rglob("*")):
                inner = path.relative_to(self.folder)
                if path.is_file() and str(inner) not in known and str(inner.with_suffix("")) not in begun:
                    if path.suffix == ".partial":
                        path.unlink()
                        continue
                    raise ConfigError(f"{path} is not of this copy; choose another folder, or remove it")
        todo = []
        for name, images in sets.images.items():
            stamps = _stamps(images)
            for position, one in enumerate(images.names):
                done = self._done.get((name, one))
                whole = done is not None and all((self.folder / file).is_file() for file in done.files)
                if done is None or not whole or done.of != stamps[position]:
                    todo.append((name, position))
        return todo

    def write(self, sets: Sets, todo: list[tuple[str, int]], threads: int, done: Callable[[int], None]) -> list[str]:
        """Copies images, and notes each when its files are whole.

        Returns:
            A line for every image that could not be read; it is left out.
        """
        stamps = {name: _stamps(images) for name, images in sets.images.items()}

        def copy(place: tuple[str, int]) -> Entry | str:
            name, position = place
            try:
                return self._copy(name, sets.images[name], position, stamps[name][position])
            except DataError as error:
                return f"{name}: {error}"

        problems = []
        path = self.folder / JOURNAL
        with named_errors(path), path.open("a", encoding="utf-8", errors="surrogateescape") as journal:
            for _, entry in in_threads(copy, todo, threads):
                done(1)
                if isinstance(entry, str):
                    problems.append(entry)
                    continue
                before = self._done.get((entry.set, entry.name))
                for file in set(before.files if before else ()) - set(entry.files):  # its kind of file is another now
                    (self.folder / file).unlink(missing_ok=True)
                self._done[entry.set, entry.name] = entry
                journal.write(json.dumps(asdict(entry)) + "\n")
                journal.flush()
        return problems

    def write_manifest(self, sets: Sets) -> None:
        """Writes the hashes of all files and how many pixels every class has in every set."""
        content: dict[str, Any] = {"settings": self.settings, "sets": {}, "files": {}}
        for name, images in sets.images.items():
            entries = [self._done[name, one] for one in images.names if (name, one) in self._done]
            pixels = {label: sum(entry.pixels.get(label, 0) for entry in entries) for label in range(256)}
            names = {**dict(enumerate(self.space.classes)), IGNORE_INDEX: "ignored"}
            content["sets"][name] = {
                "images": len(entries),
                "pixels": {names[label]: count for label, count in pixels.items() if label in names},
            }
            for entry in entries:
                content["files"] |= entry.files
        write_text(self.folder / MANIFEST, json.dumps(content, indent=1) + "\n")

    def _read_journal(self) -> dict[tuple[str, str], Entry]:
        path = self.folder / JOURNAL
        if not path.is_file():
            write_text(path, json.dumps(self.settings) + "\n")
            return {}
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        head, *lines = text[: text.rfind("\n") + 1].splitlines()
        if json.loads(head) != self.settings:
            raise ConfigError(
                f"{self.folder} was begun with other settings (sizes, kind of images, classes; see {JOURNAL} in it); choose "
                "another folder, or remove it"
            )
        if not text.endswith("\n"):  # it was interrupted in the middle of a line
            write_text(path, text[: text.rfind("\n") + 1])
        entries = [Entry(**json.loads(line)) for line in lines]
        entries = [replace(one, pixels={int(label): count for label, count in one.pixels.items()}) for one in entries]
        return {(entry.set, entry.name): entry for entry in entries}

    def _copy(self, name: str, images: ImageSet, position: int, of: str) -> Entry:
        one, native, place = images.names[position], name in self.native, folder_of(name)
        image = images.image(position)
        height, width = image.shape[:2]
        size = (height, width) if native else kept_size((height, width), self.sizes[name.partition("/")[0]])
        label = images.label(position) if images.has_labels else None
        files: dict[str, str] = {}
        original = images.files[position] if native and images.files else None
        if original is not None and _is_plain(original):
            suffix, content = original.suffix.lower(), original.read_bytes()
        else:
            # What is scored is not changed at all.
            suffix, content = self._encoded(_resized(image, size, cv2.INTER_AREA), self.png or native)
        self._write(f"{place}/images/{one}{suffix}", content, files)
        if images.has_references and name == "target/train":
            reference = _resized(images.reference(position), size, cv2.INTER_AREA)
            suffix, content = self._encoded(reference, self.png)
            self._write(f"{place}/references/{one}{suffix}", content, files)
        pixels: dict[int, int] = {}
        if label is not None:
            if label.shape != (height, width):
                raise DataError(
                    f"the mask of '{one}' is {label.shape[1]}x{label.shape[0]}, its image {width}x{height}; both must agree: "
                    "export the mask anew"
                )
            label = _resized(label, size, LABELS)
            counts = np.bincount(label.ravel(), minlength=256)
            pixels = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
            encoded = io.BytesIO()
            with_palette(label, self.space).save(encoded, "PNG")
            # The mask comes last: where it is, the pair is whole.
            self._write(f"{place}/masks/{one}.png", encoded.getvalue(), files)
        return Entry(name, one, of, files, pixels)

    def _encoded(self, image: Pixels, png: bool) -> tuple[str, bytes]:
        encoded = io.BytesIO()
        if png:
            Image.fromarray(image).save(encoded, "PNG")
        else:
            Image.fromarray(image).save(encoded, "JPEG", quality=QUALITY, subsampling=0)
        return ".png" if png else ".jpg", encoded.getvalue()

    def _write(self, file: str, content: bytes, files: dict[str, str]) -> None:
        with whole_file(self.folder / file) as partial:
            partial.write_bytes(content)
        files[file] = hashlib.sha256(content).hexdigest()


def folder_of(name: str) -> str:
    """The folder of a set, below that of the copy: ``source/train/carla`` of ``source/train: carla``."""
    return name.replace(": ", "/", 1)


def kept_size(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """The smallest (height, width) of the same shape that covers the wanted one, or the size itself where it does not."""
    scale = max(wanted[0] / size[0], wanted[1] / size[1])
    if scale >= 1:
        return size
    # Of which side the scale is, that is exact; rounding must not make the other too small.
    return max(wanted[0], round(size[0] * scale)), max(wanted[1], round(size[1] * scale))


def same_space(name: str, space: LabelSpace, load: Callable[[str], LabelSpace]) -> bool:
    """Whether a packaged label space of that name is this one."""
    try:
        return load(name) == space
    except ConfigError:
        return False


def _stamps(images: ImageSet) -> list[str]:
    """What says that an image and its mask are the files that they were, by position."""
    files, masks = images.files, images.mask_files
    return [" ".join(_stamp(part[position]) for part in (files, masks) if part) for position in range(len(images))]


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:  # reading it says so
        return "missing"
    return f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"


def _resized(picture: Pixels, size: tuple[int, int], interpolation: int) -> Pixels:
    if picture.shape[:2] == size:
        return picture
    return np.asarray(cv2.resize(picture, size[::-1], interpolation=interpolation), np.uint8)


def _is_plain(path: Path) -> bool:
    """Whether any reader gives the same pixels of an image file: 8 bits, upright, JPEG or PNG."""
    with opened(path, "image") as file:
        plain = file.format in ("JPEG", "PNG") and file.mode in ("RGB", "L", "P") and orientation(file) == 1
        return plain and ";16" not in raw_mode(file) and path.suffix.lower() in (".jpg", ".jpeg", ".png")
