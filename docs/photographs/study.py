"""A whole study with one command: pairs of data sets, rows and seeds, their tables and figures.

    python -m docs.photographs.study --root /path/to/the/sets --jobs 4

What is compared is in study.yaml beside this file. Each run has its folder and manifest as `segzoo fit` makes them, below
OUT/PAIR/ROW; complete runs are not repeated, and one that was cut off goes on. Choices are made on val: test is scored by
request. Everything after `--` goes to every `segzoo fit`. Run it in the project's root.
"""

import argparse
import json
import shlex
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from docs.photographs.job import Job, scores_of
from docs.photographs.plan import Pair, read_study
from docs.photographs.tables import study_tables
from docs.photographs.workers import Workers
from segzoo.cli.expand import expand
from segzoo.errors import ConfigError, SegzooError
from segzoo.files import write_text
from segzoo.runtime.lock import locked
from segzoo.study.plan import Row
from segzoo.study.results import check_orders, find_run, orders
from segzoo.study.running import Training, complete

HERE = Path(__file__).parent
QUESTION = "Which way of using synthetic images labels photographs best?"
Key = tuple[str, str, int]
"""Pair, row and seed."""


class Study:
    """A study in a folder.

    Args:
        args: of the command line.
        words: options of every `segzoo fit`.
        workers: perform the runs.
    """

    def __init__(self, args: argparse.Namespace, words: Sequence[str], workers: Workers) -> None:
        self.args, self.workers = args, workers
        self.out, self.report = args.out, args.report or args.out
        self.splits: tuple[str, ...] = ("val", "test") if args.splits == "test" else ("val",)
        shared: dict[str, Any] = {"seeds": args.seeds, "steps": args.steps, "words": words}
        self.whole = read_study(args.study, only=(), **shared)
        self.pairs = read_study(args.study, only=args.only, **shared)
        self.entries: dict[Key, dict[str, Any]] = {}
        self.failed: list[str] = []
        self._writing, self._began, self._done = threading.Lock(), time.monotonic(), 0
        where = ["--data.root", args.root, "--data.num_workers", "1", "--trainer.limit_test_batches", "0"]
        where += ["--panel_steps", "1000000"]  # pictures take longer than steps: at the first and the last one
        self.device = ("--trainer.accelerator", args.accelerator)
        self.where = (*where, *self.device, *(["--network.encoder_checkpoint", args.weights] if args.weights else []))
        self._check_options()

    def _check_options(self) -> None:
        """Refuses before the first training what `segzoo fit` would refuse after it."""
        for pair in self.pairs:
            for row in pair.plan.rows:
                options = row.options_from({start.name: "last.ckpt" for start in row.starts})
                try:
                    expand("fit", ["--method", row.method, *pair.plan.common, *options, *self.where], lambda path: {})
                except SegzooError as error:
                    raise ConfigError(f"{pair.name}/{row.name}: {error}") from error

    def run(self) -> None:
        """Performs what is left, the longest runs first, and reports."""
        self._read_results()
        waves: dict[int, list[tuple[Pair, Row, int]]] = {}
        for pair in self.pairs:
            for row in pair.plan.rows:
                waves.setdefault(row.wave, []).extend((pair, row, seed) for seed in pair.plan.seeds)
        total = sum(map(len, waves.values()))
        for _, wave in sorted(waves.items()) if self.args.jobs else ():
            wave.sort(key=lambda one: -one[0].costs[one[1].name])
            with ThreadPoolExecutor(self.args.jobs) as pool:
                try:
                    for message in pool.map(lambda one: self._perform(*one), wave):
                        self._done += 1
                        say(f"{self._done}/{total}  {message}  ({time.monotonic() - self._began:.0f} s)")
                except BaseException:  # Ctrl-C: what runs saves, and what waits does not begin
                    self.workers.stop()
                    raise
        self.write_report(figures=True)

    def _perform(self, pair: Pair, row: Row, seed: int) -> str:
        name = f"{pair.name}/{row.name}, seed {seed}"
        if self.args.minutes and time.monotonic() - self._began > 60 * self.args.minutes:
            return f"left for the next time: {name}"
        folder = self.out / pair.name
        folder.mkdir(parents=True, exist_ok=True)
        first = seed == pair.plan.seeds[0]
        examples = self.report / "examples" / self.splits[-1] / pair.name / f"{row.name}.npz" if first else None

        def perform(words: tuple[str, ...], log: Path) -> int:
            job = Job(words, folder, row, seed, self.splits, self.device, pair.data, self.args.root, examples)
            return self.workers.run(job, log)

        def train(training: Training, log: Path, threads: Mapping[str, str]) -> int:
            return perform(self._words(training), log)

        try:
            complete(folder, pair.plan, row, seed, train, {}, say, scores_of("val"))
            run = find_run(folder, row, seed, scores_of("val"))
            missing = any(not (run / scores_of(split)).is_file() for split in self.splits)
            if missing or (examples is not None and not examples.is_file()):
                log = folder / f"{row.name}-s{seed}-scores.log"
                if status := perform((), log):
                    raise SegzooError(f"scoring {name} ended with status {status}, see {log}")
            self._add(pair, row, seed, run)
        except Exception as error:  # one run that fails is no reason to lose the others
            self.failed.append(f"{name}: {error}")
            return f"failed: {self.failed[-1]}"
        return name

    def _words(self, training: Training) -> tuple[str, ...]:
        """The command of a training."""
        where = ["--seed_everything", str(training.seed), "--runs", str(training.folder), *self.where]
        if training.checkpoint:
            where = ["--ckpt_path", str(training.checkpoint), *self.where]
        return ("fit", "--method", training.row.method, *training.options, *where)

    # Results

    def _read_results(self) -> None:
        """Those that were there before, as far as they are of the options of today; a run's folder need not be here."""
        path, before = self.report / "results.json", dict[Key, dict[str, Any]]()
        if path.is_file():
            before = {(one["pair"], one["row"], one["seed"]): one for one in json.loads(path.read_text())}
        for pair in self.whole:
            folder = self.out / pair.name
            for row in pair.plan.rows:
                for seed in pair.plan.seeds:
                    key = (pair.name, row.name, seed)
                    run = find_run(folder, row, seed, scores_of("val"))
                    if (run / scores_of("val")).is_file() and self._is_of_today(folder, pair, row, seed, run):
                        self._add(pair, row, seed, run, write=False)
                    elif key in before and before[key]["options"] == [*pair.plan.common, *row.options]:
                        self.entries[key] = before[key]

    def _is_of_today(self, folder: Path, pair: Pair, row: Row, seed: int, run: Path) -> bool:
        try:
            check_orders(run, folder / f"{row.name}-s{seed}.json", orders(row, pair.plan.common))
        except ConfigError:
            return False
        return True

    def _add(self, pair: Pair, row: Row, seed: int, run: Path, write: bool = True) -> None:
        from docs.photographs.results import entry

        with self._writing:
            self.entries[pair.name, row.name, seed] = entry(pair, row, seed, run, self.out)
            if write:
                self.write_report(figures=False)

    def _ordered(self) -> list[dict[str, Any]]:
        keys = [
            (pair.name, row.name, seed) for pair in self.whole for row in pair.plan.rows for seed in pair.plan.seeds
        ]
        return [self.entries[key] for key in keys if key in self.entries]

    def write_report(self, figures: bool) -> None:
        """Results and tables, and by request figures, of what there is."""
        from segzoo.study.entries import write_results

        self.report.mkdir(parents=True, exist_ok=True)
        if self.entries:
            write_results(self.report / "results.json", self._ordered())
        write_text(self.report / "tables.md", study_tables(self._ordered(), self.splits[-1]) + "\n")
        if figures and self.entries:
            from docs.photographs.figures import draw
            from segzoo.study.report import FILE, write_report

            draw(self._ordered(), self.report, self.splits[-1], self.args.root)
            command = shlex.join(["python", "-m", "docs.photographs.study", *sys.argv[1:]])
            write_report(self.report / FILE, self._ordered(), self.out, question=QUESTION, command=command)


