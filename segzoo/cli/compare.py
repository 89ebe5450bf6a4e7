"""``segzoo compare``: the same data, steps and seeds for several methods, and one table."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segzoo.checks import check_range
from segzoo.cli.expand import expand
from segzoo.cli.parser import Parser
from segzoo.cli.rundir import create, without_launcher
from segzoo.cli.train import read
from segzoo.errors import ConfigError, SegzooError
from segzoo.files import write_text
from segzoo.methods.registry import load_method
from segzoo.runtime.lock import locked
from segzoo.study.plan import CHECKPOINT, Plan, Row, parse_row, parse_seeds, parse_variants
from segzoo.study.results import check_beginnings
from segzoo.study.running import Training, train_all
from segzoo.study.trainings import Trainings

DESCRIPTION = """\
Train several methods with the same data, steps and seeds, and print one table: mean and standard deviation of the test
mIoU over the seeds, and the differences to one row, seed by seed.

A row is a method, a variant of one (`--variant`), or ROW@OTHER: ROW with the constant source weight that equals the mean
weight of OTHER's run with the same seed (`joint@metapix`, the control of a learned weighting). In a variant's options,
{ROW} is the last checkpoint of that row's run with the same seed. Runs that are complete are not repeated, so that an
interrupted comparison continues; one with other options needs another folder. Everything after `--` goes to every
`segzoo fit`."""
EXAMPLES = """\
examples:
  segzoo compare --rows target-only,joint,metapix --seeds 0-4 --reference metapix
  segzoo compare --rows metapix,joint@metapix --seeds 0,1,2 --jobs 2 -- --data my_data.yaml --trainer.max_steps 2000
  segzoo compare --rows sepico,sepico-fast --variant 'sepico-fast: sepico --method.fast true'
  segzoo compare --rows source-only,tuned --variant 'tuned: target-only --network.initial_checkpoint {source-only}'"""
OWN_OPTIONS = ("--method", "--ckpt_path", "--name", "--seed_everything", "--runs", "--out")
"""Of `segzoo fit`, which compare gives itself."""
WHOLE: dict[str, tuple[Any, ...]] = {
    "limit_test_batches": (None, "null", "1.0"),
    "fast_dev_run": (None, "null", "false", "False", "0"),
    "max_time": (None, "null"),
}
"""Trainer options that leave out some of the training or of the test, and their values that do not."""
FIT_OPTIONS = (
    "--method",
    "--data",
    "--trainer.",
    "--config",
    "--logger",
    "--checkpoint_steps",
    "--keep_steps",
    "--panel_steps",
)
PROGRAM = (sys.executable, "-m", "segzoo.cli.follow")
"""`segzoo` that ends when this process does."""


def compare(argv: list[str]) -> int:
    """Runs the command."""
    own, common = _split(argv)
    for argument in own:
        if argument.startswith(FIT_OPTIONS):
            name = argument.partition("=")[0]
            raise ConfigError(
                f"unknown option '{name}'; options of `segzoo fit` go after `--`: compare ... -- {name} ..."
            )
    args = _parser().parse(own)
    check_range("--jobs", args.jobs, 1)
    variants = parse_variants(args.variant)
    _check_options(common, *(variant.options for variant in variants.values()))
    rows = tuple(parse_row(text, variants) for text in args.rows.split(","))
    used = {name for row in rows for name in row.names}
    if unused := [name for name in variants if name not in used]:
        raise ConfigError(f"--variant {unused[0]} is in no row; add it to --rows, or leave it out")
    plan = Plan(rows, parse_seeds(args.seeds), args.reference or rows[-1].name, tuple(common))
    for row in plan.rows:
        _check_row(row, common)
    from segzoo.methods.scoring import ScoredImages  # imports torch: a mistyped option is answered before

    for row in plan.rows:
        if not issubclass(load_method(row.method), ScoredImages):
            raise ConfigError(
                f"row '{row.name}': the method '{row.method}' labels no images, which leaves nothing to score"
            )
    folder = create(args.out)
    with locked(folder):
        check_beginnings(folder, plan)
        with Trainings(PROGRAM, without_launcher(os.environ), _say_stopped) as trainings:

            def train(training: Training, log: Path, threads: Mapping[str, str]) -> int:
                return trainings.run(_words(training), log, threads)

            train_all(folder, plan, args.jobs, train, _say)
        _print_table(folder, plan, args.per_class)
    return 0


def _words(training: Training) -> list[str]:
    """The command of a training."""
    if training.checkpoint:
        where = ["--ckpt_path", str(training.checkpoint)]
    else:
        where = ["--seed_everything", str(training.seed), "--runs", str(training.folder)]
    weight = ["--method.weight", training.weight] if training.weight else []
    return ["fit", "--method", training.row.method, *where, *training.options, *weight]


def _print_table(folder: Path, plan: Plan, per_class: bool) -> None:
    from segzoo.study.table import make_table

    table = make_table(folder, plan, per_class=per_class)
    write_text(folder / "comparison.md", table + "\n")
    print(f"\n{table}\n\nwritten to {folder / 'comparison.md'}")


def _say(line: str) -> None:
    print(line, flush=True)


def _say_stopped() -> None:
    print("stopped; the same command continues", file=sys.stderr)


def _parser() -> Parser:
    parser = Parser("segzoo compare", DESCRIPTION, EXAMPLES)
    parser.add_argument("--rows", required=True, metavar="LIST", help="methods, separated by commas; see above")
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="'NAME: METHOD OPTIONS'",
        help="a row of its own name: a method and what follows it in `segzoo fit`; may be given several times",
    )
    parser.add_argument("--seeds", default="0-2", metavar="LIST", help="e.g. 0-4 or 0,1,7 (default: 0-2)")
    parser.add_argument("--reference", metavar="ROW", help="row that the others are compared with (default: the last)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/compare"), help="folder of the runs and of comparison.md"
    )
    parser.add_argument("--per_class", action="store_true", help="add tables of IoU, precision and recall by class")
    return parser


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    at = argv.index("--") if "--" in argv else len(argv)
    return list(argv[:at]), list(argv[at + 1 :])


def _check_options(*groups: Sequence[str]) -> None:
    for option in (word.partition("=")[0] for words in groups for word in words):
        if option in OWN_OPTIONS:
            raise ConfigError(f"{option}: `segzoo compare` gives every run its own; leave it out")


def _check_row(row: Row, common: Sequence[str]) -> None:
    """Refuses before the first training what `segzoo fit` would refuse after it, and what would be no row of a table."""
    options = [CHECKPOINT.sub("last.ckpt", option) for option in row.options]
    weight = ["--method.weight", "1"] if row.weight_of else []
    try:
        invocation = expand("fit", ["--method", row.method, *common, *options, *weight], read)
    except SegzooError as error:
        raise ConfigError(f"row '{row.name}': {error}") from error
    if invocation is None or invocation.switches:
        raise ConfigError(f"row '{row.name}': no help and no configuration are printed here; leave out --help")
    for option, harmless in WHOLE.items():
        value, origin = invocation.value("trainer", option)
        if value not in harmless:
            why = "stops before the last step" if option == "max_time" else "scores a part of the test images"
            raise ConfigError(
                f"row '{row.name}': --trainer.{option} {value}{origin} {why}, which is no row of a table; leave it out"
            )
