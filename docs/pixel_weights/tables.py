"""The tables and the figure of `docs/pixel_weights.md`, from the runs of `docs/pixel_weights/study.py`.

python -m docs.pixel_weights.tables
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from segzoo.study.statistics import Difference, difference, mean_std

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"
CONDITION = ("size", "steps", "labels", "flaws", "harm", "kind")
Run = dict[str, Any]


def read(path: Path = RESULTS) -> list[Run]:
    """The runs of a file, one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def by_condition(runs: Iterable[Run]) -> dict[tuple[Any, ...], dict[str, dict[int, Run]]]:
    """Runs by what they were trained on, by row, by seed."""
    found: dict[tuple[Any, ...], dict[str, dict[int, Run]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        found[tuple(str(run[name]) for name in CONDITION)][run["row"]][run["seed"]] = run
    return found


def title(condition: tuple[Any, ...]) -> str:
    """``size [96, 160], steps 500, ...``."""
    return ", ".join(f"{name} {value}" for name, value in zip(CONDITION, condition, strict=True))


def gain(rows: dict[str, dict[int, Run]], row: str, split: str) -> Difference | None:
    """What a row has over joint training in points of mIoU, seed by seed."""
    scores = [{seed: run[split]["miou"] for seed, run in rows.get(name, {}).items()} for name in (row, "joint")]
    return difference(scores[0], scores[1])


def last(runs: Iterable[Run], value: str) -> float:
    """The mean over runs of what was seen of the weights in the last steps; NaN where nothing was."""
    found = [run["seen"][max(run["seen"], key=int)] for run in runs if run["seen"]]
    return mean_std([one.get(value, math.nan) for one in found])[0]


def cell(one: Difference | None) -> str:
    """``+0.2 [−0.7, 1.1] (2/5)``: the mean, its 95 % interval and the seeds above."""
    if one is None:
        return "–"
    above = f"({sum(value > 0 for value in one.values)}/{len(one.values)})"
    ends = f" [{one.interval.low:.1f}, {one.interval.high:.1f}]" if one.interval else ""
    return f"{one.mean:+.1f}{ends} {above}".replace("-", "−")


def table(rows: dict[str, dict[int, Run]], names: Sequence[str] | None = None) -> str:
    """A line per row: AUC and mean weights at the end, mIoU, and the gains on both splits."""
    lines = [
        "| row | AUC | wrong | right | mIoU, test | over joint, val | over joint, test |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in names or rows:
        runs = list(rows[name].values())
        seen = [last(runs, value) for value in ("auc", "wrong", "right")]
        cells = ["–" if math.isnan(value) else f"{value:.2f}" for value in seen]
        mean, spread = mean_std([run["test"]["miou"] for run in runs])
        gains = ["–" if name == "joint" else cell(gain(rows, name, split)) for split in ("val", "test")]
        lines.append(f"| {name} | {' | '.join(cells)} | {mean:.1f} ± {spread:.1f} | {' | '.join(gains)} |")
    return "\n".join(lines)


def draw(rows: dict[str, dict[int, Run]], names: Sequence[str]) -> Figure:
    """Left what the weights know by step, right what each row gains: the seeds, their mean and its 95 % interval."""
    figure = Figure(figsize=(9, 0.9 + 0.34 * max(len(names), 7)), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    runs = list(rows["metapix"].values())
    for value, label, colour in (
        ("auc", "weights", "#0072b2"),
        ("slope_auc", "slopes of one batch, which they learn from", "#d55e00"),
    ):
        steps = sorted({int(step) for run in runs for step in run["seen"]})
        means = [mean_std([run["seen"][str(step)][value] for run in runs])[0] for step in steps]
        left.plot(steps, means, color=colour, label=label)
    left.axhline(0.5, color="0.6", linewidth=1)
    left.set(xlabel="step", ylabel="AUC: right above wrong", ylim=(0.45, 1), title="what MetaPix finds")
    left.legend(frameon=False, fontsize=8)
    right.axvline(0, color="0.6", linewidth=1)
    for height, name in enumerate(reversed(names)):
        one = gain(rows, name, "test")
        assert one is not None
        right.plot(one.values, [height] * len(one.values), "o", color="0.75", markersize=4)
        if one.interval:
            half = one.mean - one.interval.low
            right.errorbar(one.mean, height, xerr=half, fmt="o", color="#0072b2", capsize=3)
    right.set_yticks(range(len(names)), list(reversed(names)))
    right.set(xlabel="points of mIoU over joint", title="what a weight brings")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Prints a table per condition and draws the figure of the default one."""
    for condition, rows in by_condition(read()).items():
        print(f"<!-- table {title(condition)} -->\n{table(rows)}\n")


if __name__ == "__main__":
    main()