def say(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit status is 1 where a run failed."""
    at = list(argv).index("--") if "--" in argv else len(argv)
    args, words = parser().parse_args(argv[:at]), argv[at + 1 :]
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        with locked(args.out), Workers(warm=not args.cold) as workers:
            study = Study(args, words, workers)
            study.run()
    except SegzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    say(f"written to {study.report}: results.json, tables.md and figures")
    for line in study.failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if study.failed else 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        "python -m docs.photographs.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = found.add_argument
    add("--study", type=Path, default=HERE / "study.yaml", help="what is compared (default: study.yaml)")
    add("--root", default=".", help="folder that the data's paths start from")
    add("--out", type=Path, default=Path("runs/photographs"), help="folder of the runs")
    add("--report", type=Path, help="folder of results.json, tables and figures (default: OUT)")
    add("--steps", type=int, help="of every run (default: those of the study)")
    add("--seeds", help="e.g. 0-2 or 0,1,7 (default: those of the study)")
    add("--only", action="append", default=[], metavar="PATTERN", help="PAIR, ROW or PAIR/ROW with * and ?; repeatable")
    add("--splits", choices=("val", "test"), default="val", help="test: score test, too, and report it (default: val)")
    add("--jobs", type=int, default=1, help="runs side by side; 0 reports what there is (default: 1)")
    add("--minutes", type=float, help="after which no further run begins")
    add("--weights", help="file of the encoder's pretrained weights, instead of a download")
    add("--accelerator", default="auto", help="of the trainer (default: auto)")
    add("--cold", action="store_true", help="every run imports for itself: slower, and independent of the others")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
