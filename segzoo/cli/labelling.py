"""The labelling of photographs and videos: what is done already, what could not be done, and every file whole."""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from segzoo.errors import ConfigError, DataError, NonFinitePredictionError
from segzoo.inference.outputs import Outputs, stamp_of
from segzoo.inference.pictures import write_legend

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from segzoo.inference import Predictor

    Pixels = npt.NDArray[np.uint8]


IMAGES_AT_ONCE = 8
"""Images per step, where nobody says how many."""


class Item(NamedTuple):
    """One image, or one frame of a video.

    Attributes:
        name: what its files are called, a path without ending.
        path: the file that it comes from.
        read: gives its pixels (H, W, 3), or raises a DataError.
    """

    name: str
    path: Path
    read: "Callable[[], Pixels]"


class Labelling:
    """Labels images, and stamps what it writes with what it was made of and with.

    Args:
        predictor: what labels.
        outputs: what is written.
        args: the command's options.
    """

    def __init__(self, predictor: "Predictor", outputs: Outputs, args: argparse.Namespace) -> None:
        self.predictor, self.outputs, self.overwrite = predictor, outputs, args.overwrite
        self.batch_size = args.batch_size or IMAGES_AT_ONCE
        with args.ckpt_path.open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
        views = [] if predictor.views.plain else [asdict(predictor.views)]
        self.settings = _digest(weights, predictor.size, outputs.alpha, args.image_bits, *views)
        self.failed: dict[str, str] = {}
        self.several: dict[str, int] = {}

    def missing(self, names: Sequence[str], files: dict[str, Path]) -> list[str]:
        """The images that are still to be labelled.

        Raises:
            ConfigError: a file would be written over that is not of an earlier call of the same command.
        """
        todo = [name for name in names if self.is_missing(name, files[name])]
        legend = self.outputs.out / "legend.png"  # of a call that labelled nothing, perhaps
        self._refuse_other(legend, any_settings=True)
        return todo

    def is_missing(self, name: str, path: Path) -> bool:
        """Whether an image, or a frame, is still to be labelled.

        Raises:
            ConfigError: see `missing`.
        """
        known = [self._refuse_other(one) for one in reversed(self.outputs.paths(name).values())]
        return self.overwrite or any(stamp != self._stamp(path) for stamp in known)

    def write_legend(self) -> None:
        """The colours of the classes."""
        write_legend(self.predictor.label_space, self.outputs.out / "legend.png", self._stamp(None))

    def label(self, items: Iterable[Item], total: int, unit: str = "image") -> int:
        """Labels images; ``failed`` says of those that could not be why, ``several`` which files hold how many pictures.

        Args:
            items: the images; an error of theirs is that of what comes next.
            total: how many there are, for the progress.
            unit: what they are.

        Returns:
            how many are labelled.
        """
        from segzoo.cli.counting import counting
        from segzoo.inference.photographs import count_pictures

        done, items = 0, iter(items)
        with counting(total, unit) as count:
            while chosen := list(islice(items, self.predictor.batch_size(self.batch_size))):
                pixels: dict[str, Pixels] = {}
                for item in chosen:
                    try:
                        pixels[item.name] = item.read()
                    except DataError as error:
                        short = isinstance(error.__cause__, MemoryError)
                        why = "; make the image smaller or cut it" if short else ""
                        self.failed[item.name] = str(error).replace(" and its partner", "") + why
                paths = {item.name: item.path for item in chosen}
                for name, image, logits in self._logits(pixels):
                    path = paths[name]
                    try:
                        self._write(name, image, logits, self._stamp(path))
                    except NonFinitePredictionError as error:
                        self.failed[name] = str(error)
                        continue
                    except DataError as error:
                        self.failed[name] = f"{path}: {error}"
                        continue
                    done += 1
                    if unit == "image" and (pictures := count_pictures(path)) > 1:
                        self.several[str(path)] = pictures
                count(len(chosen))
        return done

    def _logits(self, pixels: "dict[str, Pixels]") -> "Iterator[tuple[str, Pixels, Tensor | None]]":
        """The logits of a batch; None where the image comes in several views, whose logits come in strips, later."""
        from segzoo.inference.logits import out_of_memory

        if not self.predictor.views.plain:
            yield from ((name, image, None) for name, image in pixels.items())
            return
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
            self.failed |= {name: f"{name}: out of memory; give the network's input a --size" for name in pixels}
            return
        yield from ((name, image, one) for (name, image), one in zip(pixels.items(), logits, strict=True))

    def _write(self, name: str, image: "Pixels", logits: "Tensor | None", stamp: str) -> None:
        from segzoo.inference.logits import out_of_memory

        height, width = image.shape[:2]
        space, outputs = self.predictor.label_space, self.outputs
        wanted = {"confidence": outputs.confidence, "probabilities": outputs.probabilities}
        try:
            maps = self.predictor.maps(image, logits, name=name, **wanted)
            outputs.write(name, image, maps, space, stamp)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            remedy = "make the image smaller or cut it"
            if logits is None:
                remedy = "give it a smaller --protocol.window or --batch_size"
            raise DataError(
                f"out of memory for {width}x{height} pixels in {space.num_classes} classes; {remedy}"
            ) from error

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
        stamp = stamp_of(path)
        if stamp is None:
            raise ConfigError(
                f"{path} exists and is not of this command; choose another --out, or --overwrite what is there"
            )
        if not any_settings and stamp.split()[2:3] != [self.settings]:
            raise ConfigError(
                f"{path} was made with another checkpoint, --size, --protocol, --image_bits or --overlay_alpha; choose another "
                "--out, or --overwrite what is there"
            )
        return stamp


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode(errors="surrogateescape")).hexdigest()[:16]
