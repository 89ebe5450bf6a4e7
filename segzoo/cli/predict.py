"""``segzoo predict``: label a folder of images."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from segzoo.checkpoint_path import checkpoint_file
from segzoo.checks import check_range
from segzoo.cli.errors import translate
from segzoo.cli.labelling import Item, Labelling
from segzoo.cli.parser import Parser
from segzoo.cli.protocol import add_protocol, read_protocol
from segzoo.configs import config_names
from segzoo.data.files import spelled
from segzoo.errors import CheckpointError, ConfigError, DataError
from segzoo.inference.outputs import Outputs
from segzoo.inference.pictures import make_folder

if TYPE_CHECKING:
    from segzoo.cli.labelling import Pixels
    from segzoo.inference import Predictor

DESCRIPTION = """\
Label a folder of images and videos, or a single file. The checkpoint contains the method, the
classes, the input size and the protocol.

Writes for every image below --input, in the same sub-folders,
  OUT/labels/NAME.png          8-bit class ids at the image's own size, with a palette of colours
  OUT/overlays/NAME.jpg        the image with the classes' colours over it
  OUT/confidences/NAME.png     with --confidence, the probability of each pixel's label (255 is 1)
  OUT/probabilities/NAME.npz   with --probabilities, `probabilities` (C, H, W) float16 of all classes
  OUT/cityscapes/CITY_SEQUENCE_FRAME_labelIds.png   with --export cityscapes, for its official script
and OUT/legend.png with the colour of every class. Frame i of a video NAME becomes the image NAME/i,
with six digits.

The network gets each image whole, resized as in training. For large images, `--protocol.input
native --protocol.window 512 512` gives it windows of the image at its own size: a 4096x3000
photograph needs less than 2 GB (docs/large_images.md).

Photographs are first rotated upright by their EXIF orientation, and the results have this size. The
exception is a training whose target had `upright: false`.

The same command continues after an interruption and skips images that are already labelled with the
same checkpoint and options. Files of other origin are not overwritten without --overwrite.
Sub-folders are searched, hidden files and folders are not, and links lead to no folder twice. Folders
of masks (label, masks, gt, ...) beside one of images are left out. In files with several pictures
(pages, animations), only the first is labelled. At the end, the command lists what it did not label.

