"""``segzoo predict``: label a folder of images."""

import sys
from collections.abc import Sequence
from pathlib import Path

from segzoo.checkpoint_path import checkpoint_file
from segzoo.checks import check_range
from segzoo.cli.errors import translate
from segzoo.cli.labelling import Labelling
from segzoo.cli.parser import Parser
from segzoo.errors import CheckpointError, ConfigError, DataError
from segzoo.inference.pictures import make_folder

DESCRIPTION = """\
Label a folder of images, or one image. The method, its classes and the size of its input come with the checkpoint.

Writes, for every image below --input and with the same sub-folders,
  OUT/labels/NAME.png     class ids, 8 bits, at the image's own size; a palette shows them in the classes' colours
  OUT/overlays/NAME.jpg   the image with the classes' colours over it
and OUT/legend.png, the colour of every class.

Photographs are turned upright first, as their EXIF orientation says, unless the training's target had `upright: false`; what is
written has that upright size.

An interrupted command continues when it is given again: images that are labelled already, with the same checkpoint and
options, are left alone. Files of another origin are not written over without --overwrite. Sub-folders are searched, hidden
files and folders are not; every folder is visited once, whatever links to it. Of several pictures in one file (pages,
animations) the first is labelled. What was not labelled is named at the end.

exit status: 0, all images are labelled; 1, some could not be and are named; 2, an error, and nothing more was labelled"""
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
    _check_folders(args.input, args.out)
    if not 0 <= args.overlay_alpha <= 1 or args.batch_size < 1 or (args.size and min(args.size) < 1):
        raise ConfigError("--overlay_alpha must be in [0, 1], --batch_size and --size at least 1")
    if args.image_bits is not None:
        check_range("--image_bits", args.image_bits, 8, 16)
    from segzoo.runtime.quiet import be_quiet

    be_quiet(translate)
    from segzoo.cli.checkpoint import read_checkpoint
    from segzoo.inference import load
    from segzoo.inference.photographs import check_apart, find_images, said_at_the_end

    read_checkpoint(args.ckpt_path)  # refuses a configuration that is none
    predictor = load(args.ckpt_path, device=args.device, image_bits=args.image_bits)
    if args.size:
        predictor.method.segmenter.check_sizes({"--size": args.size})
        predictor.size = (args.size[0], args.size[1])
    files, others = find_images(args.input)
    images = predictor.files(args.input, files)
    labelling = Labelling(predictor, args)
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
    from segzoo.inference.photographs import first_of

    if not failed:
        return 0
    if len(failed) == images:
        raise DataError(failed[0] if images == 1 else f"none of {images} images could be labelled: {first_of(failed)}")
    print(f"error: {len(failed)} of {images} images could not be labelled: {first_of(failed)}", file=sys.stderr)
    return 1


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
        "--image_bits",
        type=int,
        metavar="N",
        help="bits that images of 16 bits per channel use, e.g. 12 (default: as the target's in training, else 16)",
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
