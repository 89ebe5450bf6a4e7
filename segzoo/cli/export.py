"""``segzoo export``: a trained network as a file that runs without segzoo."""

from pathlib import Path

from segzoo.checkpoint_path import checkpoint_file
from segzoo.cli.errors import translate
from segzoo.cli.parser import Parser
from segzoo.errors import ConfigError

DESCRIPTION = """\
Write the network of a checkpoint as a file that runs without segzoo: ONNX (.onnx), for ONNX Runtime,
TensorRT, OpenVINO and others, or torch's own exported program (.pt2), for Python and C++ with torch.

The file maps `image`, (N, 3, H, W) float32 RGB from 0 to 1 of any number N, to `logits`, (N, C, H, W).
Channel means and padding are inside. H and W are the input size of the training, or --size, or with a
protocol of windows the size of a window. Classes, colours and size are in the file's metadata.

The command runs the file on random images and compares its logits with the network's. It keeps no file
that differs. docs/deployment.md shows how to label a photograph with it.

ONNX needs three packages: pip install onnx onnxscript onnxruntime"""
EXAMPLES = """\
examples:
  segzoo export --ckpt_path runs/metapix/minicity/default-s0 --out city.onnx
  segzoo export --ckpt_path runs/ssda/my_data/default-s0/checkpoints/last.ckpt --out streets.pt2 --size 384 512"""


def export(argv: list[str]) -> int:
    """Runs the command."""
    args = _parser().parse(argv)
    if args.size and min(args.size) < 1:
        raise ConfigError("--size must be at least 1 1")
    from segzoo.runtime.quiet import be_quiet

    be_quiet(translate)
    from segzoo.cli.checkpoint import read_checkpoint
    from segzoo.inference import load
    from segzoo.inference.export import INSTALL

    read_checkpoint(args.ckpt_path)  # refuses a configuration that is none
    made = load(args.ckpt_path, device="cpu").export(args.out, args.size and (args.size[0], args.size[1]))
    height, width = made.size
    shapes = f"image (N, 3, {height}, {width}) to logits (N, {len(made.classes)}, {height}, {width})"
    print(f"{made.path}: {made.path.stat().st_size / 1e6:.1f} MB, {shapes}")
    print("classes: " + ", ".join(f"{number} {name}" for number, name in enumerate(made.classes)))
    if made.compared:
        print(
            f"compared with the checkpoint on {made.compared} random images: logits differ by at most {made.difference:.1e} "
            f"(the largest is {made.largest:.3g}), labels are equal on {100 * made.agreement:.2f} % of the pixels"
        )
    else:
        print(f"not compared with the checkpoint: that needs the package onnxruntime; {INSTALL}")
    return 0


def _parser() -> Parser:
    parser = Parser("segzoo export", DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "--ckpt_path",
        type=checkpoint_file,
        required=True,
        metavar="FILE",
        help="checkpoint of `segzoo fit`, or its run folder",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="file to write, ending in .onnx or .pt2"
    )
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="size of the images (default: as in training)"
    )
    return parser
