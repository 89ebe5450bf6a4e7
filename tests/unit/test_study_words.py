"""The sentences of a report: who is compared with whom, and what labels are worth."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segzoo.study.findings import Findings, RowFinding, Worth
from segzoo.study.statistics import Difference, Interval
from segzoo.study.words import answer, worth_sentence


def row(name: str, reference: str = "", values: Sequence[float] = (), corrected: float = math.nan) -> RowFinding:
    """One of as many seeds as there are differences to its reference, or of three."""
    difference = None
    if values:
        mean = sum(values) / len(values)
        interval = Interval(mean - 0.01, mean + 0.01) if len(values) > 1 else None
        difference = Difference(tuple(values), mean, 0.0, interval, None, corrected, corrected)
    entries = tuple({"seed": seed, "manifest": {"max_steps": 4000}} for seed in range(len(values) or 3))
    miou = (0.5 + sum(values), 0.01)
    return RowFinding(name, "", None, entries, miou, miou, None, reference or name, difference, {}, {})


def found(*rows: RowFinding, worths: Sequence[Worth] = (), name: str = "toy") -> Findings:
    return Findings(name, "test", rows, {}, tuple(worths), "")


def test_rows_are_compared_by_their_reference_and_the_subject_comes_first() -> None:
    better = row("joint", "target-only", [0.03, 0.03, 0.03], 0.01), row("ssda", "target-only", [0.04] * 3, 0.01)
    other = row("sepico", "source-only", [0.02] * 3, 0.01)
    (text,) = answer([found(row("target-only"), row("source-only"), *better, other)])
    assert text.startswith("On the test images, ssda has the highest mean mIoU: 62.0 ± 1.0 %. ")
    assert (
        "The runs show that ssda (+4.0 points, 95 % interval +3.0 to +5.0) and joint (+3.0 points, 95 % interval +2.0 to +4.0) "
        "are better than target-only; sepico (+2.0 points, 95 % interval +1.0 to +3.0) is better than source-only."
        in text
    )
    assert text.endswith("With 3 seeds only large differences can be shown; 5 or more show smaller ones.")


def test_what_is_not_shown_is_said_of_the_rows() -> None:
    one = found(row("target-only"), row("joint", "target-only", [0.001] * 5, 0.5), name="one")
    two = found(row("a"), *(row(name, "a", [0.001 * n] * 5, 0.5) for n, name in enumerate("bcdefgh")), name="two")
    first, second = answer([one, two])
    assert first.startswith("On the test images of one, joint has the highest mean mIoU: ")
    assert first.endswith(
        "The runs do not show whether joint (+0.1 points, 95 % interval −0.9 to +1.1) differs from target-only: "
        "this difference may be the luck of the seeds."
    )
    assert "whether h, g, f, e, d, c and b differ from a: these differences may be" in second, "many rows, in brief"


def test_one_seed_shows_nothing() -> None:
    single = RowFinding(**{**vars(row("target-only")), "entries": ({"seed": 0, "manifest": {}},)})
    joint, many = row("joint", "target-only", [0.1]), row("ssda", "target-only", [0.1, 0.1], 0.01)
    (text,) = answer([found(single, joint)])
    said = ", which does not show which row is better: scores change from seed to seed, and only further seeds show by how "
    assert text.endswith(f" Each row has one seed{said}much.") and "seeds only large" not in text
    (text,) = answer([found(row("target-only"), joint, many)])
    assert f" joint shares one seed with target-only{said}much." in text


def test_a_study_of_few_steps_says_first_that_it_shows_nothing() -> None:
    rows = [row("target-only"), row("joint", "target-only", [0.03] * 3, 0.01)]

    def of(*steps: int) -> str:
        limits = zip(rows, steps, strict=True)
        entries = (
            {"entries": tuple({**entry, "manifest": {"max_steps": n}} for entry in one.entries)} for one, n in limits
        )
        (text,) = answer([found(*(RowFinding(**{**vars(one), **new}) for one, new in zip(rows, entries, strict=True)))])
        return text

    assert of(20, 20).startswith(
        "20 steps show nothing about the methods: this was a trial of the software. On the test"
    )
    assert of(1, 1).startswith("1 step shows nothing about the methods: ")
    for enough in (
        (100, 100),
        (20, 100),
        (-1, 50),
    ):  # a row may be short on purpose, and one without a limit says nothing
        assert of(*enough).startswith("On the test images")


def worth(
    labels: int, equal: float, by_seed: Sequence[float] = (), row: str = "joint", verdict: str = "better"
) -> Worth:
    return Worth(row, labels, "target-only", equal, tuple(by_seed), 4, 16, verdict)


@pytest.mark.parametrize(
    ("worths", "sentence"),
    [
        (
            [worth(4, 6.2), worth(8, 13.8), worth(16, math.inf)],
            "joint with 4 and 8 labels equals target-only with about 6 and 14, in this order; "
            "joint with 16 labels is above target-only with 16, the largest budget.",
        ),
        (
            [worth(4, math.inf), worth(16, math.inf)],
            "joint with 4 labels is already above target-only with 16, the largest budget.",
        ),
        (
            [worth(4, math.inf), worth(8, math.inf), worth(16, 15.0)],
            "joint with 16 labels equals target-only with about 15; "
            "joint with 4 or 8 labels is already above target-only with 16, the largest budget.",
        ),
        ([worth(4, 0)], "joint with 4 labels is below target-only with 4, the smallest budget."),
        ([worth(8, 0)], "joint with 8 labels is still below target-only with 4, the smallest budget."),
    ],
)
def test_what_labels_are_worth_is_one_sentence(worths: list[Worth], sentence: str) -> None:
    (text,) = answer([found(row("joint-4"), worths=worths)])
    assert text.endswith(f" %. {sentence}")
    if len(worths) == 1:
        assert worth_sentence(worths[0]) == sentence


def test_what_a_budget_is_worth_has_its_range_over_seeds() -> None:
    assert worth_sentence(worth(8, 9.0, [0, math.inf])) == (
        "joint with 8 labels equals target-only with about 9 (by seed: fewer than 4 to more than 16)."
    )
    assert worth_sentence(worth(8, 9.0, [9.0])).endswith("with about 9 (one seed, which may be luck).")


def test_a_worth_of_labels_that_is_not_shown_is_not_told_as_if_it_were() -> None:
    worths = [
        worth(4, 9.0, verdict="unclear"),
        worth(8, 13.0, verdict="better"),
        worth(16, math.inf, verdict="unclear"),
    ]
    (text,) = answer([found(row("joint-4"), worths=worths)])
    assert text.endswith(
        " %. joint with 8 labels equals target-only with about 13. By their means alone, joint with 4 labels equals "
        "target-only with about 9; joint with 16 labels is above target-only with 16, the largest budget: this, too, may be "
        "the luck of the seeds."
    )
    (text,) = answer([found(row("joint-4"), worths=[worth(4, 9.0, verdict="one seed")])])
    assert text.endswith(
        " %. By one seed alone, joint with 4 labels equals target-only with about 9: this, too, may be luck."
    )


@given(
    verdict=st.sampled_from(["better", "worse", "unclear", "one seed"]),
    equal=st.just(0.0) | st.just(math.inf) | st.floats(4, 16),
    by_seed=st.lists(st.floats(4, 16), max_size=3),
    labels=st.sampled_from([4, 8, 16]),
)
def test_every_sentence_of_a_worth_that_is_not_shown_speaks_of_luck(
    verdict: str, equal: float, by_seed: list[float], labels: int
) -> None:
    one = worth(labels, equal, by_seed, verdict=verdict)
    (text,) = answer([found(row("joint-4"), worths=[one])])
    assert ("may be" in text) == (verdict in ("unclear", "one seed"))
    if verdict in ("unclear", "one seed"):
        assert "luck" in worth_sentence(one)
