"""The labelling of photographs: what is done already, what could not be done, and every file whole."""

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segzoo.errors import ConfigError, DataError, NonFinitePredictionError
from segzoo.inference.pictures import blend, read_stamp, with_palette, write_legend, write_picture

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from segzoo.data.folders import FolderImages
    from segzoo.inference import Predictor

    Pixels = npt.NDArray[np.uint8]


class Labelling:
    """Labels images, and stamps what it writes with what it was made of and with.

    Args:
        predictor: what labels.
        args: the command's options.
    """

    def __init__(self, predictor: "Predictor", args: argparse.Namespace) -> None:
        self.predictor, self.out, self.overwrite = predictor, args.out, args.overwrite
        self.alpha, self.batch_size = args.overlay_alpha, args.batch_size
        with args.ckpt_path.open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
        self.settings = _digest(weights, predictor.size, self.alpha, args.image_bits)

    def missing(self, names: Sequence[str], files: dict[str, Path]) -> list[int]:
        """Positions of the images that are still to be labelled.

        Raises:
            ConfigError: a file would be written over that is not of an earlier call of the same command.
        """
        todo = []
        for i, name in enumerate(names):
            paths = self._paths(name)
            known = [self._refuse_other(path) for path in paths]
            if self.overwrite or any(stamp != self._stamp(files[name]) for stamp in known):
                todo.append(i)
        self._refuse_other(self.out / "legend.png", any_settings=True)  # of a call that labelled nothing, perhaps
        return todo

    def write_legend(self) -> None:
        """The colours of the classes."""
        write_legend(self.predictor.label_space, self.out / "legend.png", self._stamp(None))

    def label(
        self, images: "FolderImages", files: dict[str, Path], todo: Sequence[int]
    ) -> tuple[dict[str, str], dict[str, int]]:
        """Labels the images at the positions ``todo``.

        Returns:
            the error by name of those that could not be, and the number of pictures by file where there are several.
        """
        from segzoo.cli.counting import counting
        from segzoo.inference.photographs import count_pictures

        failed: dict[str, str] = {}
        several: dict[str, int] = {}
        # Without a common size every image is a batch of its own.
        batch_size = self.batch_size if self.predictor.size else 1
        with counting(len(todo)) as count:
            for first in range(0, len(todo), batch_size):
                chosen = todo[first : first + batch_size]
                pixels: dict[str, Pixels] = {}
                for i in chosen:
                    try:
                        pixels[images.names[i]] = images.image(i)
                    except DataError as error:
                        short = isinstance(error.__cause__, MemoryError)
                        why = "; make the image smaller or cut it" if short else ""
                        failed[images.names[i]] = str(error).partition("; replace")[0] + why
                for name, image, logits in self._logits(pixels, failed):
                    path = files[name]
                    try:
                        self._write(name, image, logits, self._stamp(path))
                    except DataError as error:
                        failed[name] = f"{path}: {error}"
                        continue
                    if (pictures := count_pictures(path)) > 1:
                        several[str(path)] = pictures
                count(len(chosen))
        return failed, several

    def _logits(self, pixels: "dict[str, Pixels]", failed: dict[str, str]) -> "Iterator[tuple[str, Pixels, Tensor]]":
        from segzoo.inference.logits import out_of_memory, refuse_unusable

        if not pixels:
            return
        try:
            logits = self.predictor.logits(list(pixels.values()))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if self.predictor.size:
                height, width = self.predictor.size
                raise ConfigError(
                    f"out of memory for {len(pixels)} images of {height}x{width} at once; lower --batch_size or --size"
                ) from error
            failed |= {name: f"{name}: out of memory; give the network's input a --size" for name in pixels}
            return
        for (name, image), one in zip(pixels.items(), logits, strict=True):
            try:
                refuse_unusable(one[None], [name])
            except NonFinitePredictionError as error:
                failed[name] = str(error)
                continue
            yield name, image, one

    def _write(self, name: str, image: "Pixels", logits: "Tensor", stamp: str) -> None:
        from PIL import Image

        from segzoo.inference.logits import label_pixels, out_of_memory

        height, width = image.shape[:2]
        space = self.predictor.label_space
        labels_path, overlay_path = self._paths(name)
        try:
            labels = label_pixels(logits, (height, width))
            overlay = Image.fromarray(blend(image, space.colorize(labels), self.alpha))
            # The labels are written last: where they are, the image is done.
            write_picture(overlay, overlay_path, stamp)
            write_picture(with_palette(labels, space), labels_path, stamp)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise DataError(
                f"out of memory for {width}x{height} pixels in {space.num_classes} classes; make the image smaller or cut it"
            ) from error

    def _paths(self, name: str) -> tuple[Path, Path]:
        return self.out / "labels" / f"{name}.png", self.out / "overlays" / f"{name}.jpg"

    def _stamp(self, path: Path | None) -> str:
        """What is written for a file is made of it, as it is now, and with these settings."""
        made_of = _digest()
        if path is not None and path.exists():  # a link to nowhere: reading it says so
            status = path.stat()
            made_of = _digest(path.name, status.st_size, status.st_mtime_ns)
        return f"segzoo predict {self.settings} {made_of}"

    def _refuse_other(self, path: Path, any_settings: bool = False) -> str | None:
        if self.overwrite or not path.exists():
            return None
        stamp = read_stamp(path)
        if stamp is None:
            raise ConfigError(
                f"{path} exists and is not of this command; choose another --out, or --overwrite what is there"
            )
        if not any_settings and stamp.split()[2:3] != [self.settings]:
            raise ConfigError(
                f"{path} was made with another checkpoint, --size, --image_bits or --overlay_alpha; choose another --out, or "
                "--overwrite what is there"
            )
        return stamp


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode(errors="surrogateescape")).hexdigest()[:16]
