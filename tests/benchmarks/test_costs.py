"""Statistics, table and figure of a benchmark."""

import json
import math

import matplotlib.text
import pytest

from segzoo.bench.costs import StepCost, cosine, cost_json, cost_table, speed_up
from segzoo.bench.figures import cost_figure
from segzoo.evaluation.plots import figure_pixels

MIB = 2**20
COSTS = {
    "joint": StepCost((1.0, 2.0, 0.8, 1.0), 100 * MIB, None),
    "ours": StepCost((1.5, 3.2, 1.44, 9.0), 110 * MIB, 0.99999951),
    "slow": StepCost((6.0, 12.0, 4.8, 6.0), 250 * MIB, 0.98),
    "quick": StepCost((3.0, 6.4, 2.8, 3.1), None, math.nan),
}


def test_statistics() -> None:
    cost = COSTS["ours"]
    assert cost.median == pytest.approx(2.35)
    assert cost.quartiles == pytest.approx((1.485, 4.65))
    # Of 1.5, 1.6, 1.8 and 9: the second pair was measured while the machine was slow, the last while it was disturbed.
    assert cost.time_ratio(COSTS["joint"]) == pytest.approx(1.7)
    assert cost.ratio_quartiles(COSTS["joint"]) == pytest.approx((1.575, 3.6))
    assert cost.memory_ratio(COSTS["joint"]) == pytest.approx(1.1)
    assert COSTS["quick"].memory_ratio(COSTS["joint"]) is None


def test_cosine() -> None:
    assert cosine([1, 0], [1, 1]) == pytest.approx(math.sqrt(0.5))
    assert math.isnan(cosine([0, 0], [1, 1]))


def test_table_has_aligned_columns_and_names_what_is_missing() -> None:
    lines = cost_table(COSTS, "joint", {"betty": "not installed: pip install x"}).splitlines()
    assert len({len(line) for line in lines[:6]}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:6]]
    assert cells[0] == ["row", "s/step", "× joint", "its quartiles", "peak MiB", "× joint", "cosine"]
    assert cells[2] == ["joint", "1.000", "1.00", "1.00–1.00", "100", "1.00", "–"]
    assert cells[3] == ["ours", "2.350", "1.70", "1.58–3.60", "110", "1.10", "1.000000"]
    assert cells[5][4:6] == ["–", "–"]
    assert lines[6:] == ["", "betty: not installed: pip install x"]


def test_the_fastest_peer() -> None:
    assert speed_up(COSTS, "ours", ("slow", "quick")) == "ours is 1.97 times as fast as the fastest peer, quick"
    assert speed_up(COSTS, "ours", ("slow",)) == (
        "ours is 3.54 times as fast as the fastest peer, slow, with 0.44 times its memory"
    )
    assert speed_up(COSTS, "ours", ("absent",)) is None
    assert speed_up(COSTS, "absent", ("slow",)) is None


def test_json_has_the_rows_at_the_top() -> None:
    found = json.loads(json.dumps(cost_json({"joint": COSTS["joint"], "slow": COSTS["slow"]}, "joint", {"batch": 2})))
    assert list(found) == ["joint", "slow", "settings"]
    assert found["slow"] == {
        "seconds": 6.0,
        "seconds_quartiles": [5.7, 7.5],
        "ratio": 6.0,
        "ratio_quartiles": [6.0, 6.0],
        "peak_bytes": 250 * MIB,
        "peak_ratio": 2.5,
        "cosine": 0.98,
    }


def test_figure_shows_both_ratios() -> None:
    figure = cost_figure(COSTS, "joint", ("slow", "quick"), "how")
    figure_pixels(figure)
    times, memory = ([patch.get_width() for patch in axes.patches] for axes in figure.axes)
    assert times == pytest.approx([1.0, 1.7, 6.0, 3.15])
    assert memory == pytest.approx([1.0, 1.1, 2.5, 0.0])
    shown = {text.get_text() for text in figure.findobj(matplotlib.text.Text)}
    assert {"joint", "ours", "1.70", "2.50", "–", "how", "other libraries"} <= shown
