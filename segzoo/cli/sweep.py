"""``segzoo sweep``: a sweep of wandb without its server."""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from segzoo.checks import check_range
from segzoo.cli.expand import Invocation, expand
from segzoo.cli.parser import Parser
from segzoo.cli.rundir import create, without_launcher
from segzoo.cli.train import read
from segzoo.configs import config_path
from segzoo.errors import ConfigError, SegzooError
from segzoo.files import write_text
from segzoo.runtime.lock import locked
from segzoo.study.trainings import Trainings
from segzoo.sweep.files import Sweep, draw, read_sweep
from segzoo.sweep.runs import Runs, SetOfOptions, failures_in_a_row

DESCRIPTION = """\
Search for good options with a wandb sweep, without a network connection or an account: draw sets of
options as wandb's server does, train each with the command that wandb's agent would run, and print
a table of the results.

FILE is a packaged sweep (metapix, region-selection, sepico, ssda, methods, budgets) or your own
YAML. The same command continues after an interruption, and a larger --count continues the search.
Complete sets are not repeated. Everything after `--` goes to every `segzoo fit`. With a server,
`wandb sweep FILE` and `wandb agent ID` take the same files."""
EXAMPLES = """\
examples:
  segzoo sweep metapix --count 20
  segzoo sweep methods --jobs 2
  segzoo sweep my_sweep.yaml --count 30 -- --data my_data.yaml --trainer.max_steps 2000"""
OWN_OPTIONS = ("--runs", "--ckpt_path", "--out")
"""Of `segzoo fit`, which sweep gives itself."""
PROGRAM = (sys.executable, "-m", "segzoo.cli.follow")
"""`segzoo` that ends when this process does."""
MOST_FAILURES = 3
"""Trainings that fail one after the other end a sweep, as they do with wandb's agent."""


def sweep(argv: list[str]) -> int:
    """Runs the command."""
    at = argv.index("--") if "--" in argv else len(argv)
    args, options = _parser().parse(argv[:at]), argv[at + 1 :]
    check_range("--jobs", args.jobs, 1)
    for option in (word.partition("=")[0] for word in options):
        if option in OWN_OPTIONS:
            raise ConfigError(f"{option}: `segzoo sweep` gives every run its own; leave it out")
    searched = read_sweep(config_path("sweeps", args.file))
    for option in (word.partition("=")[0].removeprefix("--") for word in options):
        if option in searched.content["parameters"]:
            raise ConfigError(f"--{option}: the sweep draws it; leave it out here, or take it out of {searched.path}")
    if args.count is None and not searched.ends:
        raise ConfigError(f"a search by '{searched.content['method']}' has no end: add --count N")
    if args.count is not None:
        check_range("--count", args.count, 1)
    _check_first(searched, args.seed, options)  # before there is a folder, which takes no other options from then on
    folder = create(args.out or Path("runs/sweeps") / searched.name)
    with locked(folder):
        runs = Runs(folder, searched, args.seed, tuple(options))
        status = _train(runs, args.count, args.jobs)
        table = runs.table()
        write_text(folder / "sweep.md", table + "\n")
        print(f"\n{table}\n\nwritten to {folder / 'sweep.md'}")
    if (run := runs.without_metric()) is not None:
        raise ConfigError(
            f"stopped, as the search would learn nothing: {run} is complete, and its metrics.csv has no {searched.metric}; a "
            "validation comes every `trainer.val_check_interval` steps, which must not be more than `trainer.max_steps`; begin "
            f"in another folder with --out, or remove {folder}"
        )
    return status


def _train(runs: Runs, count: int | None, jobs: int) -> int:
    """Trains what is left, some at a time; 1 where too many failed."""
    ended: list[bool] = []
    environment = without_launcher(os.environ) | {"WANDB_RUN_GROUP": runs.sweep.name}
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // jobs))}
    with Trainings(PROGRAM, environment, _say_stopped, warm=count != 1) as trainings, ThreadPoolExecutor(jobs) as pool:

        def work(_: int) -> None:
            while failures_in_a_row(ended) < MOST_FAILURES and runs.without_metric() is None:
                if (one := runs.next(count)) is None:
                    return
                words, log = _words(runs, one), one.folder / "fit.log"
                _check(runs.sweep, one.number, words)
                print(f"trains {one.number}{f'/{count}' if count else ''}: {log}", flush=True)
                status = trainings.run(["fit", *words], log, threads)
                one.running = False
                if status < 0 or status > 128:  # told to stop
                    return
                if status:
                    lines = log.read_text(errors="replace").strip().splitlines() or [f"exit status {status}"]
                    one.failed = lines[-1].removeprefix("error: ")
                    print(f"failed {one.number}: {one.failed}", file=sys.stderr, flush=True)
                ended.append(not status)

        list(pool.map(work, range(jobs)))
    if failures_in_a_row(ended) >= MOST_FAILURES:
        print(f"stopped: {MOST_FAILURES} trainings in a row failed", file=sys.stderr)
        return 1
    return 0


def _words(runs: Runs, one: SetOfOptions) -> list[str]:
    """The words after ``segzoo fit``: those of wandb's agent, and where the run is."""
    words = [*runs.sweep.words(one.parameters), *runs.options, "--runs", str(one.folder)]
    return [*words, "--ckpt_path", "last"] if one.checkpoint else words


def _check(searched: Sweep, number: int, words: list[str]) -> Invocation | None:
    """Refuses before a training what `segzoo fit` would refuse in seconds; returns what it would do."""
    try:
        return expand("fit", words, read)
    except SegzooError as error:
        raise ConfigError(f"{searched.path}, set {number}: {error}") from error


def _check_first(searched: Sweep, seed: int, options: Sequence[str]) -> None:
    """Refuses what the first set would be refused for, and a search by the validation images where it would have none."""
    words = searched.words(draw(searched, [], seed) or {})
    invocation = _check(searched, 1, [*words, *options])
    names = ("val_check_interval", "max_steps", "accumulate_grad_batches")
    if invocation is None or not searched.metric.startswith("val/"):
        return
    (every, of_every), (steps, of_steps), (accumulated, _) = (invocation.value("trainer", name) for name in names)
    numbers = (every or "", steps or "", accumulated or "1")
    if not all(text.isdecimal() for text in numbers):  # a share of an epoch, or no limit
        return
    interval, end, batches = map(int, numbers)
    if interval > end * batches:
        raise ConfigError(
            f"the first run would have no {searched.metric}, by which {searched.path} searches: a validation comes every "
            f"{interval} steps (`trainer.val_check_interval`{of_every}), and the training ends at step {end} "
            f"(`trainer.max_steps`{of_steps}); give an interval of {end} or less"
        )


def _say_stopped() -> None:
    print("stopped; the same command continues", file=sys.stderr)


def _parser() -> Parser:
    parser = Parser("segzoo sweep", DESCRIPTION, EXAMPLES)
    parser.add_argument("file", metavar="FILE", help="a packaged sweep, or your own YAML")
    parser.add_argument(
        "--count", type=int, metavar="N", help="total number of sets of options (default: all sets of a grid)"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="number of runs at a time (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed of the search (default: 0)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the runs and of sweep.md (default: runs/sweeps/NAME)"
    )
    return parser
