"""What a choice is made of: the rows that fit, the steps that fit, and the validation images."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segzoo.errors import ConfigError
from segzoo.study.choice import (
    LEAST,
    MOST,
    PARTS,
    ROWS,
    Choice,
    Cost,
    Photographs,
    as_json,
    in_words,
    judge,
    make_rows,
    steps_within,
    trial,
    validation_interval,
)

PHOTOGRAPHS = Photographs(labelled=16, unlabelled=300, val=100, test=200)


def test_rows_need_no_more_than_there_is_and_the_control_needs_the_least() -> None:
    for (labels, unlabelled), rows in ROWS.items():
        there = {"source"} | ({"labels"} if labels else set()) | ({"unlabelled"} if unlabelled else set())
        needs = [set(row.resources) for row in make_rows(tuple(rows))]
        assert all(need <= there for need in needs) and len(needs[0]) == 1
        # Nothing that is there stays unused by all of them.
        assert set.union(*needs) == there
        found = Photographs(16 * labels, 300 * unlabelled, 3, 3).rows()
        assert found == rows


def test_a_row_brings_the_one_that_it_starts_from() -> None:
    rows = make_rows(["target-only", "fine-tuned", "source-only", "ssda"])
    assert [row.name for row in rows] == ["target-only", "source-only", "fine-tuned", "ssda"]
    assert rows[2].method == "semi-supervised" and rows[2].starts == (rows[1],)
    with pytest.raises(ConfigError, match="unknown method 'fine-tunde'; did you mean 'fine-tuned'"):
        make_rows(["fine-tunde"])


@pytest.mark.parametrize(
    ("photographs", "message"),
    [
        (Photographs(16, 300, 0, 9), "no labelled val images"),
        (Photographs(0, 300, 9, 0), "no labelled test images"),
        (Photographs(0, 0, 9, 9), "no training images"),
    ],
)
def test_what_cannot_be_chosen_from(photographs: Photographs, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        photographs.rows()


@given(
    hours=st.floats(0.01, 200),
    costs=st.lists(st.builds(Cost, st.floats(0.001, 5), st.floats(0, 100)), min_size=1, max_size=5),
    seeds=st.integers(1, 5),
    jobs=st.integers(1, 8),
)
def test_the_steps_are_the_most_that_fit(hours: float, costs: list[Cost], seeds: int, jobs: int) -> None:
    def seconds(steps: int) -> float:
        return sum(cost.seconds(steps, PHOTOGRAPHS) for cost in costs) * seeds / jobs

    try:
        steps = steps_within(3600 * hours, costs, PHOTOGRAPHS, seeds, jobs)
    except ConfigError:
        assert seconds(LEAST) > 3600 * hours * (1 - 1e-9)
        return
    assert steps % PARTS == 0 and LEAST <= steps <= MOST and seconds(steps) <= 3600 * hours * (1 + 1e-9)
    assert steps == MOST or seconds(steps + PARTS) > 3600 * hours * (1 - 1e-9)


def test_a_time_that_is_too_short_says_how_long_it_must_be() -> None:
    with pytest.raises(ConfigError, match=r"2 rows and 3 seeds take 0\.2 hours"):
        steps_within(60, [Cost(0.5, 10), Cost(1.0, 10)], PHOTOGRAPHS, 3, 1)


def test_the_cost_of_a_manifest() -> None:
    manifest = {"training": {"seconds": 40.0, "steps": 16}, "started": "1970-01-02T00:00:00+00:00"}
    assert Cost.of(manifest, 86400.0 + 60.0) == Cost(2.5, 20.0) and Cost.of(manifest, 86400.0) == Cost(2.5, 0.0)


def run(row: str, seed: int, curve: list[float], test: float, steps: list[int] | None = None) -> dict[str, Any]:
    found = {"steps": [19, 39, 59, 79, 99] if steps is None else steps, "values": curve}
    manifest = {"max_steps": 100}
    return {"row": row, "seed": seed, "curve": {"val/miou": found}, "manifest": manifest, "run": f"{row}/{seed}"} | {
        "scores": {"test": {"miou": test}}
    }


FLAT = [0.1, 0.2, 0.3, 0.4]


def test_the_validation_images_choose_and_not_the_test_images() -> None:
    entries = [run("joint", 0, [*FLAT, 0.40], 0.9), run("joint", 1, [*FLAT, 0.41], 0.9)]
    entries += [run("ssda", 0, [*FLAT, 0.44], 0.1), run("ssda", 1, [*FLAT, 0.46], 0.1)]
    best, other = judge(entries)
    assert (best.row, best.run, other.row) == ("ssda", "ssda/1", "joint")
    assert best.mean == pytest.approx(0.45) and best.rise == pytest.approx(0.05) and best.test == pytest.approx(0.1)
    assert best.lead(other) == pytest.approx([0.04, 0.05])
    written = json.loads(as_json([best, other], PHOTOGRAPHS, 100))
    assert (
        written["warning"] is None and written["take"] == "ssda" and written["rows"][1]["val"] == {"0": 0.40, "1": 0.41}
    )


@given(steps=st.integers(1, MOST))
def test_a_choice_after_too_few_steps_begins_with_what_it_is(steps: int) -> None:
    judged = judge([run("joint", 0, [*FLAT, 0.40], 0.9)])
    lines = in_words(judged, PHOTOGRAPHS, "joint", steps)
    warning = json.loads(as_json(judged, PHOTOGRAPHS, steps))["warning"]
    if steps >= LEAST:
        assert lines[0].startswith("Take joint") and warning is None
    else:
        assert lines[0] == warning == trial(steps) and lines[1].startswith("Take joint")
        assert warning.startswith(f"{steps} step") and warning.endswith("this was a trial of the software.")


def test_a_run_without_its_last_validation_is_not_judged() -> None:
    for curve, steps in (([0.1], [19]), ([], [])):
        with pytest.raises(ConfigError, match="was not validated after its last step, 100"):
            judge([run("joint", 0, curve, 0.5, steps)])


@given(steps=st.integers(1, MOST))
def test_a_training_of_any_length_is_validated_at_its_end(steps: int) -> None:
    interval = validation_interval(steps)
    assert steps % interval == 0 and 1 <= steps // interval <= PARTS
    assert not any(steps % parts == 0 for parts in range(steps // interval + 1, PARTS + 1)), "as often as can be"


def test_the_table_of_a_choice_has_the_test_score_of_the_chosen_row_alone() -> None:
    entries = [run("joint", 0, [*FLAT, 0.40], 0.9), run("joint", 1, [*FLAT, 0.41], 0.9)]
    judged = judge([*entries, run("ssda", 0, [*FLAT, 0.44], 0.1), run("ssda", 1, [*FLAT, 0.46], 0.1)])
    assert Choice(tuple(judged), ()).table() == [
        ("ssda", "45.0", "44.0 46.0", "10.0"),
        ("joint", "40.5", "40.0 41.0", "–"),
    ]


def words(photographs: Photographs, *entries: dict[str, Any]) -> str:
    return "\n".join(in_words(judge(entries), photographs, "target-only", 4000))


def test_the_words_say_what_the_numbers_can_bear() -> None:
    base = [run("target-only", 0, [*FLAT, 0.40], 0.4), run("target-only", 1, [*FLAT, 0.40], 0.4)]
    clear = words(PHOTOGRAPHS, *base, run("ssda", 0, [*FLAT, 0.42], 0.43), run("ssda", 1, [*FLAT, 0.44], 0.45))
    assert "Take ssda: 43.0 % mIoU on 100 validation images (seeds 0, 1), 44.0 % on 200 test images" in clear
    assert "+3.0 points over target-only, with every seed (from +2.0 to +4.0)" in clear
    assert "ssda still rose by 3.0 points between its last two validations" in clear
    assert "decide little" not in clear
    level = words(PHOTOGRAPHS, *base, run("ssda", 0, [*FLAT, 0.39], 0.4), run("ssda", 1, [*FLAT, 0.44], 0.4))
    assert "+1.5 points over target-only, and not with every seed: the two are level" in level
    one = words(Photographs(16, 300, 6, 200), base[0], run("ssda", 0, [*FLAT, 0.44], 0.4))
    assert "with one seed, which says nothing" in one and "6 validation images decide little" in one
    done = words(PHOTOGRAPHS, run("target-only", 0, [*FLAT, 0.405], 0.4))
    assert "still rose" not in done and "points over" not in done
    three = words(PHOTOGRAPHS, *base, run("joint", 0, [*FLAT, 0.41], 0.4), run("ssda", 0, [*FLAT, 0.44], 0.4))
    assert three.index("points over joint") < three.index("points over target-only")
