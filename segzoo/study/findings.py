"""What the results of a study say: a line per row, differences to references, and what labels are worth."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segzoo.study.entries import Entry, image_counts
from segzoo.study.results import SPLITS
from segzoo.study.statistics import Difference, Floats, corrected, difference, equal_labels, mean_std

RESOURCES = {"source": "source", "labels": "target labels", "unlabelled": "unlabelled target"}


@dataclass(frozen=True)
class RowFinding:
    """A line of the table.

    Attributes:
        name: of the row.
        group: what it learns from, in words.
        labels: how many target images had labels; None: none, or nobody counted.
        entries: its runs.
        miou: mean and standard deviation over seeds.
        accuracy: of the pixels: mean and standard deviation.
        published: the mIoU that somebody published for it, a fraction; None where the study names none.
        reference: the row that it is compared with.
        difference: to that row; None for itself, and without common seeds.
        classes: mean IoU by class; None where none has it.
        effects: mean difference in IoU to the reference by class, and how many of the seeds have its sign.
    """

    name: str
    group: str
    labels: int | None
    entries: tuple[Entry, ...]
    miou: tuple[float, float]
    accuracy: tuple[float, float]
    published: float | None
    reference: str
    difference: Difference | None
    classes: Mapping[str, float | None]
    effects: Mapping[str, tuple[float, int, int]]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of its runs."""
        return tuple(one["seed"] for one in self.entries)


@dataclass(frozen=True)
class Worth:
    """A row with some labels beside another one with more or fewer.

    Attributes:
        row: with its labels.
        labels: that it had.
        other: the row without synthetic images, or whatever the reference is.
        equal: how many labels that one needs for the same mIoU, by the means; infinite: more than its largest budget.
        by_seed: the same for every seed.
        smallest: budget of the other row.
        largest: budget of the other row.
        verdict: of the row's difference to its reference, as `Difference.verdict` has it: whether any gain is shown at all.
    """

    row: str
    labels: int
    other: str
    equal: float
    by_seed: tuple[float, ...]
    smallest: int
    largest: int
    verdict: str

    @property
    def shown(self) -> bool:
        """Whether the row was shown to differ from its reference."""
        return self.verdict in ("better", "worse")


@dataclass(frozen=True)
class Findings:
    """What is said of one pair of data sets.

    Attributes:
        name: of the pair.
        split: that was scored.
        rows: grouped by what they learn from.
        budgets: mIoU by number of labels, by row: (labels, values of the seeds).
        worths: what labels are worth, where there is a curve.
        protocol: how the scores were measured.
    """

    name: str
    split: str
    rows: tuple[RowFinding, ...]
    budgets: Mapping[str, Sequence[tuple[int, Mapping[int, float]]]]
    worths: tuple[Worth, ...]
    protocol: str

    @property
    def seeds(self) -> int:
        """The smallest number of seeds of a row."""
        return min(len(row.entries) for row in self.rows)


def find(entries: Sequence[Entry], out: Path) -> list[Findings]:
    """What all entries say, by pair of data sets.

    Args:
        entries: of the runs.
        out: folder that their runs are named from.
    """
    pairs = dict.fromkeys(one["pair"] for one in entries)
    return [_find_pair([one for one in entries if one["pair"] == pair], out) for pair in pairs]


def _find_pair(entries: Sequence[Entry], out: Path) -> Findings:
    # Of what was scored, that which rows are compared on if nobody says otherwise.
    split = next(split for split in SPLITS if any(split in one["scores"] for one in entries))
    entries = [one for one in entries if split in one["scores"]]
    by_row: dict[str, list[Entry]] = {}
    for one in entries:
        by_row.setdefault(one["row"], []).append(one)
    values = {name: _values(runs, split) for name, runs in by_row.items()}
    counts = {name: _counts(runs, out) for name, runs in by_row.items()}
    differences = {}
    for name, runs in by_row.items():
        other = runs[0]["reference"]
        if (
            other != name
            and other in by_row
            and (found := difference(values[name], values[other], (counts[name], counts[other])))
        ):
            differences[name] = found
    differences = corrected(differences)
    rows = [_row(name, runs, split, by_row, differences.get(name)) for name, runs in by_row.items()]
    if any("budget" in one for one in entries):  # what had the same labels stands together
        rows.sort(key=lambda row: row.labels or 0)
    groups = dict.fromkeys(row.group for row in rows)
    ordered = tuple(row for group in groups for row in rows if row.group == group)
    budgets = _budgets(by_row, values)
    return Findings(
        name=entries[0]["pair"] or entries[0]["data"],
        split=split,
        rows=ordered,
        budgets=budgets,
        worths=_worths(by_row, budgets, differences),
        protocol="; ".join(sorted({one["scores"][split]["protocol"] for one in entries})),
    )


