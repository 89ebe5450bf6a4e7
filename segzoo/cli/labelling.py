"""The labelling of photographs: what is done already, what could not be done, and every file whole."""

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segzoo.cli.pictures import blend, read_stamp, with_palette, write_legend, write_picture
from segzoo.errors import ConfigError, DataError, NonFinitePredictionError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from segzoo.data.folders import FolderImages
    from segzoo.methods.segmentation import SegmentationMethod

    Pixels = npt.NDArray[np.uint8]

AT_ONCE = 2**27
"""Logits (of all classes and pixels of an image) that are made at once."""


class Labelling:
    """Labels images with a method, and stamps what it writes with what it was made of and with.

    Args:
        method: what labels.
        size: (height, width) of its input; None: the images' own.
        args: the command's options.
    """

    def __init__(self, method: "SegmentationMethod", size: tuple[int, ...] | None, args: argparse.Namespace) -> None:
        self.method, self.size, self.out, self.overwrite = method, size, args.out, args.overwrite
        self.alpha, self.batch_size = args.overlay_alpha, args.batch_size
        with args.ckpt_path.open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
        self.settings = _digest(weights, size, self.alpha, args.image_bits)

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
        write_legend(self.method.label_space, self.out / "legend.png", self._stamp(None))

    def label(
        self, images: "FolderImages", files: dict[str, Path], todo: Sequence[int]
    ) -> tuple[dict[str, str], dict[str, int]]:
        """Labels the images at the positions ``todo``.

        Returns:
            the error by name of those that could not be, and the number of pictures by file where there are several.
        """
        import torch

        from segzoo.cli.counting import counting
        from segzoo.cli.photographs import count_pictures

        failed: dict[str, str] = {}
        several: dict[str, int] = {}
        # Without a common size every image is a batch of its own.
        batch_size = self.batch_size if self.size else 1
        with counting(len(todo)) as count, torch.inference_mode():
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
        import torch

        from segzoo.data.streams import image_tensor
        from segzoo.data.transforms import evaluation_transform

        if not pixels:
            return
        resize = evaluation_transform((self.size[0], self.size[1])) if self.size else None
        try:
            inputs = [image_tensor(resize(image=image)["image"] if resize else image) for image in pixels.values()]
            logits = self.method(torch.stack(inputs).to(self.method.device))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if self.size:
                height, width = self.size
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

        height, width = image.shape[:2]
        space = self.method.label_space
        labels_path, overlay_path = self._paths(name)
        try:
            labels = _classes(logits, (height, width))
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


def _classes(logits: "Tensor", size: tuple[int, int]) -> "Pixels":
    """The class ids (H, W) of logits (C, h, w); those of a large image one class after the other."""
    from segzoo.evaluation import predict_labels
    from segzoo.evaluation.confusion import resize_logits

    if logits.shape[0] * size[0] * size[1] <= AT_ONCE:
        return predict_labels(logits[None], size)[0].byte().cpu().numpy()
    best = resize_logits(logits[None, :1], size)[0, 0]
    labels = best.new_zeros(size).byte()
    for number in range(1, len(logits)):
        one = resize_logits(logits[None, number : number + 1], size)[0, 0]
        labels[one > best] = number
        best = one.maximum(best)
    return labels.cpu().numpy()


def refuse_unusable(values: "Tensor", names: Sequence[str]) -> None:
    """Refuses logits or probabilities (B, C, h, w) that are not finite: they would be class 0 everywhere.

    Raises:
        NonFinitePredictionError: there are such; the message names the first image.
    """
    import torch

    for name, finite in zip(names, torch.isfinite(values).flatten(1).all(dim=1).tolist(), strict=True):
        if not finite:
            raise NonFinitePredictionError(
                f"the prediction of '{name}' is not finite, so that no class is the likeliest: the weights are finite but too "
                "large to compute with; use an earlier checkpoint"
            )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short: that of the device, or of the machine."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"OutOfMemoryError", "MemoryError"}) or "can't allocate memory" in str(error)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode(errors="surrogateescape")).hexdigest()[:16]
