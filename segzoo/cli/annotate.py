"""``segzoo annotate``: as many labelled images as wanted, from the generator and the annotator of a checkpoint."""

import argparse
import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segzoo.checkpoint_path import checkpoint_file
from segzoo.checks import check_range
from segzoo.cli.counting import counting
from segzoo.cli.errors import translate
from segzoo.cli.parser import Parser
from segzoo.cli.sections import carried_config
from segzoo.errors import ConfigError
from segzoo.files import write_text
from segzoo.inference.pictures import make_folder, with_palette, write_file, write_legend, write_picture
from segzoo.yaml_files import dump_yaml

if TYPE_CHECKING:
    from segzoo.data.label_spaces import LabelSpace
    from segzoo.methods.gradient_annotator import GradientAnnotator

DESCRIPTION = """\
Generate labelled images with a checkpoint of `segzoo fit --method gradient-annotator`.

Writes, for image number i = 0, 1, ..., COUNT - 1,
  OUT/images/i.png      RGB, 8 bits
  OUT/masks/i.png       class ids, 8 bits, 255 where the annotator is less sure than --min_confidence
  OUT/soft/i.npz        with --soft, also the class probabilities: `probabilities` (C, H, W) float16
and OUT/legend.png, OUT/label_space.yaml and OUT/data.yaml: the generated images as the source, the run's target as the target.

Image i depends on the checkpoint, --seed and i alone. An interrupted command continues when it is given again."""
EXAMPLES = """\
examples:
  segzoo annotate --ckpt_path runs/gradient-annotator/minifaces/default-s0/checkpoints/last.ckpt --count 2000 --out made
  segzoo fit --method source-only --data made/data.yaml       a fresh segmenter, trained on them and tested on the target
  segzoo fit --method joint --data made/data.yaml             the same with the few labelled images"""
CARRIED = ("architecture", "encoder", "encoder_weights", "options")
"""Options of the run's network that a fresh one shares."""


def annotate(argv: list[str]) -> int:
    """Runs the command."""
    args = _parser().parse(argv)
    check_range("--count", args.count, 1)
    check_range("--seed", args.seed, 0)
    check_range("--batch_size", args.batch_size, 1)
    check_range("--min_confidence", args.min_confidence, 0, 1)
    check_range("--size", min(args.size or [1]), 1)
    from segzoo.runtime.quiet import be_quiet

    be_quiet(translate)
    from segzoo.cli.checkpoint import read_checkpoint
    from segzoo.inference import load_checkpoint

    read_checkpoint(args.ckpt_path)  # refuses a configuration that is none
    method, size = load_checkpoint(args.ckpt_path, args.device)
    from segzoo.methods.gradient_annotator import GradientAnnotator

    if not isinstance(method, GradientAnnotator):
        raise ConfigError(
            f"{args.ckpt_path} is of the method '{method.slug}', which generates nothing; expected '{GradientAnnotator.slug}'"
        )
    size = tuple(args.size) if args.size else size
    make_folder(args.out)
    _claim(args, size)
    write_legend(method.label_space, args.out / "legend.png")
    _write_yaml(args.out / "label_space.yaml", _space(method.label_space))
    if content := _data(args, method, size):
        _write_yaml(args.out / "data.yaml", content)
    made = _generate(method, size, args)
    print(f"{made} of {args.count} images generated: {args.out}")
    if content:
        print(f"train on them: segzoo fit --method source-only --data {args.out / 'data.yaml'}")
    return 0


