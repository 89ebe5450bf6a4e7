"""The tables of scores in the pages, from the JSON files of their runs.

python -m docs.tables

A comment above a table says what it shows: ``<!-- scores minicity/labels.json: mIoU, minus joint -->``. It names

- one file, from the page's folder, or two, ``A.json + B.json``: the second one has rows that the first one lacks (marked *);
- behind the colon the columns: ``uses`` (what a row learns from), ``mIoU``, ``pixel accuracy``, a subset of the classes of the
  label space (``rare``), ``IoU``, ``precision`` or ``recall`` of every class or ``IoU of CLASS``, ``seeds`` (the mIoU of each),
  and ``minus ROW`` (the difference in mIoU to a row, seed by seed).

Scores are of the test, in percent: the mean over the seeds, ± their standard deviation where there are several.

``<!-- weights FILE.json -->`` stands above a table of what ``tests.benchmarks.wrong_pixels`` wrote, and
``<!-- budgets FILE.json -->`` above one of a study with label budgets: a line per method, a column per number of labels, in
brackets the seeds.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from segzoo.data import load_label_space
from segzoo.study.entries import read_results
from segzoo.study.statistics import Difference, difference, mean_std

DOCS = Path(__file__).resolve().parent
MARK = re.compile(r"<!-- scores (?P<files>\S+\.json(?: \+ \S+\.json)?): (?P<columns>.+) -->\n(?:\|.*\n)*")
WEIGHTS_MARK = re.compile(r"<!-- weights (?P<file>\S+\.json) -->\n(?:\|.*\n)*")
BUDGETS_MARK = re.compile(r"<!-- budgets (?P<file>\S+\.json) -->\n(?:\|.*\n)*")
BY_CLASS = re.compile(r"(IoU|precision|recall)(?: of (.+))?")
PLAIN = ("uses", "seeds", "minus", "precision", "recall")
"""Columns of which no cell is the best."""
RESOURCES = ("source", "labels", "unlabelled")
Runs = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Results of runs by row, by seed."""


