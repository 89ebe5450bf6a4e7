"""``segzoo data doubts``: the masks of a data set that a trained network does not believe."""

from pathlib import Path

from segzoo.checkpoint_path import checkpoint_file
from segzoo.checks import check_range
from segzoo.cli.counting import counting
from segzoo.cli.data_options import build_data, split_data_options
from segzoo.cli.expand import expand
from segzoo.cli.parser import Parser
from segzoo.cli.rundir import create
from segzoo.cli.train import read
from segzoo.errors import ConfigError

DESCRIPTION = """\
List the images whose masks a trained network believes least. Masks that are shifted, or that name
the wrong class, come first; look at them, and correct or remove them.

The network is that of a checkpoint of `segzoo fit`, and the data are those of its run; --data DATA
takes others of the same classes, and --data.OPTION changes an option. Take a checkpoint that has seen
each image a few times only: after a long training a network has learned wrong masks by heart.

Prints the most doubted images and writes
  OUT/doubts.csv    a row per image, the most doubted first
  OUT/doubts.png    the first ones: image, mask, prediction, and the probability of the mask's labels

In the table, `belief` is how much more probable the mask's labels are than labels of these classes
are on average (negative: less), and the last three columns name the class that the network
contradicts most, the share of the image's pixels, and what it says instead."""
EXAMPLES = """\
examples:
  segzoo data doubts --ckpt_path runs/joint/my_data/default-s0/checkpoints/last.ckpt
  segzoo data doubts --ckpt_path last.ckpt --domain target --split val --count 10 --out doubts
  segzoo data doubts --ckpt_path last.ckpt --data.root /new/place/of/the/images"""


def doubts(argv: list[str]) -> int:
    """Runs the command."""
    own, options = split_data_options(argv)
    args = _parser().parse(own)
    check_range("--count", args.count, 1)
    named = ["--data", args.data] if args.data else []
    invocation = expand("test", ["--ckpt_path", str(args.ckpt_path), *named, *options], read)
    assert invocation is not None
    data = build_data(invocation, "test")

    from segzoo.dataprep.doubts import HEADER, Judge, lines, rank, write_csv
    from segzoo.inference import load

    if not getattr(data, args.domain).has_split(args.split, data.root):
        raise ConfigError(f"--split {args.split}: the {args.domain} has no such split")
    images = data.images(args.domain, args.split)
    if not images.has_labels or not len(images):
        raise ConfigError(f"{args.domain}/{args.split} has no masks that could be doubted")
    predictor = load(args.ckpt_path, device=args.device)
    if predictor.classes != data.label_space.classes:
        raise ConfigError(
            f"the checkpoint has the classes {', '.join(predictor.classes)}, and {data.name} has "
            f"{', '.join(data.label_space.classes)}: a network can judge masks of its own classes only"
        )
    judge = Judge(predictor, images, source=args.domain == "source")
    with counting(len(images)) as done:
        found = rank(judge.look(done))
    if not found:
        raise ConfigError(f"no mask of {args.domain}/{args.split} has a labelled pixel: there is nothing to compare")
    rows = lines(found, images, predictor.label_space)
    shown = [HEADER, *rows[: args.count]]
    widths = [max(len(row[i]) for row in shown) for i in range(len(HEADER))]
    for row in shown:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    folder = create(args.out or Path(f"doubts-{data.name}-{args.domain}"))
    write_csv(rows, folder / "doubts.csv")
    title = f"{args.domain}/{args.split}: the masks that the network believes least"
    judge.draw(found[: args.count], title, folder / "doubts.png")
    print(f"{len(found)} masks compared: {folder}")
    return 0


def _parser() -> Parser:
    parser = Parser("segzoo data doubts", DESCRIPTION, EXAMPLES)
    parser.add_argument("--ckpt_path", type=checkpoint_file, required=True, metavar="FILE", help="checkpoint of a run")
    parser.add_argument("--data", metavar="DATA", help="other data than those of the run: a name or a YAML")
    parser.add_argument(
        "--domain", choices=["source", "target"], default="source", help="whose masks (default: source)"
    )
    parser.add_argument(
        "--split", choices=["train", "val", "test"], default="train", help="of the domain (default: train)"
    )
    parser.add_argument("--count", type=int, default=12, metavar="N", help="images to print and to draw (default: 12)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the list (default: doubts-NAME-DOMAIN)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    return parser
