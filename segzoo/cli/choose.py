"""``segzoo choose``: which way of using synthetic images is the best for one's own photographs, by tomorrow morning."""

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from segzoo.checks import check_range
from segzoo.cli.compare import check_options, check_row, check_scored
from segzoo.cli.data_options import build_data, read_invocation, split_data_options
from segzoo.cli.parser import Parser
from segzoo.cli.rundir import create
from segzoo.cli.study_run import CHOICE, complete_results, left, report, train_study
from segzoo.errors import ConfigError, SegzooError
from segzoo.files import write_text
from segzoo.runtime.lock import locked
from segzoo.study.choice import (
    HEAD,
    LEAST,
    MOST,
    Choice,
    Cost,
    Photographs,
    as_json,
    in_words,
    judge,
    make_rows,
    steps_within,
    validation_interval,
)
from segzoo.study.plan import Plan, Row, parse_seeds
from segzoo.study.results import SCORES, find_run
from segzoo.study.study_file import Comparison, Study

PROBE_STEPS = 16
DESCRIPTION = f"""\
Train the methods recommended for what you have, all for the same number of steps. Say which one to
take for your photographs, and print the command that labels them. The target's validation images
decide; its test images only score the chosen method.

  your photographs                       methods
  some labelled, others unlabelled       target-only, semi-supervised, ssda, source-only, and
                                         fine-tuned: semi-supervised that starts from source-only,
                                         so that it has the steps of both
  all labelled                           target-only, joint, metapix
  none labelled (but val and test are)   source-only, self-training, sepico

Only these are trained. --rows LIST trains those of the list instead; to add others, repeat these in
it (`segzoo methods` lists all).

--hours limits the total time: each method is first trained for {PROBE_STEPS} steps to measure its speed,
which gives the number of steps ({MOST:,} at most). --steps sets the number without that trial.
The same command continues after an interruption. Everything after `--` goes to every `segzoo fit`.

Writes the run folders and
  OUT/choice.txt    the printed result
  OUT/choice.json   the same for programs
  OUT/report.html   tables, curves, and the same test images for all methods"""
EXAMPLES = """\
examples:
  segzoo choose my_data.yaml
  segzoo choose my_data.yaml --hours 2 --jobs 2 -- --data.crop_size "[256,256]" --trainer.precision bf16-mixed
  segzoo choose carla_to_camvid --data.root /data --data.target_labels 16 --hours 12 --seeds 0-2
  segzoo choose my_data.yaml --steps 4000 --rows target-only,ssda,metapix"""
QUESTION = "Which way of using synthetic images is the best for these photographs?"
GIVEN = ("--trainer.max_steps", "--trainer.val_check_interval")
"""Options of `segzoo fit` that follow from the time."""