def _row(
    name: str, runs: Sequence[Entry], split: str, by_row: Mapping[str, Sequence[Entry]], found: Difference | None
) -> RowFinding:
    classes = runs[0]["scores"][split]["classes"]
    reference = by_row.get(runs[0]["reference"], [])
    return RowFinding(
        name=name,
        group=_group(runs[0]),
        labels=_labels(runs[0]),
        entries=tuple(runs),
        miou=mean_std([one["scores"][split]["miou"] for one in runs]),
        accuracy=mean_std([one["scores"][split]["pixel_accuracy"] for one in runs]),
        published=runs[0].get("published"),
        reference=runs[0]["reference"],
        difference=found,
        classes={label: _mean([one["scores"][split]["classes"][label]["iou"] for one in runs]) for label in classes},
        effects={label: effect for label in classes if (effect := _effect(label, runs, reference, split))}
        if found
        else {},
    )


def _effect(label: str, runs: Sequence[Entry], reference: Sequence[Entry], split: str) -> tuple[float, int, int] | None:
    """Mean difference of a class's IoU, and how many of how many seeds have its sign."""
    others = {one["seed"]: one["scores"][split]["classes"][label]["iou"] for one in reference}
    ours = {one["seed"]: one["scores"][split]["classes"][label]["iou"] for one in runs}
    found = [ours[seed] - others[seed] for seed in ours if ours[seed] is not None and others.get(seed) is not None]
    if not found:
        return None
    mean = sum(found) / len(found)
    return mean, sum(value * mean > 0 for value in found), len(found)


def _budgets(
    by_row: Mapping[str, Sequence[Entry]], values: Mapping[str, Mapping[int, float]]
) -> dict[str, list[tuple[int, Mapping[int, float]]]]:
    found: dict[str, list[tuple[int, Mapping[int, float]]]] = {}
    for name, runs in by_row.items():
        labels = _labels(runs[0])
        if runs[0].get("budget") and labels:
            found.setdefault(runs[0]["budget"]["row"], []).append((labels, values[name]))
    return {row: sorted(points, key=lambda point: point[0]) for row, points in found.items() if len(points) > 1}


def _worths(
    by_row: Mapping[str, Sequence[Entry]],
    budgets: Mapping[str, Sequence[tuple[int, Mapping[int, float]]]],
    differences: Mapping[str, Difference],
) -> tuple[Worth, ...]:
    """Each point of a curve on the curve of its reference."""
    found = []
    for name, runs in by_row.items():
        row, labels = _budget_row(runs[0]), _labels(runs[0])
        other = _budget_row(by_row.get(runs[0]["reference"], [{}])[0])
        if row not in budgets or other not in budgets or other == row or not labels:
            continue
        mine, curve = dict(budgets[row])[labels], budgets[other]
        x = [labels for labels, _ in curve]
        equal = equal_labels(
            x, [mean_std(list(point.values()))[0] for _, point in curve], mean_std(list(mine.values()))[0]
        )
        seeds = [seed for seed in mine if all(seed in point for _, point in curve)]
        by_seed = tuple(equal_labels(x, [point[seed] for _, point in curve], mine[seed]) for seed in seeds)
        verdict = differences[name].verdict if name in differences else "unclear"
        found.append(Worth(row, labels, other, equal, by_seed, min(x), max(x), verdict))
    return tuple(found)


def _budget_row(one: Entry) -> str:
    return str((one.get("budget") or {}).get("row", ""))


def _values(runs: Sequence[Entry], split: str) -> dict[int, float]:
    return {one["seed"]: one["scores"][split]["miou"] for one in runs}


def _counts(runs: Sequence[Entry], out: Path) -> dict[int, Floats]:
    return {one["seed"]: found for one in runs if (found := image_counts(one, out)) is not None}


def _labels(one: Entry) -> int | None:
    if "labels" not in one["resources"]:
        return None
    learned = one.get("learned") or {}
    counted = learned.get("labels") or one["manifest"].get("data", {}).get("images", {}).get("target/labelled")
    return counted and int(counted)


def _group(one: Entry) -> str:
    text = " + ".join(RESOURCES[name] for name in one["resources"])
    labels = _labels(one)
    return text.replace("target labels", f"{labels} target labels") if labels else text


def _mean(values: Sequence[float | None]) -> float | None:
    mean = mean_std([math.nan if value is None else value for value in values])[0]
    return None if math.isnan(mean) else mean
