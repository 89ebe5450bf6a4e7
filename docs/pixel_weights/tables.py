"""The tables and the figure of `docs/pixel_weights.md`, from the runs of `docs/pixel_weights/study.py`.

python -m docs.pixel_weights.tables
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from docs.figures.paired import draw
from docs.tables import gain_text
from segzoo.study.statistics import Difference, difference, mean_std

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"
CONDITION = ("data", "size", "steps", "labels", "flaws", "harm", "kind")
DEFAULT = ("minicity", "[64, 96]", "300", "16", "1.0", "0.0", "shifted")
"""The condition of the figure."""
PAGE = HERE.with_suffix(".md")
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
        score = f"{mean:.1f}" if math.isnan(spread) else f"{mean:.1f} ± {spread:.1f}"
        gains = ["–" if name == "joint" else gain_text(gain(rows, name, split)) for split in ("val", "test")]
        lines.append(f"| {name} | {' | '.join(cells)} | {score} | {' | '.join(gains)} |")
    return "\n".join(lines)


def slopes_table(path: Path = HERE / "signal.jsonl") -> str:
    """The areas of the slopes by the target images behind them, in the order of the seeds."""
    lines = [
        "| labelled target images behind the slope | AUC at step 50 | 150 | 300 | average of the slopes of all steps |",
        "|---|---:|---:|---:|---:|",
    ]
    runs = [run["slopes"] for run in read(path)]
    for name in dict.fromkeys(one["target"] for one in runs[0]):
        cells = []
        for step, averaged in ((50, False), (150, False), (300, False), (300, True)):
            wanted = {"step": step, "averaged": averaged, "target": name}
            found = [one["auc"] for run in runs for one in run if wanted.items() <= one.items()]
            cells.append(", ".join(f"{auc:.2f}" for auc in found))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fill(text: str, made: dict[str, str]) -> str:
    """A page with its tables as they are now.

    Args:
        text: the page; ``<!-- table TITLE -->`` stands above each table.
        made: the tables by their titles.
    """
    return re.sub(r"(<!-- table (.*) -->\n)(?:\|.*\n)*", lambda found: f"{found[1]}{made[found[2]]}\n", text)


def main() -> None:
    """Writes tables and figure of the page."""
    conditions = by_condition(read())
    made = {title(key): table(rows) for key, rows in conditions.items()} | {"of slopes": slopes_table()}
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
    rows = conditions[DEFAULT]
    names = sorted(set(rows) - {"joint"}, key=lambda name: (-round(last(rows[name].values(), "auc"), 2), name))
    gains = {name: one for name in names if (one := gain(rows, name, "test"))}
    notes = {name: f"AUC {last(rows[name].values(), 'auc'):.2f}" for name in names}
    draw(gains, "points of mIoU over joint", notes).savefig(HERE / "gains.png", dpi=110)


if __name__ == "__main__":
    main()
