"""``segzoo predict``: label a folder of images."""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segzoo.cli.checkpoint_path import checkpoint_file
from segzoo.cli.parser import Parser
from segzoo.cli.pictures import blend, make_folder, read_stamp, with_palette, write_legend, write_picture
from segzoo.errors import CheckpointError, ConfigError, DataError, NonFinitePredictionError, SegzooError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from segzoo.data.folders import FolderImages
    from segzoo.methods.base import SegmentationMethod

    Pixels = npt.NDArray[np.uint8]

DESCRIPTION = """\
Label a folder of images, or one image. The method, its classes and the size of its input come with the checkpoint.

Writes, for every image below --input and with the same sub-folders,
  OUT/labels/NAME.png     class ids, 8 bits, at the image's own size; a palette shows them in the classes' colours
  OUT/overlays/NAME.jpg   the image with the classes' colours over it
and OUT/legend.png, the colour of every class.

Photographs are turned upright first, as their EXIF orientation says; what is written has that upright size.

An interrupted command continues when it is given again: images that are labelled already, with the same checkpoint and
options, are left alone. Files of another origin are not written over without --overwrite. Sub-folders are searched, hidden
files and folders are not; every folder is visited once, whatever links to it. Of several pictures in one file (pages,
animations) the first is labelled. What was not labelled is named at the end.

exit status: 0, all images are labelled; 1, some could not be and are named; 2, an error, and nothing more was labelled"""
EXAMPLES = """\
examples:
  segzoo predict --ckpt_path runs/metapix/minicity/default-s0/checkpoints/last.ckpt --input photos --out seen
  segzoo predict --ckpt_path last.ckpt --input photos --out labelled --size 384 512 --device cuda:1"""

AT_ONCE = 2**27
"""Logits (of all classes and pixels of an image) that are made at once."""


def predict(argv: list[str]) -> int:
    """Runs the command."""
    args = _parser().parse(argv)
    if args.ckpt_path == Path("last") and not args.ckpt_path.exists():
        raise CheckpointError(
            "--ckpt_path last: expected a path, e.g. runs/<method>/<data>/default-s0/checkpoints/last.ckpt"
        )
    _check_folders(args.input, args.out)
    if not 0 <= args.overlay_alpha <= 1 or args.batch_size < 1 or (args.size and min(args.size) < 1):
        raise ConfigError("--overlay_alpha must be in [0, 1], --batch_size and --size at least 1")
    from segzoo.cli.quiet import be_quiet

    be_quiet()
    method, size = load_checkpoint(args.ckpt_path, args.device)
    if not method.segments:
        raise ConfigError(f"{args.ckpt_path} is of the method '{method.slug}', which labels no images")
    if args.size:
        method.segmenter.check_sizes({"--size": args.size})
    from segzoo.cli.photographs import check_apart, find_images, said_at_the_end
    from segzoo.data.folders import FolderImages
    from segzoo.data.label_spaces import IDENTITY, load_class_map

    files, others = find_images(args.input)
    class_map = load_class_map(method.label_space, IDENTITY)
    images = FolderImages(args.input, None, class_map, upright=True, files=files)
    labelling = Labelling(method, tuple(args.size) if args.size else size, args)
    make_folder(args.out / "labels")
    check_apart(images.names, args.out / "labels")
    todo = labelling.missing(images.names, files)
    labelling.write_legend()
    failed, several = labelling.label(images, files, todo)
    if len(failed) < len(files):
        before = f", {len(files) - len(todo)} were before" if len(todo) < len(files) else ""
        print(f"{len(todo) - len(failed)} images labelled{before}: {args.out}")
    for line in said_at_the_end(others, several):
        print(line, file=sys.stderr)
    return _report(list(failed.values()), len(files))


def _check_folders(path: Path, out: Path) -> None:
    """Refuses an --out that would be read as images next time, and an --input that would be written over."""
    if not path.exists():
        raise DataError(f"--input {path} is not a folder: it does not exist; expected a folder of images, or one image")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; expected a folder")
    inner, outer = path.resolve(), out.resolve()
    if path.is_dir() and outer.is_relative_to(inner):
        raise ConfigError(f"--out {out} lies in --input {path}, where it would be read as images next time")
    if inner == outer / "legend.png" or any(inner.is_relative_to(outer / name) for name in ("labels", "overlays")):
        raise ConfigError(f"--input {path} lies where --out {out} writes, and would be lost; choose another --out")


def _report(failed: Sequence[str], images: int) -> int:
    """Names what could not be labelled; returns the exit status."""
    from segzoo.cli.photographs import first_of

    if not failed:
        return 0
    if len(failed) == images:
        raise DataError(failed[0] if images == 1 else f"none of {images} images could be labelled: {first_of(failed)}")
    print(f"error: {len(failed)} of {images} images could not be labelled: {first_of(failed)}", file=sys.stderr)
    return 1


def load_checkpoint(path: Path | str, device: str) -> "tuple[SegmentationMethod, tuple[int, int] | None]":
    """The trained method in evaluation mode, and the (height, width) of its input.

    Args:
        path: checkpoint of ``segzoo fit``, or of a ``lightning.Trainer`` with a method of segzoo.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        CheckpointError: the file cannot be read, is damaged, does not fit the method, or holds numbers that are not finite.
        ConfigError: an unknown or absent device.
    """
    from segzoo.cli.checkpoint import read_checkpoint
    from segzoo.methods.registry import load_method

    saved = read_checkpoint(path)
    target = find_device(device)
    cls = load_method(saved["method"])
    try:
        # The files that the training started from are not needed any more, and may not be on this machine.
        unused: dict[str, Any] = dict.fromkeys(cls.STARTING_POINTS)
        method = cls.load_from_checkpoint(path, map_location=target, weights_only=True, **unused)
    except SegzooError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # options that are broken, or of another version, break wherever they are used
        if type(error).__name__ == "OutOfMemoryError":
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} does not fit the method '{saved['method']}' of segzoo: {reason}") from error
    method.eval().to(target)
    return method, tuple(saved["size"]) if saved.get("size") else None


def _parser() -> Parser:
    parser = Parser("segzoo predict", DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "--ckpt_path", type=checkpoint_file, required=True, metavar="FILE", help="checkpoint of `segzoo fit`"
    )
    parser.add_argument("--input", type=Path, required=True, metavar="PATH", help="folder of images, or one image")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--batch_size", type=int, default=8, metavar="N", help="images per step (default: 8)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="input of the network (default: as in training)"
    )
    parser.add_argument(
        "--overlay_alpha",
        type=float,
        default=0.5,
        metavar="A",
        help="opacity of the colours, 0 to 1 (default: 0.5)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="label all images, and write over whatever OUT holds of their names"
    )
    return parser


def find_device(name: str) -> Any:
    """The device of ``--device``: ``auto`` is the first of cuda, mps and cpu that is there.

    Raises:
        ConfigError: unknown, or absent on this machine.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name} is not available: {str(error).splitlines()[0]}") from error
    return device


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
        self.settings = _digest(weights, size, self.alpha)

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
        self._refuse_other(self.out / "legend.png")
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

    def _refuse_other(self, path: Path) -> str | None:
        if self.overwrite or not path.exists():
            return None
        stamp = read_stamp(path)
        if stamp is None:
            raise ConfigError(
                f"{path} exists and is not of this command; choose another --out, or --overwrite what is there"
            )
        if stamp.split()[2:3] != [self.settings]:
            raise ConfigError(
                f"{path} was made with another checkpoint, --size or --overlay_alpha; choose another --out, or "
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
