"""``segzoo compare``: the same data, steps and seeds for several methods, and one table."""

import argparse
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segzoo.checks import check_range
from segzoo.cli.expand import expand
from segzoo.cli.parser import Parser
from segzoo.cli.slurm import slurm_script
from segzoo.cli.study_run import perform, report_results, run_study
from segzoo.cli.train import read
from segzoo.configs import config_path
from segzoo.errors import ConfigError, SegzooError
from segzoo.methods.registry import load_method
from segzoo.study.plan import CHECKPOINT, Plan, Row, parse_row, parse_seeds, parse_variants
from segzoo.study.results import SPLITS
from segzoo.study.study_file import Study, read_study, single

DESCRIPTION = """\
Train several methods with the same data, steps and seeds. Print one table (the mean and standard
deviation of the test mIoU over the seeds, and the differences of each row to its reference, seed by
seed), and write a report as one HTML file.

Give the comparison as a YAML, STUDY (docs/studies.md), or with --rows and --seeds. A row is
  METHOD      a method
  NAME        a method with options, defined by --variant; {ROW} in them is the last checkpoint of
              ROW with the same seed
  ROW@OTHER   ROW with a constant source weight, the mean weight of OTHER with the same seed:
              `joint@metapix` is the control of learned weights

Complete runs are not repeated. The same command continues after an interruption, and with more rows
or seeds it trains only the new runs. Runs with other options need another folder. Everything after
`--` goes to every `segzoo fit`."""
EXAMPLES = """\
examples:
  segzoo compare minicity --jobs 2
  segzoo compare study.yaml --jobs 8 --seeds 0-4 -- --data.root /data
  segzoo compare study.yaml --slurm > submit.sh; bash submit.sh --gres=gpu:1 --time=4:00:00
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
    command = shlex.join(["segzoo", "compare", *argv])
    if args.study and args.study.endswith(".json"):
        return _kept_results(Path(args.study), args, common, command)
    path = None if args.study is None else config_path("study", args.study)
    study = _rows_of_flags(args, common) if path is None else _study_of_file(path, args, common)
    if args.split:
        study = replace(study, split=args.split)
    out = args.out or Path("runs") / (path.stem if path else "compare")
    for one in study.comparisons:
        check_options(one.plan.common, *(row.options for row in one.plan.rows))
        for row in one.plan.rows:
            check_row(row, one.plan.common)
    if args.slurm:
        print(slurm_script(study, ["compare", *own], common, out), end="")
        return 0
    check_scored(row for one in study.comparisons for row in one.plan.rows)
    if args.run:
        return perform(out, study, args.run)
    return run_study(out, study, args.jobs, command, per_class=args.per_class, train=not args.report)


def _kept_results(path: Path, args: argparse.Namespace, common: Sequence[str], command: str) -> int:
    unset = vars(_parser().parse([args.study]))
    given = [f"--{name}" for name, value in vars(args).items() if value != unset[name]]
    if ignored := [name for name in given if name not in ("--out", "--report")] + [*common][:1]:
        raise ConfigError(f"{path} holds finished runs, and nothing is trained: leave out {ignored[0]}")
    return report_results(path, command, args.out)


def _study_of_file(path: Path, args: argparse.Namespace, common: Sequence[str]) -> Study:
    for option, value in (("--rows", args.rows), ("--variant", args.variant), ("--reference", args.reference)):
        if value:
            raise ConfigError(f"{option} {value}: the rows of {path} stand in it; leave out the option, or the study")
    return read_study(path, seeds=args.seeds, only=args.only, words=common)


def _rows_of_flags(args: argparse.Namespace, common: Sequence[str]) -> Study:
    if args.rows is None:
        raise ConfigError("nothing to compare: expected a study (segzoo compare STUDY.yaml) or --rows LIST")
    if args.only:
        raise ConfigError(f"--only {args.only[0]} chooses from a study's file; with --rows, name the rows there")
    variants = parse_variants(args.variant)
    rows = tuple(parse_row(text, variants) for text in args.rows.split(","))
    used = {name for row in rows for name in row.names}
    if unused := [name for name in variants if name not in used]:
        raise ConfigError(f"--variant {unused[0]} is in no row; add it to --rows, or leave it out")
    return single(Plan(rows, parse_seeds(args.seeds or "0-2"), args.reference or rows[-1].name, tuple(common)))


def _parser() -> Parser:
    parser = Parser("segzoo compare", DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "study", nargs="?", metavar="STUDY", help="a YAML of rows, seeds and data, a packaged study, or results.json"
    )
    parser.add_argument("--rows", metavar="LIST", help="methods, separated by commas; see above")
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="'NAME: METHOD OPTIONS'",
        help="a row with its own name: a method and its options of `segzoo fit`; may be repeated",
    )
    parser.add_argument(
        "--seeds", metavar="LIST", help="seeds of each row, e.g. 0-4 or 0,1,7 (default: those of STUDY, or 0-2)"
    )
    parser.add_argument("--reference", metavar="ROW", help="the row to compare the others with (default: the last)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="train only this part of STUDY: DATA, ROW or DATA/ROW, with * and ?; may be repeated",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="number of runs at a time, each with one GPU if there are several (default: 1)",
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the runs and the report (default: runs/STUDY, or runs/compare)"
    )
    parser.add_argument(
        "--split",
        choices=sorted(SPLITS),
        help="images to compare on; val keeps the test images unseen, to choose a method (default: as in STUDY, or test)",
    )
    parser.add_argument("--per_class", action="store_true", help="add tables of IoU, precision and recall by class")
    parser.add_argument("--report", action="store_true", help="report the complete runs without training")
    parser.add_argument("--slurm", action="store_true", help="print a script that submits all runs to SLURM, and stop")
    parser.add_argument("--run", metavar="RUN", help="train one run, such as joint-s0, without a report")
    return parser


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    at = argv.index("--") if "--" in argv else len(argv)
    return list(argv[:at]), list(argv[at + 1 :])


def check_options(*groups: Sequence[str]) -> None:
    """Refuses options of `segzoo fit` that every run is given."""
    for option in (word.partition("=")[0] for words in groups for word in words):
        if option in OWN_OPTIONS:
            raise ConfigError(f"{option}: every run is given its own; leave it out")


def check_row(row: Row, common: Sequence[str]) -> None:
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


def check_scored(rows: Iterable[Row]) -> None:
    """Refuses methods without scores. It imports torch: a mistyped option is answered before."""
    from segzoo.methods.scoring import ScoredImages

    for row in rows:
        if not issubclass(load_method(row.method), ScoredImages):
            raise ConfigError(
                f"row '{row.name}': the method '{row.method}' labels no images, which leaves nothing to score"
            )
