"""``segzoo predict``: label a folder of images."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segzoo.cli.checkpoint_path import checkpoint_file
from segzoo.cli.parser import Parser
from segzoo.errors import CheckpointError, ConfigError, DataError, NonFinitePredictionError, SegzooError
from segzoo.files import named_errors

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image
    from torch import Tensor

    from segzoo.data import ImageSet
    from segzoo.data.label_spaces import LabelSpace
    from segzoo.methods.base import SegmentationMethod

    Pixels = npt.NDArray[np.uint8]

DESCRIPTION = """\
Label a folder of images. The method, its classes and the size of its input come with the checkpoint.

Writes, for every image below --input and with the same sub-folders,
  OUT/labels/NAME.png     class ids, 8 bits, at the image's own size; a palette shows them in the classes' colours
  OUT/overlays/NAME.jpg   the image with the classes' colours over it
and OUT/legend.png, the colour of every class.

Photographs are turned upright first, as their EXIF orientation says; what is written has that upright size."""
EXAMPLES = """\
examples:
  segzoo predict --ckpt_path runs/metapix/minicity/default-s0/checkpoints/last.ckpt --input photos --out seen
  segzoo predict --ckpt_path last.ckpt --input photos --out labelled --size 384 512 --device cuda:1"""


def predict(argv: list[str]) -> int:
    """Runs the command."""
    args = _parser().parse(argv)
    if args.ckpt_path == Path("last") and not args.ckpt_path.exists():
        raise CheckpointError(
            "--ckpt_path last: expected a path, e.g. runs/<method>/<data>/default-s0/checkpoints/last.ckpt"
        )
    if not args.input.is_dir():
        raise DataError(f"--input {args.input} is not a folder; expected one with images")
    if args.out.resolve().is_relative_to(args.input.resolve()):
        raise ConfigError(f"--out {args.out} lies in --input {args.input}, where it would be read as images next time")
    if not 0 <= args.overlay_alpha <= 1 or args.batch_size < 1 or (args.size and min(args.size) < 1):
        raise ConfigError("--overlay_alpha must be in [0, 1], --batch_size and --size at least 1")
    from segzoo.cli.quiet import be_quiet

    be_quiet()
    method, size = load_checkpoint(args.ckpt_path, args.device)
    if not method.segments:
        raise ConfigError(f"{args.ckpt_path} is of the method '{method.slug}', which labels no images")
    if args.size:
        method.segmenter.check_sizes({"--size": args.size})
    from segzoo.data.folders import FolderImages
    from segzoo.data.label_spaces import IDENTITY, load_class_map

    images = FolderImages(args.input, None, load_class_map(method.label_space, IDENTITY), upright=True)
    make_folder(args.out)
    write_legend(method, args.out / "legend.png")
    _label(method, images, tuple(args.size) if args.size else size, args)
    print(f"{len(images)} images labelled: {args.out}")
    return 0


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
    parser.add_argument("--input", type=Path, required=True, metavar="DIR", help="folder of images")
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


def _label(
    method: "SegmentationMethod", images: "ImageSet", size: tuple[int, int] | None, args: argparse.Namespace
) -> None:
    import torch
    from PIL import Image
    from tqdm import tqdm

    from segzoo.data.streams import image_tensor
    from segzoo.data.transforms import evaluation_transform
    from segzoo.evaluation import predict_labels

    resize = evaluation_transform(size) if size else None
    # Without a common size every image is a batch of its own.
    batch_size = args.batch_size if size else 1
    progress = tqdm(total=len(images), unit="image", disable=not sys.stderr.isatty())
    with progress, torch.inference_mode():
        for first in range(0, len(images), batch_size):
            names = images.names[first : first + batch_size]
            pixels = [images.image(first + i) for i in range(len(names))]
            inputs = [image_tensor(resize(image=image)["image"] if resize else image) for image in pixels]
            logits = method(torch.stack(inputs).to(method.device))
            refuse_unusable(logits, names)
            for image, one, name in zip(pixels, logits, names, strict=True):
                height, width = image.shape[:2]
                labels = predict_labels(one[None], (height, width))[0].byte().cpu().numpy()
                write_picture(with_palette(labels, method.label_space), args.out / "labels" / f"{name}.png")
                overlay = _blend(image, method.label_space.colorize(labels), args.overlay_alpha)
                write_picture(Image.fromarray(overlay), args.out / "overlays" / f"{name}.jpg")
            progress.update(len(names))


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


def _blend(image: "Pixels", colours: "Pixels", alpha: float) -> "Pixels":
    import numpy as np

    return np.round((1 - alpha) * image.astype(np.float32) + alpha * colours).astype(np.uint8)


def with_palette(labels: "Pixels", space: "LabelSpace") -> "Image.Image":
    """Label ids (H, W) as a palette picture in the classes' colours, which stores the ids."""
    import numpy as np
    from PIL import Image

    picture = Image.fromarray(labels)
    # All 256 colours: with fewer the writer would store the ids in fewer bits.
    picture.putpalette(space.colorize(np.arange(256)[None]).tobytes())
    return picture


def write_picture(picture: "Image.Image", path: Path) -> None:
    """Saves a picture, in a folder that is made if need be."""
    make_folder(path.parent)
    with named_errors(path):
        picture.save(path)


def make_folder(folder: Path) -> None:
    """Makes a folder below --out.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to --out {folder}: {error.strerror}") from error


def write_legend(method: "SegmentationMethod", path: Path) -> None:
    """A picture of the colour of every class."""
    from PIL import Image, ImageDraw

    space, row = method.label_space, 24
    legend = Image.new("RGB", (280, row * space.num_classes + 8), "white")
    draw = ImageDraw.Draw(legend)
    for i, (name, colour) in enumerate(zip(space.classes, space.palette, strict=True)):
        top = 4 + i * row
        draw.rectangle((6, top + 2, 36, top + row - 2), fill=tuple(colour), outline="black")
        draw.text((46, top + 5), f"{i}  {name}", fill="black")
    with named_errors(path):
        legend.save(path)