def _parser() -> Parser:
    parser = Parser("segzoo annotate", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("--ckpt_path", type=checkpoint_file, required=True, metavar="FILE", help="checkpoint of gradient-annotator")
    add("--count", type=int, required=True, metavar="N", help="number of images; published: 10000")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    add("--seed", type=int, default=0, metavar="N", help="another seed, other images (default: 0)")
    add("--soft", action="store_true", help="write the class probabilities too")
    add(
        "--min_confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="ignore pixels whose class has a lower probability (default: 0, as published)",
    )
    add("--batch_size", type=int, default=16, metavar="N", help="images per step (default: 16)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="size of the images (default: the run's input)")
    return parser


def _claim(args: argparse.Namespace, size: tuple[int, ...] | None) -> None:
    """Refuses a folder that holds images of other settings."""
    settings = {
        "checkpoint": hashlib.sha256(args.ckpt_path.read_bytes()).hexdigest(),
        "seed": args.seed,
        "size": list(size) if size else None,
        "min_confidence": args.min_confidence,
        "soft": args.soft,
    }
    path = args.out / "annotate.json"
    if path.is_file():
        before = json.loads(path.read_text())
        other = [name for name, value in settings.items() if before.get(name) != value]
        if other:
            raise ConfigError(f"--out {args.out} holds images made with another {other[0]}; choose another folder")
    write_text(path, json.dumps(settings, indent=1) + "\n")


def _generate(method: "GradientAnnotator", size: tuple[int, ...] | None, args: argparse.Namespace) -> int:
    """Makes what is missing; returns how many that were."""
    import torch
    from PIL import Image

    from segzoo.data.label_spaces import IGNORE_INDEX
    from segzoo.data.sampling import derived_seed
    from segzoo.inference.logits import refuse_unusable

    digits = max(5, len(str(args.count - 1)))
    names = {i: f"{i:0{digits}d}" for i in range(args.count)}
    # The mask is written last: where it is, the image is whole.
    missing = [i for i in names if not (args.out / "masks" / f"{names[i]}.png").is_file()]
    with counting(len(missing)) as count, torch.inference_mode():
        for first in range(0, len(missing), args.batch_size):
            chosen = missing[first : first + args.batch_size]
            draws = [torch.Generator().manual_seed(derived_seed(args.seed, "annotate", i)) for i in chosen]
            images, probabilities = method.labelled_images(draws, size)
            refuse_unusable(probabilities, [names[i] for i in chosen])
            confidence, labels = probabilities.max(dim=1)
            labels[confidence < args.min_confidence] = IGNORE_INDEX
            pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            for row, i in enumerate(chosen):
                write_picture(Image.fromarray(pixels[row]), args.out / "images" / f"{names[i]}.png")
                if args.soft:
                    _write_soft(probabilities[row], args.out / "soft" / f"{names[i]}.npz")
                mask = args.out / "masks" / f"{names[i]}.png"
                write_picture(with_palette(labels[row].byte().cpu().numpy(), method.label_space), mask)
            count(len(chosen))
    return len(missing)


def _write_soft(probabilities: Any, path: Path) -> None:
    import numpy as np

    content = io.BytesIO()
    np.savez_compressed(content, probabilities=probabilities.half().cpu().numpy())
    write_file(path, content.getvalue())


def _space(space: "LabelSpace") -> dict[str, Any]:
    """The label space as its YAML has it, without maps: the masks hold label ids."""
    colours = {name: list(rgb) for name, rgb in zip(space.classes, space.palette, strict=True)}
    subsets = {name: [space.classes[i] for i in ids] for name, ids in space.subsets.items()}
    return {"name": space.name, "classes": colours, **({"subsets": subsets} if subsets else {})}


def _data(args: argparse.Namespace, method: "GradientAnnotator", size: tuple[int, ...] | None) -> dict[str, Any] | None:
    """A data YAML with the generated images as source; None for a checkpoint that does not say what the target was."""
    from segzoo.cli.checkpoint import read_checkpoint

    config = carried_config(read_checkpoint(args.ckpt_path), args.ckpt_path)
    run, out = config.get("data"), args.out.resolve()
    if not run:
        return None
    folders = {"images": str(out / "images"), "masks": str(out / "masks"), "name": "generated"}
    source = {
        "class_path": "segzoo.data.PairedFolders",
        "init_args": folders | {"label_space": str(out / "label_space.yaml")},
    }
    kept = {
        name: run[name]
        for name in ("target", "target_labels", "labelled_order", "batch_size", "num_workers")
        if name in run
    }
    named = {
        "name": f"{run['name']}-generated",
        "root": str(Path(run["root"]).resolve()),
        "size": list(size or run["size"]),
    }
    network = {name: config["network"][name] for name in CARRIED if name in config.get("network", {})}
    return {"data": named | {"source": source} | kept, "network": network}


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    write_text(path, dump_yaml(content))
