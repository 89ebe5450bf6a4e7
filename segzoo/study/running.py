"""The trainings of a comparison, in the order that they need, some of them at a time. Only scores need torch."""

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from segzoo.errors import ConfigError, SegzooError
from segzoo.files import write_text
from segzoo.runtime.lock import locked
from segzoo.study.plan import Plan, Row
from segzoo.study.results import (
    SCORES,
    SPLITS,
    all_runs,
    check_complete,
    check_orders,
    checkpoint_of,
    find_run,
    mean_weight,
    orders,
)
from segzoo.study.study_file import Comparison, Study


@dataclass(frozen=True)
class Training:
    """One run that is to be started or continued.

    Attributes:
        row: whose run it is.
        seed: of a new run.
        folder: for a new run.
        checkpoint: the one that it continues; None for a new run.
        options: words of `segzoo fit`: the common ones, then the row's.
        weight: constant weight of the source, as text; None where the row has none from another.
    """

    row: Row
    seed: int
    folder: Path
    checkpoint: Path | None
    options: tuple[str, ...]
    weight: str | None = None


Train = Callable[[Training, Path, Mapping[str, str]], int]
"""Runs a training; takes a file for what it prints and further environment variables, and returns its exit status."""


@dataclass(frozen=True)
class Run:
    """One line of what is to be done.

    Attributes:
        comparison: that it belongs to.
        row: whose run it is.
        seed: of the run.
    """

    comparison: Comparison
    row: Row
    seed: int

    @property
    def name(self) -> str:
        """``ROW-s<seed>``, below the name of the data where there is one."""
        return "/".join(filter(None, [self.comparison.name, f"{self.row.name}-s{self.seed}"]))

    def __str__(self) -> str:
        return "/".join(filter(None, [self.comparison.name, f"{self.row.name}, seed {self.seed}"]))


