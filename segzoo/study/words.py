"""What a study found, in plain words, and no more than it found."""

import math
from collections.abc import Iterator, Sequence

from segzoo.study.findings import Findings, RowFinding, Worth
from segzoo.study.statistics import LEVEL, Difference, Interval

LISTED = 6
"""Rows that are compared from which on their numbers are left to the table."""
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
    brief = len(compared) > LISTED
    for rows, word in ((better, "better"), (worse, "worse")):
        if rows:
            yield f"The runs show that these are {word}: {_listed(rows, brief, True)}."
    if unclear:
        yield (
            f"For {_listed(unclear, brief, False)} the difference to {_references(unclear)} may be the luck of the seeds: "
            "the runs do not show that there is one, nor that there is none."
        )
    if alone:
        whose = "Each row has" if len(alone) == len(compared) else f"{', '.join(row.name for row in alone)} has"
        yield (
            f"{whose} one seed, which says "
            "nothing about which row is better: nobody has seen how much a row changes from seed to seed. Further seeds would."
        )
    elif compared and one.seeds < FEW:
        yield f"With {one.seeds} seeds only large differences can be shown; five or more show smaller ones."
    for name in dict.fromkeys(worth.row for worth in one.worths):
        yield _worths_sentence([worth for worth in one.worths if worth.row == name])


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


def _worths_sentence(worths: Sequence[Worth]) -> str:
    """All budgets of a row in one sentence."""
    equal = [worth for worth in worths if 0 < worth.equal < math.inf]
    first, parts = worths[0], []
    if equal:
        labels, others = (
            and_list([str(worth.labels) for worth in equal]),
            and_list([f"{worth.equal:.0f}" for worth in equal]),
        )
        parts.append(f"with {labels} labels equals {first.other} with about {others}")
    for found, text in (
        (math.inf, f"is above {first.other} with all its {first.largest}"),
        (0, f"is below {first.other} with its fewest"),
    ):
        if rest := [str(worth.labels) for worth in worths if worth.equal == found]:
            parts.append(f"with {and_list(rest)} {text}")
    return f"{first.row} {'; '.join(parts)}."


def and_list(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


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


def _listed(rows: Sequence[RowFinding], brief: bool, against: bool) -> str:
    """Rows with their differences, the largest first; in brief only with their references."""
    ordered = sorted(rows, key=lambda row: -abs(row.difference.mean if row.difference else 0))
    texts = [f"{row.name} than {row.reference}" if against else row.name for row in ordered]
    if not brief:
        texts = [f"{text} ({_points(row)})" for text, row in zip(texts, ordered, strict=True)]
    return and_list(texts)


def _points(row: RowFinding) -> str:
    assert row.difference is not None
    sure = f", {LEVEL:.0%} interval {interval_text(row.difference.interval)}" if row.difference.interval else ""
    return f"{points(row.difference.mean)} points{sure}"


def _references(rows: Sequence[RowFinding]) -> str:
    return " and ".join(dict.fromkeys(row.reference for row in rows))