def choose(argv: list[str]) -> int:
    """Runs the command."""
    at = argv.index("--") if "--" in argv else len(argv)
    own, options = split_data_options(argv[:at])
    args = _parser().parse(own)
    check_range("--jobs", args.jobs, 1)
    check_range("--hours", args.hours, 0)
    if args.steps is not None:
        check_range("--steps", args.steps, 1)
    options += argv[at + 1 :]
    common = (*(["--data", args.data] if args.data else []), *options)
    _refuse(options)
    data = build_data(read_invocation(args.data, options))
    photographs = count(data)
    wanted = photographs.rows()
    rows = make_rows(args.rows.split(",") if args.rows else tuple(wanted))
    for row in rows:
        check_row(row, common)
    check_scored(rows)
    seeds = parse_seeds(args.seeds)
    out = create(args.out or Path("runs") / "choose" / str(data.name))
    print(opening(photographs, {row.name: wanted.get(row.name, "") for row in rows}, own=bool(args.rows)), flush=True)
    with locked(out):
        costs: dict[str, float] = {}
        if (steps := args.steps) is None:
            steps, costs = _steps(out / "probe", rows, common, args, photographs, len(seeds))
        print(f"{len(rows) * len(seeds)} trainings of {steps} steps: {out}", flush=True)
        length = ("--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(validation_interval(steps)))
        study = _study(rows, seeds, (*common, *length), costs)
        failure: SegzooError | None = None
        try:
            train_study(out, study, args.jobs)
        except ConfigError:
            raise
        except SegzooError as error:
            if len(left(out, study)) == len(rows) * len(seeds):
                raise
            failure = error  # the others can still be chosen from
        entries = complete_results(out, study)
        judged = judge(entries)
        lines = in_words(judged, photographs, study.comparisons[0].plan.reference, steps)
        choice = Choice(tuple(judged), (*lines, use(out / judged[0].run)))
        report(out, study, entries, shlex.join(["segzoo", "choose", *argv]), choice)
        write_text(out / CHOICE, as_json(judged, photographs, steps))
        say_choice(out, choice)
    if failure is not None:
        raise failure
    return 0


def count(data: object) -> Photographs:
    """What there is of the target of a `segzoo.data.DomainDataModule`.

    Raises:
        DataError: a split cannot be read.
    """
    from segzoo.data import DomainDataModule

    assert isinstance(data, DomainDataModule)
    images, further = data.images("target", "train"), data.further_images()
    total = len(images)
    budget = total if data.target_labels is None else min(total, data.target_labels)
    labelled = budget if images.has_labels else 0
    scored = {split: data.scored(split) for split in ("val", "test")}
    sizes = {split: 0 if found is None else len(found) for split, found in scored.items()}
    return Photographs(labelled, total - labelled + (0 if further is None else len(further)), **sizes)


def opening(photographs: Photographs, rows: Mapping[str, str], own: bool) -> str:
    """What is there, and what will be trained.

    Args:
        photographs: of the target.
        rows: what each learns from.
        own: whether `--rows` named them.
    """
    counts = f"{photographs.labelled} labelled and {photographs.unlabelled} unlabelled photographs to learn from"
    scored = f"{photographs.val} to choose by, {photographs.test} to test the chosen row"
    width = max(map(len, rows))
    which = (
        "rows to train, as --rows has them:"
        if own
        else "rows to train, recommended for these photographs (--rows LIST trains others):"
    )
    return "\n".join([f"{counts}; {scored}", which, *(f"  {row:{width}}  {why}".rstrip() for row, why in rows.items())])


def say_choice(out: Path, choice: Choice) -> None:
    """Prints which row to take, and writes it beside the report."""
    table = [f"{row:20} {val:>12} {seeds:>16} {test:>12}" for row, val, seeds, test in (HEAD, *choice.table())]
    text = "\n".join([*table, "", *choice.lines])
    write_text(out / "choice.txt", text + "\n")
    print(f"\n{text}")


def use(run: Path) -> str:
    """How photographs are labelled with a run."""
    words = ["segzoo", "predict", "--ckpt_path", str(run), "--input", "PHOTOS", "--out", "labelled"]
    return f"Label photographs with it:\n  {shlex.join(words)}"


def _steps(
    out: Path,
    rows: Sequence[Row],
    common: Sequence[str],
    args: argparse.Namespace,
    photographs: Photographs,
    seeds: int,
) -> tuple[int, dict[str, float]]:
    """As many as there is time for, by what a few of them cost; and the seconds that a training of a row will take."""
    words = ["--trainer.max_steps", str(PROBE_STEPS), "--trainer.limit_val_batches", "0"]
    study = _study(rows, (0,), (*common, *words))
    print(f"what {PROBE_STEPS} steps of every row cost:", flush=True)
    train_study(create(out), study, args.jobs)
    runs = {row.name: find_run(out, row, 0) for row in rows}
    costs = {name: Cost.of(json.loads((run / "manifest.json").read_text()), _tested(run)) for name, run in runs.items()}
    for name, cost in costs.items():
        print(f"  {name:16} {cost.step:7.3f} s a step, {cost.around:5.0f} s before and after")
    steps = steps_within(3600 * args.hours, costs.values(), photographs, seeds, args.jobs)
    return steps, {name: cost.seconds(steps, photographs) for name, cost in costs.items()}


def _tested(run: Path) -> float:
    return (run / SCORES).stat().st_mtime


def _study(
    rows: Sequence[Row], seeds: tuple[int, ...], common: tuple[str, ...], costs: Mapping[str, float] | None = None
) -> Study:
    plan = Plan(tuple(rows), seeds, rows[0].name, common)
    return Study(QUESTION, (Comparison("", "", plan, dict.fromkeys(plan.names, plan.reference), costs=costs or {}),))


def _refuse(common: Sequence[str]) -> None:
    check_options(common)
    for word in common:
        if word.partition("=")[0] in GIVEN:
            raise ConfigError(f"{word}: `segzoo choose` sets the steps; give --steps N, or --hours")


def _parser() -> Parser:
    parser = Parser("segzoo choose", DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        help="your own YAML (`segzoo data init` writes one), a packaged data set, or two public sets by name; it must come "
        "first; --data.OPTION V changes one of its options",
    )
    parser.add_argument("--hours", type=float, default=8.0, help="hours that everything may take (default: 8, a night)")
    parser.add_argument(
        "--steps",
        type=int,
        help=f"steps of every training, exactly and at least 1, instead of --hours; fewer than {LEAST} show nothing",
    )
    parser.add_argument(
        "--seeds",
        metavar="LIST",
        default="0-1",
        help="seeds of every method, e.g. 0-2; one seed shows little (default: 0-1)",
    )
    parser.add_argument(
        "--rows",
        metavar="LIST",
        help="methods to train instead of those above, which it may repeat, separated by commas; the first is the control",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="number of trainings at a time, as in `segzoo compare` (default: 1)"
    )
    parser.add_argument("--out", type=Path, help="folder of the runs and the report (default: runs/choose/DATA)")
    return parser
