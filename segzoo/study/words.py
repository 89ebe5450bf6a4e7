"""What a study found, in plain words, and no more than it found."""

import math
from collections.abc import Iterator, Sequence

from segzoo.study.choice import trial
from segzoo.study.findings import Findings, RowFinding, Worth
from segzoo.study.results import longest
from segzoo.study.statistics import LEVEL, Difference, Interval

LISTED = 6
"""Rows that are compared from which on their numbers are left to the table."""
FEW = 5
"""Seeds below which only large differences can be shown."""
SURENESS = (
    (("better", "worse"), "", ""),
    (("unclear",), "By their means alone, ", ": this, too, may be the luck of the seeds"),
    (("one seed",), "By one seed alone, ", ": this, too, may be luck"),
)
"""How the worth of labels is told: by the verdicts on a row's differences, what stands before it and what after it."""


def answer(findings: Sequence[Findings]) -> list[str]:
    """A paragraph for each pair of data sets."""
    return [" ".join(_sentences(one, len(findings) > 1)) for one in findings]


def _sentences(one: Findings, named: bool) -> Iterator[str]:
    steps = longest(entry["manifest"] for row in one.rows for entry in row.entries)
    if steps and (said := trial(steps)):
        yield said
    compared = [row for row in one.rows if row.difference is not None]
    better, worse, unclear, alone = (
        [row for row in compared if row.difference is not None and row.difference.verdict == verdict]
        for verdict in ("better", "worse", "unclear", "one seed")
    )
    best = max(one.rows, key=lambda row: row.miou[0])
    images = f"the {one.split} images{f' of {one.name}' if named else ''}"
    yield f"On {images}, {best.name} has the highest mean mIoU: {spread(*best.miou)} %."
    brief = len(compared) > LISTED
    for rows, word in ((better, "better"), (worse, "worse")):
        if rows:
            clauses = [
                f"{listed} {'is' if single else 'are'} {word} than {reference}"
                for listed, single, reference in _by_reference(rows, brief)
            ]
            yield f"The runs show that {'; '.join(clauses)}."
    if unclear:
        clauses = [
            f"{listed} differ{'s' * single} from {reference}"
            for listed, single, reference in _by_reference(unclear, brief)
        ]
        luck = "this difference" if len(unclear) == 1 else "these differences"
        yield f"The runs do not show whether {'; '.join(clauses)}: {luck} may be the luck of the seeds."
    if alone:
        whose = "Each row has one seed"
        if any(len(row.entries) > 1 for row in one.rows):
            shared = _by_reference(alone, True)
            whose = "; ".join(f"{listed} share{'s' * single} one seed with {other}" for listed, single, other in shared)
        yield (
            f"{whose}, which does not show which row is better: scores change from seed to seed, and only further seeds "
            "show by how much."
        )
    seeds = min((len(row.difference.values) for row in compared if row.difference), default=FEW)
    if 1 < seeds < FEW:
        yield f"With {seeds} seeds only large differences can be shown; {FEW} or more show smaller ones."
    for name in dict.fromkeys(worth.row for worth in one.worths):
        for verdicts, start, end in SURENESS:
            if found := [worth for worth in one.worths if worth.row == name and worth.verdict in verdicts]:
                yield f"{start}{_worths_clause(found)}{end}."


def worth_sentence(worth: Worth) -> str:
    """E.g. "joint with 16 labels equals target-only with about 40"; where no gain is shown at all, it says so."""
    luck = "" if worth.shown else ", which may be the luck of the seeds"
    if not 0 < worth.equal < math.inf:
        return f"{_beyond([worth])}{luck}."
    text = f"{worth.row} with {worth.labels} labels equals {worth.other} with about {worth.equal:.0f}"
    if len(worth.by_seed) < 2:
        return f"{text} (one seed, which may be luck)."
    low, high = min(worth.by_seed), max(worth.by_seed)
    ends = (
        f"fewer than {worth.smallest}" if low == 0 else f"{low:.0f}",
        f"more than {worth.largest}" if math.isinf(high) else f"{high:.0f}",
    )
    return f"{text} (by seed: {ends[0]} to {ends[1]}){luck}."


def _worths_clause(worths: Sequence[Worth]) -> str:
    """Several budgets of a row in one clause."""
    parts = []
    if equal := [worth for worth in worths if 0 < worth.equal < math.inf]:
        labels, others = ([str(worth.labels) for worth in equal], [f"{worth.equal:.0f}" for worth in equal])
        order = ", in this order" if len(equal) > 1 else ""
        parts.append(
            f"{equal[0].row} with {and_list(labels)} labels equals {equal[0].other} with about {and_list(others)}{order}"
        )
    for found in (math.inf, 0):
        if rest := [worth for worth in worths if worth.equal == found]:
            # Beyond the budget at the end with fewer or more labels says more than with as many.
            unequal = [worth for worth in rest if worth.labels != (worth.largest if found else worth.smallest)]
            parts.append(_beyond(unequal or rest))
    return "; ".join(parts)


def _beyond(worths: Sequence[Worth]) -> str:
    """Budgets of a row that are all above the curve of the other, or all below."""
    first, labels = worths[0], [worth.labels for worth in worths]
    start = f"{first.row} with {and_list(list(map(str, labels)), 'or')} labels is"
    if first.equal == 0:
        still = "still " * (min(labels) > first.smallest)
        return f"{start} {still}below {first.other} with {first.smallest}, the smallest budget"
    already = "already " * (max(labels) < first.largest)
    return f"{start} {already}above {first.other} with {first.largest}, the largest budget"


def and_list(words: Sequence[str], last: str = "and") -> str:
    """``a, b and c``, with another word before the last one if it is given."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def spread(mean: float, std: float) -> str:
    """Mean ± standard deviation of fractions, in percent; a dash where there is none."""
    if math.isnan(mean):
        return "–"
    return f"{100 * mean:.1f}" + ("" if math.isnan(std) else f" ± {100 * std:.1f}")


def points(value: float) -> str:
    """A difference in points of a percentage, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def interval_text(interval: Interval | None) -> str:
    """Both ends in points; a dash where there is none."""
    return "–" if interval is None else f"{points(interval.low)} to {points(interval.high)}"


def p_text(value: float) -> str:
    """A p value with two digits; a dash where there is none."""
    if math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def verdict_text(found: Difference | None) -> str:
    """What a difference says, in a word or two."""
    if found is None:
        return "–"
    return {"better": "better", "worse": "worse", "unclear": "not shown", "one seed": "one seed says nothing"}[
        found.verdict
    ]


def _by_reference(rows: Sequence[RowFinding], brief: bool) -> Iterator[tuple[str, bool, str]]:
    """Rows that are compared with one row, whether it is one alone, and that row; the largest difference first.

    In brief they stand without their differences.
    """
    ordered = sorted(rows, key=lambda row: -abs(row.difference.mean if row.difference else 0))
    for reference in dict.fromkeys(row.reference for row in ordered):
        same = [row for row in ordered if row.reference == reference]
        yield (
            and_list([row.name if brief else f"{row.name} ({_points(row)})" for row in same]),
            len(same) == 1,
            reference,
        )


def _points(row: RowFinding) -> str:
    assert row.difference is not None
    sure = f", {100 * LEVEL:.0f} % interval {interval_text(row.difference.interval)}" if row.difference.interval else ""
    return f"{points(row.difference.mean)} points{sure}"
