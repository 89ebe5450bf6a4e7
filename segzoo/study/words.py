"""What a study found, in plain words, and no more than it found."""

import math
from collections.abc import Iterator, Sequence

from segzoo.study.findings import Findings, RowFinding, Worth
from segzoo.study.statistics import LEVEL, Difference, Interval

FEW = 5
"""Seeds below which only large differences can be shown."""


def answer(findings: Sequence[Findings]) -> list[str]:
    """A paragraph for each pair of data sets."""
    return [" ".join(_sentences(one, len(findings) > 1)) for one in findings]


def _sentences(one: Findings, named: bool) -> Iterator[str]:
    start = f"On {one.name}, " if named else ""
    compared = [row for row in one.rows if row.difference is not None]
    better, worse, unclear, alone = (
        [row for row in compared if row.difference is not None and row.difference.verdict == verdict]
        for verdict in ("better", "worse", "unclear", "one seed")
    )
    best = max(one.rows, key=lambda row: row.miou[0])
    yield capital(
        f"{start}the highest mean is that of {best.name}: {spread(*best.miou)} % mIoU on the {one.split} images."
    )
    for rows, word in ((better, "better"), (worse, "worse")):
        if rows:
            ordered = sorted(rows, key=lambda row: -abs(row.difference.mean if row.difference else 0))
            listed = ", ".join(f"{row.name} than {row.reference} ({_points(row)})" for row in ordered)
            yield f"The runs show that these are {word}: {listed}."
    if unclear:
        listed = ", ".join(f"{row.name} ({_points(row)})" for row in unclear)
        yield (
            f"For {listed} the difference to {_references(unclear)} may be the luck of the seeds: the runs do not show "
            "that there is one, nor that there is none."
        )
    if alone:
        whose = "Each row has" if len(alone) == len(compared) else f"{', '.join(row.name for row in alone)} has"
        yield (
            f"{whose} one seed, which says "
            "nothing about which row is better: nobody has seen how much a row changes from seed to seed. Further seeds would."
        )
    elif compared and one.seeds < FEW:
        yield f"With {one.seeds} seeds only large differences can be shown; five or more show smaller ones."
    for worth in one.worths:
        yield worth_sentence(worth)


def worth_sentence(worth: Worth) -> str:
    """E.g. "joint with 16 labels equals target-only with about 40"."""
    start = f"{worth.row} with {worth.labels} labels"
    if math.isinf(worth.equal):
        return f"{start} is above {worth.other} with {worth.largest}, its largest budget."
    if worth.equal == 0:
        return f"{start} is below {worth.other} with its smallest budget."
    text = f"{start} equals {worth.other} with about {worth.equal:.0f}"
    if len(worth.by_seed) < 2:
        return f"{text} (one seed, which may be luck)."
    low, high = min(worth.by_seed), max(worth.by_seed)
    ends = (
        "fewer than its smallest budget" if low == 0 else f"{low:.0f}",
        f"more than {worth.largest}" if math.isinf(high) else f"{high:.0f}",
    )
    return f"{text} (by seed: {ends[0]} to {ends[1]})."


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


def capital(text: str) -> str:
    """The text with a capital letter."""
    return text[:1].upper() + text[1:]


def _points(row: RowFinding) -> str:
    assert row.difference is not None
    sure = f", {LEVEL:.0%} interval {interval_text(row.difference.interval)}" if row.difference.interval else ""
    return f"{points(row.difference.mean)} points{sure}"


def _references(rows: Sequence[RowFinding]) -> str:
    return " and ".join(dict.fromkeys(row.reference for row in rows))