def read_runs(*paths: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """The tested runs of files by row, by seed; rows of the second file that the first one has are left out."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for path in paths:
        rows: dict[str, dict[int, dict[str, Any]]] = {}
        for run in read_results(path):
            if "test" in run["scores"]:
                seeds = rows.setdefault(run["row"], {})
                if run["seed"] in seeds:
                    raise SystemExit(
                        f"{path}: {run['row']}, seed {run['seed']}, is there twice: keep one pair in a file"
                    )
                seeds[run["seed"]] = dict(run)
        mark = "" if path == paths[0] else " *"
        found |= {row + mark: dict(sorted(seeds.items())) for row, seeds in rows.items() if row not in found}
    return found


def gain(runs: Runs, row: str, reference: str) -> Difference | None:
    """What a row has over another one in points of mIoU, seed by seed; None without a common seed."""
    mious = [
        {seed: 100 * run["scores"]["test"]["miou"] for seed, run in runs[name].items()} for name in (row, reference)
    ]
    return difference(mious[0], mious[1])


def above(one: Difference) -> str:
    """``2/5``: in how many seeds a row is above the other one."""
    return f"{sum(value > 0 for value in one.values)}/{len(one.values)}"


def gain_text(one: Difference | None) -> str:
    """``+0.2 [−0.7, 1.1] (2/5)``: the mean, its 95 % interval and the seeds above."""
    if one is None:
        return "–"
    ends = f" [{one.interval.low:.1f}, {one.interval.high:.1f}]" if one.interval else ""
    return f"{one.mean:+.1f}{ends} ({above(one)})".replace("-", "−")


def spread(values: list[float]) -> str:
    """``56.7 ± 0.5`` of fractions; without ± for one."""
    average, deviation = mean_std([100 * value for value in values])
    return f"{average:.1f}" if math.isnan(deviation) else f"{average:.1f} ± {deviation:.1f}"


def of_classes(run: Mapping[str, Any], measure: str, names: list[str]) -> float:
    """The mean of a measure over classes, without those that do not exist; the precision of what is never predicted is 0."""
    values = [run["scores"]["test"]["classes"][name][measure] for name in names]
    if measure == "precision":
        values = [value or 0.0 for value in values]
    return mean_std([math.nan if value is None else value for value in values])[0]


def cells(runs: Runs, row: str, column: str) -> dict[str, str]:
    """What a row shows by the heads of a column, which may be several, such as ``IoU``."""
    seeds = list(runs[row].values())
    scores = [run["scores"]["test"] for run in seeds]
    if column == "uses":
        return {name: "✓" if name in seeds[0]["resources"] else " " for name in RESOURCES}
    if column in ("mIoU", "pixel accuracy"):
        return {f"{column} %": spread([one["miou" if column == "mIoU" else "pixel_accuracy"] for one in scores])}
    if column == "seeds":
        return {"seed by seed": " ".join(f"{100 * one['miou']:.1f}" for one in scores)}
    if column.startswith("minus "):
        other = column.removeprefix("minus ")
        return {f"minus `{other}`": "–" if row == other else gain_text(gain(runs, row, other))}
    if found := BY_CLASS.fullmatch(column):
        measure = found[1].lower()
        if found[2]:
            return {f"{found[2]} {found[1]} %": spread([of_classes(run, measure, [found[2]]) for run in seeds])}
        values = {name: [of_classes(run, measure, [name]) for run in seeds] for name in scores[0]["classes"]}
        return {name: spread(each).split()[0] for name, each in values.items()}
    named = re.search(r" classes \((\w+)\)", scores[0]["protocol"])
    space = load_label_space(named[1] if named else seeds[0]["data"])
    names = [space.classes[k] for k in space.subsets[column]]
    return {f"{column} %": spread([of_classes(run, "iou", names) for run in seeds])}


def table(runs: Runs, columns: list[str]) -> str:
    """A table with a line per row, the highest mIoU, IoU and pixel accuracy in bold."""
    lines = [dict(pair for column in columns for pair in cells(runs, row, column).items()) for row in runs]
    plain = {head for column in columns if column.startswith(PLAIN) for head in cells(runs, next(iter(runs)), column)}
    for head in lines[0].keys() - plain:
        values = [re.fullmatch(r"(\d+\.\d)( ± .*)?", line[head]) for line in lines]
        best = max((float(value[1]) for value in values if value), default=0.0)
        for line, value in zip(lines, values, strict=True):
            if value and len(lines) > 1 and float(value[1]) == best:
                line[head] = f"**{value[1]}**{value[2] or ''}"
    corner = f"{columns[0]} %" if len(columns) == 1 and columns[0] in ("IoU", "precision", "recall") else ""
    names = [f"`{row}`" if not row.endswith(" *") else f"`{row[:-2]}` *" for row in runs]
    rule = "|---|" + "".join(":-:|" if head in RESOURCES else "---:|" for head in lines[0])
    written = [f"| {' | '.join((name, *line.values()))} |" for name, line in zip(names, lines, strict=True)]
    return "\n".join([f"| {' | '.join((corner, *lines[0]))} |".replace("|  |", "| |"), rule, *written])


def weights_table(path: Path) -> str:
    """What weights know of wrong pixels, and discriminators of the domains: a line per row, means over its seeds."""
    runs = json.loads(path.read_text(encoding="utf-8"))
    heads = (
        "wrong pixels weigh",
        "right ones",
        "AUC of the weight",
        "AUC of the scores",
        "AUC of the domains",
        "score",
    )
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for row in dict.fromkeys(run["row"] for run in runs):
        weights, domains = ([run[kind] for run in runs if run["row"] == row] for kind in ("weights", "domains"))
        levels = [name.removeprefix("auc/") for name in domains[0] if name.startswith("auc/")]

        def means(found: list[dict[str, float]], *names: str) -> str:
            return ", ".join(f"{mean(one[name] for one in found):.2f}" for name in names) or "–"

        shown = [means(weights, name) for name in ("wrong", "right", "AUC")]
        shown.append(means(weights, *(name for name in weights[0] if name.startswith("AUC "))))
        shown += [means(domains, *(f"{kind}/{level}" for level in levels)) for kind in ("auc", "score")]
        lines.append(f"| `{row}` | {' | '.join(shown)} |")
    return "\n".join(lines)


def budgets_table(path: Path) -> str:
    """The mIoU of methods by the number of labels, the highest of each number in bold."""
    found: dict[str, dict[int, list[float]]] = {}
    for row, seeds in read_runs(path).items():
        labels = next(iter(seeds.values()))["learned"]["labels"]
        values = [100 * run["scores"]["test"]["miou"] for run in seeds.values()]
        found.setdefault(row.rpartition("-")[0], {})[labels] = values
    budgets = sorted({labels for values in found.values() for labels in values})
    best = {n: max(mean(values[n]) for values in found.values() if n in values) for n in budgets}

    def cell(values: list[float] | None, most: float) -> str:
        if values is None:
            return "–"
        shown = f"{mean(values):.1f}"
        shown = f"**{shown}**" if mean(values) == most else shown
        return shown if len(values) == 1 else f"{shown} ({' '.join(f'{value:.1f}' for value in values)})"

    lines = [f"| mIoU %, by labelled photographs | {' | '.join(map(str, budgets))} |", f"|---|{'---:|' * len(budgets)}"]
    for method, values in found.items():
        lines.append(f"| `{method}` | {' | '.join(cell(values.get(n), best[n]) for n in budgets)} |")
    return "\n".join(lines)


def fill(text: str, folder: Path) -> str:
    """A page with its tables as their files say.

    Args:
        text: of the page.
        folder: of the page.
    """

    def made(found: re.Match[str]) -> str:
        runs = read_runs(*(folder / name for name in found["files"].split(" + ")))
        mark = found[0].splitlines()[0]
        return f"{mark}\n{table(runs, found['columns'].split(', '))}\n"

    for pattern, written in ((WEIGHTS_MARK, weights_table), (BUDGETS_MARK, budgets_table)):
        text = pattern.sub(
            lambda found, written=written: f"{found[0].splitlines()[0]}\n{written(folder / found['file'])}\n", text
        )
    return MARK.sub(made, text)


def pages() -> Iterator[Path]:
    """The pages that have such tables."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if any(pattern.search(text) for pattern in (MARK, WEIGHTS_MARK, BUDGETS_MARK)):
            yield page


def main() -> None:
    """Writes the tables of all pages."""
    for page in pages():
        page.write_text(fill(page.read_text(encoding="utf-8"), page.parent), encoding="utf-8")
        print(page.relative_to(DOCS))


if __name__ == "__main__":
    main()