exit status: 0, all images are labelled; 1, some could not be labelled and are listed; 2, an error
stopped the command"""
KINDS = ("labels", "overlays", "confidences", "probabilities", "cityscapes")
"""Folders that are written below OUT."""
EXAMPLES = """\
examples:
  segzoo predict --ckpt_path runs/metapix/minicity/default-s0/checkpoints/last.ckpt --input photos --out seen
  segzoo predict --ckpt_path last.ckpt --input photos --out labelled --size 384 512 --device cuda:1
  segzoo predict --ckpt_path last.ckpt --input drive.mp4 --out drive
  segzoo predict --ckpt_path last.ckpt --input large --out seen --protocol.input native --protocol.window 512 512 --confidence
  segzoo predict --ckpt_path last.ckpt --input leftImg8bit/val --out val --protocol cityscapes-val --export cityscapes"""


def predict(argv: list[str]) -> int:
    """Runs the command."""
    args = _parser().parse(argv)
    if args.ckpt_path == Path("last") and not args.ckpt_path.exists():
        raise CheckpointError(
            "--ckpt_path last: expected a path, e.g. runs/<method>/<data>/default-s0/checkpoints/last.ckpt"
        )
    args.input = spelled(args.input)
    _check_folders(args.input, args.out)
    batch_size = 1 if args.batch_size is None else args.batch_size
    if not 0 <= args.overlay_alpha <= 1 or batch_size < 1 or (args.size and min(args.size) < 1):
        raise ConfigError("--overlay_alpha must be in [0, 1], --batch_size and --size at least 1")
    if args.image_bits is not None:
        check_range("--image_bits", args.image_bits, 8, 16)
    from segzoo.runtime.quiet import be_quiet

    be_quiet(translate)
    from segzoo.cli.checkpoint import read_checkpoint
    from segzoo.inference import load
    from segzoo.inference.cityscapes import CityscapesExport
    from segzoo.inference.photographs import apart_from_masks, check_apart, find_images, said_at_the_end
    from segzoo.inference.videos import frame_name

    read_checkpoint(args.ckpt_path)  # refuses a configuration that is none
    predictor = load(args.ckpt_path, device=args.device, image_bits=args.image_bits)
    _set_views(predictor, args)
    videos: dict[str, Path] = {}
    found, others = find_images(args.input, videos)
    files, masks = apart_from_masks(found)
    export = CityscapesExport(predictor.label_space) if args.export else None
    outputs = Outputs(args.out, args.overlay_alpha, args.confidence, args.probabilities, export)
    images = predictor.files(args.input, files)
    if export is not None:
        export.check([*images.names, *(frame_name(name, 0) for name in videos)])
    labelling = Labelling(predictor, outputs, args)
    make_folder(args.out / "labels")
    check_apart([*images.names, *videos], args.out / "labels")
    todo = labelling.missing(images.names, files)
    labelling.write_legend()
    number = {name: i for i, name in enumerate(images.names)}
    done = labelling.label([Item(name, files[name], partial(images.image, number[name])) for name in todo], len(todo))
    if done or (files and not todo):
        before = f", {len(files) - len(todo)} were before" if len(todo) < len(files) else ""
        print(f"{done} images labelled{before}; {args.out} holds {outputs.content}")
    for name, path in videos.items():
        _label_video(labelling, name, path)
    for line in said_at_the_end(others, masks, labelling.several):
        print(line, file=sys.stderr)
    return _report(list(labelling.failed.values()), len(files) + len(videos), "files" if videos else "images")


def _set_views(predictor: "Predictor", args: argparse.Namespace) -> None:
    """Takes the protocol and the size of the input that the command line gives."""
    from segzoo.data.views import SECTION, Views
    from segzoo.options import resolve
    from segzoo.runtime.memory import give_freed_memory_back

    trained = (predictor.method.run_config or {}).get(SECTION) or {}
    predictor.views = resolve(Views, read_protocol(args, trained), SECTION)
    if not predictor.views.plain:
        give_freed_memory_back()
    predictor.windows_at_once = args.batch_size or predictor.windows_at_once
    if args.size and predictor.views.input == "native":
        raise ConfigError("--size has no effect where --protocol.input is native; leave one of them out")
    if args.size:
        predictor.method.segmenter.check_sizes({"--size": args.size})
        predictor.size = (args.size[0], args.size[1])
    predictor.check_size()


def _label_video(labelling: Labelling, name: str, path: Path) -> None:
    """Labels the frames that are not labelled yet; why it could not be done goes to the others."""
    from segzoo.inference.videos import count_frames, frame_name, frames

    def items() -> "Iterator[Item]":
        for number, frame in enumerate(frames(path)):
            own = frame_name(name, number)
            if labelling.is_missing(own, path):
                yield Item(own, path, partial(_same, frame))

    try:
        done = labelling.label(items(), count_frames(path), "frame")
    except DataError as error:
        labelling.failed[name] = str(error)
        return
    print(f"{done} frames of {path} labelled; {labelling.outputs.out} holds {labelling.outputs.content}")


def _same(pixels: "Pixels") -> "Pixels":
    return pixels


def _check_folders(path: Path, out: Path) -> None:
    """Refuses an --out that would be read as images next time, and an --input that would be written over."""
    if not path.exists():
        raise DataError(f"--input {path} is not a folder: it does not exist; expected a folder of images, or one image")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; expected a folder")
    inner, outer = path.resolve(), out.resolve()
    if path.is_dir() and outer.is_relative_to(inner):
        raise ConfigError(f"--out {out} lies in --input {path}, where it would be read as images next time")
    if inner == outer / "legend.png" or any(inner.is_relative_to(outer / name) for name in KINDS):
        raise ConfigError(f"--input {path} lies where --out {out} writes, and would be lost; choose another --out")


def _report(failed: Sequence[str], images: int, what: str) -> int:
    """Names what could not be labelled; returns the exit status."""
    from segzoo.inference.photographs import first_of

    if not failed:
        return 0
    if len(failed) == images:
        raise DataError(failed[0] if images == 1 else f"none of {images} {what} could be labelled: {first_of(failed)}")
    print(f"error: {len(failed)} of {images} {what} could not be labelled: {first_of(failed)}", file=sys.stderr)
    return 1


def _parser() -> Parser:
    parser = Parser("segzoo predict", DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "--ckpt_path", type=checkpoint_file, required=True, metavar="FILE", help="checkpoint of `segzoo fit`"
    )
    parser.add_argument(
        "--input", type=Path, required=True, metavar="PATH", help="folder of images and videos, or a single file"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--batch_size",
        type=int,
        metavar="N",
        help="images at a time (default: 8), or windows of one image (default: 2)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="input size of the network (default: as in training)"
    )
    parser.add_argument(
        "--image_bits",
        type=int,
        metavar="N",
        help="used bits of 16-bit images, e.g. 12 (default: as for the target in training, else 16)",
    )
    parser.add_argument(
        "--overlay_alpha",
        type=float,
        default=0.5,
        metavar="A",
        help="opacity of the colours, 0 to 1 (default: 0.5)",
    )
    parser.add_argument("--confidence", action="store_true", help="also write the probability of every label")
    parser.add_argument("--probabilities", action="store_true", help="also write the probabilities of all classes")
    parser.add_argument(
        "--export", choices=["cityscapes"], help="also write official label ids for the official script"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="label all images again, and overwrite files of the same names in OUT"
    )
    add_protocol(parser, config_names("protocol"))
    return parser
