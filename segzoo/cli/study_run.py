"""The trainings of a study as processes of their own, shown while they run, and what is written at their end."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segzoo.cli.places import Places, environment, visible_gpus
from segzoo.cli.rundir import create, without_launcher
from segzoo.cli.study_display import StudyDisplay
from segzoo.errors import ConfigError, SegzooError
from segzoo.files import write_text
from segzoo.runtime.lock import locked
from segzoo.study.results import SPLITS, OtherOptions, check_beginnings, find_run
from segzoo.study.running import Run, Training, complete, threads_of, train_all, waves
from segzoo.study.study_file import Comparison, Study
from segzoo.study.trainings import Trainings
from segzoo.suggest import did_you_mean

if TYPE_CHECKING:
    from segzoo.study.choice import Choice

PROGRAM = (sys.executable, "-m", "segzoo.cli.follow")
"""`segzoo` that ends when this process does."""
OWN_DEVICES = "--trainer.devices"
CHOICE = "choice.json"
"""What `segzoo choose` leaves beside its results."""


def run_study(out: Path, study: Study, jobs: int, command: str, *, per_class: bool, train: bool) -> int:
    """Trains what is not complete, and reports.

    Args:
        out: folder of the study.
        study: what is compared.
        jobs: trainings at a time.
        command: that was given, for the report.
        per_class: with tables by class.
        train: False: only reports what there is.

    Raises:
        SegzooError: a training failed, or another process writes there.
    """
    failure: SegzooError | None = None
    with locked(create(out)):
        for one in study.comparisons:
            check_beginnings(one.folder(out), one.plan)
        try:
            if train:
                train_study(out, study, jobs)
        except ConfigError:
            raise
        except SegzooError as error:  # what is complete is reported all the same
            failure = error
        for one in study.comparisons:
            if not left(out, replace(study, comparisons=(one,))):
                _print_table(one, one.folder(out), per_class, study.split)
        if failure is None or len(left(out, study)) < sum(map(len, waves(study))):
            report(out, study, complete_results(out, study), command)
    if failure is not None:
        raise failure
    return 0


def complete_results(out: Path, study: Study) -> list[dict[str, Any]]:
    """The results of the runs that are complete, which it also writes.

    Raises:
        ConfigError: none is.
    """
    from segzoo.study.entries import RESULTS, study_entries, write_results

    entries = study_entries(out, study)
    if not entries:
        raise ConfigError(f"no run in {out} is complete: there is nothing to report yet")
    write_results(out / RESULTS, entries)
    return entries


def report(
    out: Path, study: Study, entries: Sequence[Mapping[str, Any]], command: str, choice: "Choice | None" = None
) -> None:
    """Writes the report.

    Args:
        out: folder of the study.
        study: what is compared.
        entries: results of the runs that are complete.
        command: that was given.
        choice: that was made on the validation images, where one was.
    """
    from segzoo.study.entries import missing_runs
    from segzoo.study.report import FILE, write_report

    missing = [run.name for run in missing_runs(entries, study)]
    write_report(out / FILE, entries, out, question=study.question, command=command, missing=missing, choice=choice)
    rest = f", without {len(missing)} runs that are not complete" if missing else ""
    print(f"written to {out / FILE}{rest}")


def report_results(path: Path, command: str, out: Path | None = None) -> int:
    """Prints what results of another machine say, and writes their report; that of a choice stays.

    Args:
        path: ``results.json``.
        command: that was given.
        out: folder of the report; that of the file when None.
    """
    from segzoo.study.entries import read_results
    from segzoo.study.findings import find
    from segzoo.study.report import FILE, write_report
    from segzoo.study.words import answer

    entries, folder = read_results(path), out or path.parent
    print("\n".join(answer(find(entries, path.parent))))
    name = "comparison.html" if (folder / CHOICE).is_file() else FILE
    folder.mkdir(parents=True, exist_ok=True)
    print(f"written to {write_report(folder / name, entries, path.parent, command=command)}")
    return 0


def perform(out: Path, study: Study, name: str) -> int:
    """Trains one run by its name, beside other processes that train others.

    Raises:
        ConfigError: no such run.
        SegzooError: the training failed.
    """
    runs = {run.name: run for wave in waves(study) for run in wave}
    if name not in runs:
        raise ConfigError(f"--run {name} is not one of this study{did_you_mean(name, runs)}")
    run = runs[name]
    folder = create(run.comparison.folder(out))
    with Trainings(PROGRAM, without_launcher(os.environ), _say_stopped) as trainings:

        def train(training: Training, log: Path, threads: Mapping[str, str]) -> int:
            return train_and_score(trainings, training, log, threads, study.split)

        proof = SPLITS[study.split]
        complete(folder, run.comparison.plan, run.row, run.seed, train, threads_of(1), _say, proof)
    _say(f"{run} is complete")
    return 0


def left(out: Path, study: Study) -> list[Run]:
    """The runs that are not complete."""
    runs, proof = (run for wave in waves(study) for run in wave), SPLITS[study.split]
    return [
        run for run in runs if not (find_run(run.comparison.folder(out), run.row, run.seed, proof) / proof).is_file()
    ]


def train_and_score(
    trainings: Trainings, training: Training, log: Path, environment: Mapping[str, str], split: str
) -> int:
    """Trains, and scores the images that rows are compared on; returns the exit status of what failed, or 0.

    Args:
        trainings: run the commands.
        training: what is to be done.
        log: file of what it prints.
        environment: further environment variables.
        split: of the images. The test images are not touched where it is another one.
    """
    if split == "test":
        # One that goes on may have been trained for a choice, without its test.
        whole = ["--trainer.limit_test_batches", "null"] if training.checkpoint else []
        return trainings.run([*words(training), *whole], log, environment)
    if status := trainings.run([*words(training), "--trainer.limit_test_batches", "0"], log, environment):
        return status
    proof = SPLITS[split]
    run = find_run(training.folder.parent, training.row, training.seed, proof)
    last, own = run / "checkpoints" / "last.ckpt", log.with_suffix(f".{split}.log")
    scoring = ["validate", "--ckpt_path", str(last), "--out", str((run / proof).parent)]
    status = trainings.run([*scoring, "--trainer.limit_val_batches", "1.0"], own, environment)
    if own.is_file():
        with log.open("ab") as file:
            file.write(own.read_bytes())
        own.unlink()
    return status


def words(training: Training) -> list[str]:
    """The command of a training."""
    if training.checkpoint:
        where = ["--ckpt_path", str(training.checkpoint)]
    else:
        where = ["--seed_everything", str(training.seed), "--runs", str(training.folder)]
    weight = ["--method.weight", training.weight] if training.weight else []
    return ["fit", "--method", training.row.method, *where, *training.options, *weight]


def train_study(out: Path, study: Study, jobs: int) -> None:
    """Trains what is not complete, shown while it runs.

    Raises:
        SegzooError: a training failed.
    """
    pending = left(out, study)
    options = {word for one in study.comparisons for row in one.plan.rows for word in (*one.plan.common, *row.options)}
    own_devices = any(word.partition("=")[0] == OWN_DEVICES for word in options)
    places = Places(jobs, visible_gpus() if jobs > 1 and pending and not own_devices else [])
    # A file may say that a row costs nothing, of which no time could be told.
    costs = {run.name: max(1e-3, run.comparison.costs.get(run.row.name, 1)) for run in pending}
    display = StudyDisplay(costs, jobs)
    warm = len(pending) > 1 or study.split != "test"  # more than one command
    with Trainings(PROGRAM, without_launcher(os.environ), _say_stopped, warm=warm) as trainings, display:

        def train(training: Training, log: Path, threads: Mapping[str, str]) -> int:
            name = str(log.with_suffix("").relative_to(out))
            with places.take() as place:
                display.begin(name, log, f"GPU {place}" if place else "")
                try:
                    return train_and_score(trainings, training, log, {**threads, **environment(place)}, study.split)
                finally:
                    display.end(name)

        try:
            train_all(out, study, jobs, train, display.say, display.time_left)
        except OtherOptions as error:
            raise ConfigError(f"{error.args[0]}; choose another folder with --out, or remove that run") from error


def _print_table(one: Comparison, folder: Path, per_class: bool, split: str) -> None:
    from segzoo.study.table import make_table

    table = make_table(folder, one, per_class=per_class, split=split)
    write_text(folder / "comparison.md", table + "\n")
    title = f"{one.name}\n\n" if one.name else ""
    print(f"\n{title}{table}\n\nwritten to {folder / 'comparison.md'}")


def _say(line: str) -> None:
    print(line, flush=True)


def _say_stopped() -> None:
    print("stopped; the same command continues", file=sys.stderr)
