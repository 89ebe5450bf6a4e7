"""``segzoo compare``: the same data, steps and seeds for several methods, and one table."""

import csv
import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from segzoo.checks import check_range
from segzoo.cli.expand import expand
from segzoo.cli.lock import locked
from segzoo.cli.parser import Parser
from segzoo.cli.rundir import create
from segzoo.cli.train import read
from segzoo.cli.trainings import Trainings
from segzoo.errors import ConfigError, SegzooError
from segzoo.files import write_text
from segzoo.methods.registry import load_method, methods
from segzoo.suggest import did_you_mean

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
CHECKPOINT = re.compile(r"\{([\w-]+)\}")
"""A row's name in the options of another."""
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


@dataclass(frozen=True)
class Row:
    """One line of the table: a method, its own options, whose mean weight it takes, and whose checkpoints its options name."""

    name: str
    method: str
    options: tuple[str, ...] = ()
    weight_of: "Row | None" = None
    starts: tuple["Row", ...] = ()

    @property
    def wave(self) -> int:
        """How many rows, one behind the other, must be complete before this one."""
        needed = self.starts + ((self.weight_of,) if self.weight_of else ())
        return 1 + max((row.wave for row in needed), default=-1)


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
    variants = _variants(args.variant)
    _check_options(common, *(options for _, options in variants.values()))
    rows, seeds = [_row(text, variants) for text in args.rows.split(",")], _seeds(args.seeds)
    for row in rows:
        _check_row(row, common)
    names = [row.name for row in rows]
    from segzoo.methods.scoring import ScoredImages

    for row in rows:
        if not issubclass(load_method(row.method), ScoredImages):
            raise ConfigError(
                f"row '{row.name}': the method '{row.method}' labels no images, which leaves nothing to score"
            )
    for what, found in (("--rows", names), ("--seeds", seeds)):
        if len(set(found)) < len(found):
            raise ConfigError(f"{what} {','.join(map(str, found))}: each one once")
    reference = args.reference or names[-1]
    if reference not in names:
        raise ConfigError(f"--reference {reference} is not a row{did_you_mean(reference, names)}")
    folder = create(args.out)
    with locked(folder):
        for row in rows:
            _check_beginnings(folder, row, names, seeds)
        _train_all(folder, rows, seeds, common, args.jobs)
        _write_table(folder, rows, seeds, reference, args.per_class)
    return 0


def _train_all(folder: Path, rows: Sequence[Row], seeds: Sequence[int], common: list[str], jobs: int) -> None:
    # Rows that take something from others wait for them.
    waves = [list(wave) for _, wave in groupby(sorted(rows, key=lambda row: row.wave), lambda row: row.wave)]
    total, done = len(rows) * len(seeds), 0
    with Trainings() as trainings, ThreadPoolExecutor(jobs) as pool:
        for wave in waves:
            tasks = [(row, seed) for seed in seeds for row in wave]
            for row, seed in pool.map(lambda task: _train(folder, task[0], task[1], common, jobs, trainings), tasks):
                done += 1
                print(f"{done}/{total}  {row.name}, seed {seed}", flush=True)


def _write_table(folder: Path, rows: Sequence[Row], seeds: Sequence[int], reference: str, per_class: bool) -> None:
    from segzoo.evaluation import Scores, comparison_table

    files = {row.name: [_run(folder, row, seed) / "scores-test.json" for seed in seeds] for row in rows}
    _check_comparable([path for paths in files.values() for path in paths])
    scores = {name: [Scores.load(path) for path in paths] for name, paths in files.items()}
    table = comparison_table(scores, reference, per_class=per_class)
    write_text(folder / "comparison.md", table + "\n")
    print(f"\n{table}\n\nwritten to {folder / 'comparison.md'}")


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
    parser.add_argument("--per_class", action="store_true", help="add a column per class")
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


