"""Which way to take for one's own photographs: the rows that fit what there is, the steps that fit a deadline, and the choice.

Rows are chosen by the target's validation images alone. Its test images say how good the chosen row is, and nothing else.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from segzoo.errors import ConfigError
from segzoo.study.entries import Entry
from segzoo.study.plan import Row, Variant, parse_row
from segzoo.study.statistics import mean_std

SCORE = "val/miou"
PARTS = 5
"""Validations of a training at most, evenly spread: the points of its learning curve, of which the last one is the score."""
LEAST = 100
"""Steps below which no order of rows means anything; `trial` says so."""
MOST = 20_000
"""Steps beyond which few labels are only learned by heart."""
RISES = 0.01
"""In the last part of a training, from which a longer one is likely to give more."""
HEAD = ("row", "val mIoU %", "by seed", "test mIoU %")
"""Of the table of a choice."""
FEW = 20
"""Validation images below which their choice is hardly one."""

CONTROL, TUNED = "target-only", "fine-tuned"
VARIANTS = {TUNED: Variant("semi-supervised", ("--network.initial_checkpoint", "{source-only}"))}
"""Rows that are no method of that name."""
ROWS: Mapping[tuple[bool, bool], Mapping[str, str]] = {
    (True, True): {
        CONTROL: "the labelled photographs alone, which all others must beat",
        "semi-supervised": "with the photographs that have no label",
        "ssda": "with both these and the synthetic images",
        "source-only": "the synthetic images alone",
        TUNED: "source-only, then semi-supervised: as many steps of each",
    },
    (True, False): {
        CONTROL: "the labelled photographs alone, which all others must beat",
        "joint": "with the synthetic images",
        "metapix": "with the synthetic images, each pixel with a weight that is learned",
    },
    (False, True): {
        "source-only": "the synthetic images alone, which all others must beat",
        "self-training": "with the photographs, which a teacher labels",
        "sepico": "the same, with pixels drawn to their class",
    },
}
"""Rows by whether there are labelled photographs to learn from, and others without labels; the first is the control."""


def trial(steps: int) -> str:
    """What is to be said of trainings of so few steps; empty where they are enough to compare rows."""
    some = f"{steps} step{'s' * (steps != 1)} show{'s' * (steps == 1)}"
    return f"{some} nothing about the methods: this was a trial of the software." if steps < LEAST else ""


def make_rows(names: Sequence[str]) -> tuple[Row, ...]:
    """The rows of these names, and those that they start from.

    Raises:
        ConfigError: an unknown name.
    """
    found: dict[str, Row] = {}
    for name in names:
        row = parse_row(name, VARIANTS)
        found |= {start.name: start for start in row.starts if start.name not in found} | {name: row}
    return tuple(found.values())


@dataclass(frozen=True)
class Photographs:
    """What there is of the target.

    Attributes:
        labelled: training images with labels.
        unlabelled: training images without.
        val: labelled validation images.
        test: labelled test images.
    """

    labelled: int
    unlabelled: int
    val: int
    test: int

    def rows(self) -> Mapping[str, str]:
        """The rows that they are enough for, and what each learns from.

        Raises:
            ConfigError: nothing can be chosen.
        """
        for count, split in ((self.val, "val"), (self.test, "test")):
            if not count:
                raise ConfigError(
                    f"the target has no labelled {split} images: rows are chosen on val, and the chosen one is scored on test; "
                    "divide the labelled photographs (`data.target.blocks 0.5 0.25 0.25`), or label ten more. Without any, "
                    "train `self-training`, which was ahead wherever it could be measured"
                )
        found = ROWS.get((self.labelled > 0, self.unlabelled > 0))
        if found is None:
            raise ConfigError("the target has no training images: there is nothing to choose from beside source-only")
        return found


@dataclass(frozen=True)
class Cost:
    """Seconds that a row takes.

    Attributes:
        step: of training.
        around: before and after it: the start, and the test.
    """

    step: float
    around: float

    @classmethod
    def of(cls, manifest: Mapping[str, object], tested: float) -> "Cost":
        """That of a training.

        Args:
            manifest: its ``manifest.json``.
            tested: when its test had ended, in seconds since 1970.
        """
        training = manifest["training"]
        assert isinstance(training, Mapping)
        around = tested - datetime.fromisoformat(str(manifest["started"])).timestamp() - float(training["seconds"])
        return cls(float(training["seconds"]) / int(training["steps"]), max(0.0, around))

    def seconds(self, steps: int, photographs: Photographs) -> float:
        """Those of a whole training. A validation takes at most its share of what is around the training."""
        return steps * self.step + self.around * (1 + PARTS * photographs.val / photographs.test)


def steps_within(
    seconds: float, costs: Iterable[Cost], photographs: Photographs, seeds: int, jobs: int, most: int = MOST
) -> int:
    """The steps, the same for all rows, after which all trainings are done in time.

    Args:
        seconds: that there are.
        costs: of the rows.
        photographs: that are scored.
        seeds: of every row.
        jobs: trainings at a time.
        most: a limit of the steps.

    Returns:
        A multiple of `PARTS`.

    Raises:
        ConfigError: the time is too short to tell rows apart.
    """
    costs = list(costs)
    fixed = sum(cost.seconds(0, photographs) for cost in costs) * seeds / jobs
    step = sum(cost.step for cost in costs) * seeds / jobs
    steps = min(most, int((seconds - fixed) / step))
    if steps < min(LEAST, most):
        needed = (fixed + LEAST * step) / 3600
        raise ConfigError(
            f"too little time: {LEAST} steps, the least, of {len(costs)} rows and {seeds} seeds take {needed:.1f} hours; give "
            "more hours, fewer seeds or rows, or smaller images (`data.size`, `data.crop_size`)"
        )
    return max(PARTS, steps // PARTS * PARTS)


@dataclass(frozen=True)
class Judged:
    """A row, as the validation images judge it.

    Attributes:
        row: its name.
        val: mIoU on the validation images by seed, after the last step.
        rise: of its mean in the last part of the training; 0 where there is one part.
        test: mIoU on the test images, the mean over seeds.
        run: folder of the run with the best validation, by seed order in a tie, from that of the study.
    """

    row: str
    val: Mapping[int, float]
    rise: float
    test: float
    run: str

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return sum(self.val.values()) / len(self.val)

    def lead(self, other: "Judged") -> list[float]:
        """Over another row, seed by seed."""
        return [value - other.val[seed] for seed, value in self.val.items() if seed in other.val]


def validation_interval(steps: int) -> int:
    """The steps between validations, of which there are as many as divide the training, `PARTS` at most: one is at its end."""
    return steps // next(parts for parts in range(PARTS, 0, -1) if steps % parts == 0)


@dataclass(frozen=True)
class Choice:
    """What was chosen, as it is shown.

    Attributes:
        judged: the rows, the best first.
        lines: what is to be done, in sentences.
    """

    judged: tuple[Judged, ...]
    lines: tuple[str, ...]

    def table(self) -> list[tuple[str, str, str, str]]:
        """A line for each row, in the order of `HEAD`. The chosen row alone has its test score: none may be taken for one."""
        found = []
        for place, one in enumerate(self.judged):
            seeds = " ".join(f"{100 * value:.1f}" for value in one.val.values())
            found.append((one.row, f"{100 * one.mean:.1f}", seeds, "–" if place else f"{100 * one.test:.1f}"))
        return found


def judge(entries: Sequence[Entry]) -> list[Judged]:
    """The rows whose runs are complete, the best first.

    Args:
        entries: of a study on one pair of data sets.

    Raises:
        ConfigError: a run without the validation of its last step.
    """
    rows: dict[str, list[Entry]] = {}
    for one in entries:
        rows.setdefault(one["row"], []).append(one)
    return sorted((_judge(row, runs) for row, runs in rows.items()), key=lambda one: -one.mean)


def _judge(row: str, runs: Sequence[Entry]) -> Judged:
    curves = {one["seed"]: one["curve"].get(SCORE, {"steps": [], "values": []}) for one in runs}
    for one in runs:
        steps, last = curves[one["seed"]]["steps"], one["manifest"]["max_steps"]
        if not steps or steps[-1] < last - 1:  # the first step is 0
            raise ConfigError(
                f"{one['run']} was not validated after its last step, {last}: give no `trainer.val_check_interval`"
            )
    val = {seed: float(curve["values"][-1]) for seed, curve in curves.items()}
    rise = mean_std(
        [curve["values"][-1] - curve["values"][-2] for curve in curves.values() if len(curve["values"]) > 1]
    )[0]
    best = max(runs, key=lambda one: val[one["seed"]])
    test = mean_std([one["scores"]["test"]["miou"] for one in runs])[0]
    return Judged(row, val, 0.0 if rise != rise else rise, test, str(best["run"]))


def in_words(judged: Sequence[Judged], photographs: Photographs, control: str, steps: int) -> list[str]:
    """What is to be done, in sentences; first of all that it means nothing, where the trainings were too short.

    Args:
        judged: the rows, the best first.
        photographs: that they learned from and were scored on.
        control: the row that others must beat.
        steps: of every training.
    """
    best, *others = judged
    seeds = f"seed{'s' * (len(best.val) > 1)} {', '.join(map(str, best.val))}"
    lines = [said] if (said := trial(steps)) else []
    lines += [
        f"Take {best.row}: {100 * best.mean:.1f} % mIoU on {photographs.val} validation images ({seeds}), "
        f"{100 * best.test:.1f} % on {photographs.test} test images, which took no part in the choice."
    ]
    shown = [one for one in others[:1] if one.row != control] + [one for one in others if one.row == control]
    lines += [_lead(best, other) for other in shown]
    if photographs.val < FEW:
        lines.append(f"{photographs.val} validation images decide little: {FEW} or more would make it a measurement.")
    if best.rise > RISES:
        lines.append(
            f"{best.row} still rose by {100 * best.rise:.1f} points between its last two validations: a longer training may "
            "give more."
        )
    return lines


def _lead(best: Judged, other: Judged) -> str:
    leads = best.lead(other)
    if not leads:
        return f"It has no seed in common with {other.row}."
    mean = f"{100 * sum(leads) / len(leads):+.1f} points over {other.row}"
    if len(leads) == 1:
        return f"{mean}, with one seed, which says nothing about a point or two."
    if min(leads) <= 0:
        return f"{mean}, and not with every seed: the two are level."
    return f"{mean}, with every seed (from {100 * min(leads):+.1f} to {100 * max(leads):+.1f})."


def as_json(judged: Sequence[Judged], photographs: Photographs, steps: int) -> str:
    """What `in_words` says, for programs."""
    rows = [
        {
            "row": one.row,
            "val": dict(one.val),
            "val_mean": one.mean,
            "rise": one.rise,
            "test_mean": one.test,
            "run": one.run,
        }
        for one in judged
    ]
    content = {
        "take": judged[0].row,
        "run": judged[0].run,
        "steps": steps,
        "warning": trial(steps) or None,
        "photographs": vars(photographs),
        "rows": rows,
    }
    return json.dumps(content, indent=1) + "\n"
