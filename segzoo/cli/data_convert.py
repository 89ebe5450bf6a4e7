"""``segzoo data convert``: a part data set as it is downloaded, into folders of images and masks."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from segzoo.checks import check_range
from segzoo.cli.parser import Parser
from segzoo.cli.rundir import create
from segzoo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from segzoo.data.part_sets import Example

DESCRIPTION = """\
Turn a part data set as it is downloaded into folders that --data NAME reads.

Writes OUT/{train,val,test}/images/NAME and OUT/{train,val,test}/masks/NAME.png (raw ids). The splits, crops and clean-ups are
those of the published few-shot protocol; docs/gradient_matching.md says what they are. What exists already is kept, so that
an interrupted command continues."""
EXAMPLES = """\
examples:
  segzoo data convert celebamask_hq --root CelebAMask-HQ --out data/celebamask_hq
  segzoo data convert pascal_horse --root VOC2010 --out data/pascal_horse --smallest_side 32
  segzoo data convert face34 --root DatasetGAN/annotation --out data/face34
  segzoo data convert cgpart_car --root CGPart --out data/cgpart_car

  segzoo fit --method target-only --data pascal_horse --data.root data/pascal_horse --data.target_labels 10"""
NAMES = ("celebamask_hq", "pascal_horse", "pascal_aeroplane", "cat16", "face34", "car20", "cgpart_car")


def convert(argv: list[str]) -> int:
    """Runs the command."""
    parser = Parser("segzoo data convert", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("name", choices=NAMES, help="the data set, named as in --data NAME")
    add("--root", type=Path, required=True, metavar="DIR", help="where it was unpacked")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the result")
    add("--smallest_side", type=int, metavar="PX", help="of a Pascal object's box; published: 32 and 50 (default: 32)")
    args = parser.parse(argv)
    if args.smallest_side is not None and not args.name.startswith("pascal"):
        raise ConfigError(f"--smallest_side is for pascal_horse and pascal_aeroplane, not for {args.name}")
    check_range("--smallest_side", 32 if args.smallest_side is None else args.smallest_side, 1)
    from tqdm import tqdm

    counts: dict[str, int] = {}
    examples = _reader(args.name, args.smallest_side or 32)(args.root.expanduser())
    for example in tqdm(examples, unit=" images", disable=not sys.stderr.isatty()):
        _write(example, args.out)
        counts[example.split] = counts.get(example.split, 0) + 1
    found = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(f"{found} images: {args.out}")
    print(f"train on them: segzoo fit --method target-only --data {args.name} --data.root {args.out}")
    return 0


def _reader(name: str, smallest_side: int) -> Callable[[Path], Iterator["Example"]]:
    from segzoo.data import part_sets

    if name == "celebamask_hq":
        return part_sets.celebamask_hq
    if name == "cgpart_car":
        return part_sets.cgpart_car
    if name.startswith("pascal_"):
        return lambda root: part_sets.pascal_part(root, name.removeprefix("pascal_"), smallest_side)
    return lambda root: part_sets.datasetgan(root, name.rstrip("0123456789"))


def _write(example: "Example", out: Path) -> None:
    from PIL import Image

    images, masks = (create(out / example.split / kind) for kind in ("images", "masks"))
    mask_path = masks / f"{example.name}.png"
    if mask_path.is_file():
        return
    try:
        picture, mask = example.read()
        if isinstance(picture, Path):
            shutil.copyfile(picture, images / f"{example.name}{picture.suffix}")
        else:
            picture.save(images / f"{example.name}.png")
    except OSError as error:
        raise DataError(f"cannot read {example.split} image {example.name}: {error}") from error
    # The mask comes last and under its name at once: where it is, the pair is complete.
    partial = mask_path.with_suffix(".partial")
    Image.fromarray(mask).save(partial, format="PNG")
    partial.replace(mask_path)