def _check_beginnings(folder: Path, row: Row, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Refuses a row that takes something from another one which is neither compared nor there."""
    for seed in seeds:
        for start in row.starts:
            if start.name not in names:
                _checkpoint(folder, row, start, seed)
        if row.weight_of and row.weight_of.name not in names:
            _mean_weight(_run(folder, row.weight_of, seed))


def _variants(texts: Sequence[str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Method and options by the name of the variant."""
    found = {}
    for text in texts:
        name, colon, rest = text.partition(":")
        try:
            method, *options = shlex.split(rest) or [""]
        except ValueError as error:  # a quotation mark without its partner
            raise ConfigError(f"--variant {text!r}: {str(error).lower()}; close it, or escape it as \\'") from error
        if not colon or not name.strip() or set(name) & set("/@,") or name in methods():
            raise ConfigError(f"--variant {text!r}: expected 'NAME: METHOD OPTIONS', with a name that is no method's")
        if method not in methods():
            raise ConfigError(f"--variant {text!r}: unknown method '{method}'{did_you_mean(method, methods())}")
        found[name.strip()] = (method, tuple(options))
    return found


def _row(text: str, variants: Mapping[str, tuple[str, tuple[str, ...]]], within: tuple[str, ...] = ()) -> Row:
    own, _, other = text.partition("@")
    known = {**{slug: (slug, ()) for slug in methods()}, **variants}
    if own not in known:
        raise ConfigError(f"unknown method '{own}'{did_you_mean(own, known)}")
    if text in within:
        raise ConfigError(f"row '{text}' would start from itself: {' from '.join((*within, text))}")
    method, options = known[own]
    starts = dict.fromkeys(name for option in options for name in CHECKPOINT.findall(option))
    needed = [_row(name, variants, (*within, text)) for name in (other, *starts) if name]
    return Row(text, method, options, needed.pop(0) if other else None, tuple(needed))


def _seeds(text: str) -> list[int]:
    try:
        ends = [part.split("-") for part in text.split(",")]
        seeds = [range(int(end[0]), int(end[-1]) + 1) for end in ends]
        if not all(seeds):
            raise ValueError("a range that runs backwards is empty")
    except ValueError:
        raise ConfigError(f"--seeds {text}: expected numbers and ranges such as 0-4 or 0,1,7") from None
    return [seed for some in seeds for seed in some]


def _run(folder: Path, row: Row, seed: int) -> Path:
    # `fit` places a run at RUNS/<method>/<data>/NAME-s<seed>; each row and seed has a RUNS of its own. One that was interrupted
    # before its first checkpoint cannot be continued: the next is called NAME-s<seed>-2.
    runs = _runs(folder, row, seed)
    for proof in ("scores-test.json", "checkpoints/last.ckpt"):
        if found := [run for run in runs if (run / proof).is_file()]:
            return found[0]
    return folder / row.name


def _runs(folder: Path, row: Row, seed: int) -> list[Path]:
    return [run for end in ("", "-*") for run in (folder / row.name).glob(f"{row.method}/*/default-s{seed}{end}")]


def _train(folder: Path, row: Row, seed: int, common: list[str], jobs: int, trainings: Trainings) -> tuple[Row, int]:
    for run in _runs(folder, row, seed):
        with locked(run):
            pass  # nobody else trains it, such as one that outlived its comparison
    run, record = _run(folder, row, seed), folder / f"{row.name}-s{seed}.json"
    orders = _orders(row, common)
    if run != folder / row.name:
        _check_orders(run, record, orders)
    if (run / "scores-test.json").is_file():
        _check_complete(run)
        return row, seed
    command = ["fit", "--method", row.method]
    last = run / "checkpoints" / "last.ckpt"
    command += (
        ["--ckpt_path", str(last)]
        if last.is_file()
        else ["--seed_everything", str(seed), "--runs", str(folder / row.name)]
    )
    starts = {start.name: _checkpoint(folder, row, start, seed) for start in row.starts}
    options = [CHECKPOINT.sub(lambda match: starts[match[1]], option) for option in row.options]
    command += [*common, *options]
    if row.weight_of:
        command += ["--method.weight", f"{_mean_weight(_run(folder, row.weight_of, seed)):.4f}"]
    # Runs beside each other share the cores; more threads than cores slow all of them down.
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // jobs))}
    write_text(record, json.dumps(orders, indent=1) + "\n")
    log = record.with_suffix(".log")
    print(f"trains {row.name}, seed {seed}: {log}", flush=True)
    if status := trainings.run(command, log, threads):
        lines = log.read_text(errors="replace").strip().splitlines() or [f"exit status {status}"]
        raise SegzooError(f"{row.name} with seed {seed} failed, see {log}: {lines[-1]}")
    _check_complete(_run(folder, row, seed))
    return row, seed


def _orders(row: Row, common: list[str]) -> dict[str, Any]:
    """What decides a run beside its seed: the words of its command, and the content of the YAML files among them."""
    words = [*common, *row.options]
    paths = {word: Path(word.rpartition("=")[2]) for word in words if word.endswith((".yaml", ".yml"))}
    digests = {word: hashlib.sha256(path.read_bytes()).hexdigest() for word, path in paths.items() if path.is_file()}
    weight_of = [f"@{row.weight_of.name}"] if row.weight_of else []
    return {"command": ["--method", row.method, *words, *weight_of], "files": digests}


def _check_orders(run: Path, record: Path, now: dict[str, Any]) -> None:
    """Refuses a run that others would be compared with as if its options were theirs."""
    try:
        then = json.loads(record.read_text())
    except (OSError, ValueError):  # cut off by a full disk
        then = None
    if then == now:
        return
    if then is None:
        reason = f"with options that nobody noted ({record} is missing or damaged)"
    elif then["command"] != now["command"]:
        reason = f"with `{shlex.join(then['command'])}` and not with `{shlex.join(now['command'])}`"
    else:
        changed = [name for name in now["files"] if then["files"].get(name) != now["files"][name]]
        reason = f"before {', '.join(changed)} changed"
    raise ConfigError(f"{run} was trained {reason}; choose another --out, or remove that run")


def _check_complete(run: Path) -> None:
    """Refuses a training that did not come to its end, and scores of a part of the test split: they are no row of a table."""
    from segzoo.evaluation import Protocol  # imports torch

    protocol, manifest = Protocol.load(run / "scores-test.json"), run / "manifest.json"
    if not protocol.complete:
        raise ConfigError(
            f"{run / 'scores-test.json'} is of {protocol.images} of {protocol.split_images} test images; remove that run's "
            "folder and compare without --trainer.limit_test_batches and --trainer.fast_dev_run"
        )
    content = json.loads(manifest.read_text()) if manifest.is_file() else {}
    if content.get("status") == "stopped":
        raise ConfigError(
            f"{run} stopped at step {content['training']['steps']} of {content['max_steps']}: rows are compared after the "
            "same steps; remove that run's folder and compare without --trainer.max_time"
        )


def _check_comparable(paths: Sequence[Path]) -> None:
    """Refuses a table of scores that were measured differently. What the network saw and when it was saved may differ."""
    from segzoo.evaluation import Protocol

    protocols = {path: replace(Protocol.load(path), input_size=None, checkpoint="last") for path in paths}
    first = paths[0]
    for path, protocol in protocols.items():
        if protocol != protocols[first]:
            raise ConfigError(
                f"scores of different protocols are not compared: {first} is '{protocols[first].describe()}', {path} is "
                f"'{protocol.describe()}'"
            )


def _checkpoint(folder: Path, row: Row, start: Row, seed: int) -> str:
    path = _run(folder, start, seed) / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise ConfigError(
            f"row {row.name} starts from a checkpoint of {start.name}, seed {seed}: add {start.name} to --rows"
        )
    return str(path)


def _mean_weight(run: Path) -> float:
    """Mean over training of the mean source weight."""
    if not (run / "metrics.csv").is_file():
        raise ConfigError(f"no weights at {run}: a row METHOD@OTHER needs the row OTHER")
    with (run / "metrics.csv").open(newline="") as file:
        weights = [float(row["weight/mean"]) for row in csv.DictReader(file) if row.get("weight/mean")]
    if not weights:
        raise ConfigError(
            f"{run / 'metrics.csv'} has no weight/mean: in a row METHOD@OTHER, OTHER must weigh the source and train "
            "long enough to log it (--trainer.log_every_n_steps)"
        )
    return fmean(weights)