class TrainingFailed(SegzooError):
    """A training that ended with an error.

    Args:
        message: what is said of it.
        reason: the last line that it printed.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, reason)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass
class Course:
    """What came of the runs of a study so far.

    Attributes:
        trained: whether a training came to its end.
        failed: messages of the runs that failed, by the names of data and row, and the seed.
        reasons: what they ended with, by data and row.
        hopeless: whether every run would fail, so that no further one begins. It is taken for granted once two rows have failed
            for the same reason before anything was trained: weights that cannot be loaded fail all rows, and a row that is too
            large for the machine fails alone.
    """

    trained: bool = False
    failed: dict[tuple[str, str, int], str] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)
    hopeless: bool = False
    _changing: threading.Lock = field(default_factory=threading.Lock)

    def note(self, run: Run, error: SegzooError) -> None:
        """A run failed."""
        with self._changing:
            self.failed[run.comparison.name, run.row.name, run.seed] = str(error)
            reason = error.reason if isinstance(error, TrainingFailed) else str(error)
            self.reasons[run.comparison.name, run.row.name] = reason
            alike = len(self.reasons) > 1 and len(set(self.reasons.values())) == 1
            # It stays so: what waits for a run that did not begin must not begin, either.
            self.hopeless = self.hopeless or (alike and not self.trained)

    def lost(self, run: Run) -> str | None:
        """The row that a run would take something from, and which failed; None where there is none."""
        before = (*run.row.starts, *([run.row.weight_of] if run.row.weight_of else []))
        return next((row.name for row in before if (run.comparison.name, row.name, run.seed) in self.failed), None)


def waves(study: Study) -> list[list[Run]]:
    """All runs; those in one list may run at a time, after all in those before it, the longest first."""
    found: dict[int, list[Run]] = {}
    for one in study.comparisons:
        for number, wave in enumerate(one.plan.waves):
            found.setdefault(number, []).extend(Run(one, row, seed) for row, seed in wave)
    return [sorted(found[n], key=lambda run: -run.comparison.costs.get(run.row.name, 1)) for n in sorted(found)]


def train_all(
    out: Path,
    study: Study,
    jobs: int,
    train: Train,
    say: Callable[[str], object],
    time_left: Callable[[], str] = lambda: "",
) -> None:
    """Trains what is not complete. A run that fails keeps none from running but those that start from it; where the first ones
    show that all would fail for the same reason, no further ones begin.

    Args:
        out: folder of the study.
        study: what is compared.
        jobs: trainings at a time.
        train: starts one and waits for its end.
        say: is given a line when a training begins, and when it is complete.
        time_left: what follows in the line of a complete one.

    Raises:
        SegzooError: trainings failed, or one that is there is not what the plan wants.
    """
    planned = waves(study)
    total, done = sum(map(len, planned)), 0
    course = Course()
    threads = threads_of(jobs)

    def perform(run: Run) -> bool:
        if course.hopeless:
            return False
        if lost := course.lost(run):
            course.failed[run.comparison.name, run.row.name, run.seed] = f"{run} waits for {lost}, which failed"
            return False
        folder = run.comparison.folder(out)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            plan, proof = run.comparison.plan, SPLITS[study.split]
            if complete(folder, plan, run.row, run.seed, train, threads, say, proof):
                course.trained = True
        except ConfigError:
            raise
        except SegzooError as error:
            course.note(run, error)
            return False
        return True

    with ThreadPoolExecutor(jobs) as pool:
        for wave in planned:  # rows that take something from others wait for them
            for run, well in zip(wave, pool.map(perform, wave), strict=True):
                if well:
                    done += 1
                    say(f"{done}/{total}  {run}{time_left()}")
    if course.failed:
        raise SegzooError(_in_short(list(course.failed.values()), done, total))


def _in_short(failed: Sequence[str], done: int, total: int) -> str:
    """What is said in the end of runs that failed, and of those that did not begin because of them."""
    rest = total - done - len(failed)
    if len(failed) == 1 and not rest:
        return failed[0]
    then = f"; the other {rest} would fail for the same reason, and were not begun" if rest else ""
    return f"{len(failed)} of {total} runs failed, the first: {failed[0]}{then}"


def threads_of(jobs: int) -> dict[str, str]:
    """Environment of runs beside each other: they share the cores, and more threads than cores slow all of them down."""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // jobs))}


def next_training(folder: Path, plan: Plan, row: Row, seed: int, scores: str = SCORES) -> Training | None:
    """What is left to do for a row and a seed; None when its run is complete.

    Raises:
        ConfigError: somebody else trains it, its run has other options or is of no use, or what it starts from is missing.
    """
    for begun in all_runs(folder, row, seed):
        with locked(begun):
            pass  # nobody else trains it, such as one that outlived its comparison
    run = find_run(folder, row, seed, scores)
    if run != folder / row.name:
        check_orders(run, _record(folder, row, seed), orders(row, plan.common))
    if (run / scores).is_file():
        check_complete(run, scores)
        return None
    last = run / "checkpoints" / "last.ckpt"
    starts = {start.name: checkpoint_of(folder, row, start, seed) for start in row.starts}
    return Training(
        row=row,
        seed=seed,
        folder=folder / row.name,
        checkpoint=last if last.is_file() else None,
        options=(*plan.common, *row.options_from(starts)),
        weight=f"{mean_weight(find_run(folder, row.weight_of, seed)):.4f}" if row.weight_of else None,
    )


def complete(
    folder: Path,
    plan: Plan,
    row: Row,
    seed: int,
    train: Train,
    threads: Mapping[str, str],
    say: Callable[[str], object],
    scores: str = SCORES,
) -> bool:
    """Trains one row with one seed, unless its run is complete; returns whether it had to.

    Args:
        folder: of the comparison.
        plan: what is compared.
        row: whose run it is.
        seed: of the run.
        train: starts a training and waits for its end.
        threads: environment variables for it.
        say: is given a line when it begins.
        scores: the file by which a complete run is known.

    Raises:
        SegzooError: it failed, or what is there is not what the plan wants.
    """
    training = next_training(folder, plan, row, seed, scores)
    if training is None:
        return False
    record = _record(folder, row, seed)
    write_text(record, json.dumps(orders(row, plan.common), indent=1) + "\n")
    log = record.with_suffix(".log")
    say(f"trains {row.name}, seed {seed}: {log}")
    if status := train(training, log, threads):
        lines = log.read_text(errors="replace").strip().splitlines() or [f"exit status {status}"]
        raise TrainingFailed(f"{row.name} with seed {seed} failed, see {log}: {lines[-1]}", lines[-1])
    check_complete(find_run(folder, row, seed, scores), scores)
    return True


def is_complete(folder: Path, plan: Plan, row: Row, seed: int, scores: str = SCORES) -> bool:
    """Whether a run is there, came to its end, and is of the options of today."""
    run = find_run(folder, row, seed, scores)
    if not (run / scores).is_file():
        return False
    try:
        check_orders(run, _record(folder, row, seed), orders(row, plan.common))
        check_complete(run, scores)
    except ConfigError:
        return False
    return True


def _record(folder: Path, row: Row, seed: int) -> Path:
    return folder / f"{row.name}-s{seed}.json"
