"""Tables of a study's results, in Markdown. Free of torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

Entry = Mapping[str, Any]
DASH = "–"
MEASURES = {"iou": "IoU", "precision": "precision", "recall": "recall"}


def study_tables(entries: Sequence[Entry], split: str) -> str:
    """All tables of the results on one split.

    Args:
        entries: of `docs.photographs.results.entry`, in the order of the rows.
        split: ``val`` or ``test``.
    """
    scored = [one for one in entries if split in one["scores"]]
    if not scored:
        return f"no run is scored on {split} yet"
    parts = []
    for pair in dict.fromkeys(one["pair"] for one in scored):
        mine = [one for one in scored if one["pair"] == pair]
        parts += [f"## {pair}, {split}", _settings(mine, split), scores_table(mine, split), class_tables(mine, split)]
    return "\n\n".join(parts)


def _settings(entries: Sequence[Entry], split: str) -> str:
    devices = sorted({f"{one['manifest']['device']}, torch {one['manifest']['packages']['torch']}" for one in entries})
    steps = sorted({one["manifest"]["max_steps"] for one in entries})
    protocols = sorted({one["scores"][split]["protocol"] for one in entries})
    return f"{'; '.join(protocols)}. {', '.join(map(str, steps))} steps; {'; '.join(devices)}."


def scores_table(entries: Sequence[Entry], split: str) -> str:
    """mIoU of every row, grouped by what the methods learn from: mean ± sample standard deviation over seeds, in percent.

    The last two columns are differences to the row's reference, seed by seed: their mean, and its 95 % interval (Student's t).
    """
    lines = [
        [
            "learns from",
            "row",
            "seeds",
            "mIoU %",
            "pixel accuracy %",
            "reference",
            "difference, points",
            "95 % interval",
        ],
        ["---", "---", *["---:"] * 3, "---", "---:", "---:"],
    ]
    rows = by_row(entries)
    groups = dict.fromkeys(_group(runs[0]) for runs in rows.values())
    for group in groups:
        shown = group
        for name, runs in rows.items():
            if _group(runs[0]) != group:
                continue
            reference = runs[0]["reference"]
            difference, interval = paired(runs, rows.get(reference, []), split) if name != reference else (DASH, DASH)
            scores = [one["scores"][split] for one in runs]
            means = [spread([one[key] for one in scores]) for key in ("miou", "pixel_accuracy")]
            lines.append([shown, name, str(len(runs)), *means, reference, difference, interval])
            shown = ""
    return table(lines)


def class_tables(entries: Sequence[Entry], split: str) -> str:
    """IoU, precision and recall of every class in percent, means over seeds."""
    rows = by_row(entries)
    classes = list(next(iter(rows.values()))[0]["scores"][split]["classes"])
    parts = []
    for measure, title in MEASURES.items():
        lines = [[f"{title} %", *classes], ["---", *["---:"] * len(classes)]]
        for name, runs in rows.items():
            values = [[one["scores"][split]["classes"][label][measure] for one in runs] for label in classes]
            lines.append([name, *map(mean, values)])
        parts.append(table(lines))
    return "\n\n".join(parts)


def paired(runs: Sequence[Entry], reference: Sequence[Entry], split: str) -> tuple[str, str]:
    """Mean difference of the mIoU over the seeds that both have, and its interval, as text."""
    others = {one["seed"]: one["scores"][split]["miou"] for one in reference}
    differences = [100 * (one["scores"][split]["miou"] - others[one["seed"]]) for one in runs if one["seed"] in others]
    if not differences:
        return DASH, DASH
    middle = f"{np.mean(differences):+.1f}"
    if len(differences) < 2:
        return middle, DASH
    if np.ptp(differences) == 0:  # what Student's t has no interval for
        return middle, f"{middle} to {middle}"
    interval = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    return middle, f"{interval.low:+.1f} to {interval.high:+.1f}"


def by_row(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Entries of one pair by their row, in their order."""
    rows: dict[str, list[Entry]] = {}
    for one in entries:
        rows.setdefault(one["row"], []).append(one)
    return rows


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation of fractions, in percent."""
    middle = f"{100 * np.mean(values):.1f}"
    return middle if len(values) < 2 else f"{middle} ± {100 * np.std(values, ddof=1):.1f}"


def mean(values: Sequence[float | None]) -> str:
    """Mean of the fractions that there are, in percent."""
    known = [value for value in values if value is not None]
    return f"{100 * np.mean(known):.1f}" if known else DASH


def table(lines: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _group(one: Entry) -> str:
    names = {"source": "source", "labels": "target labels", "unlabelled": "unlabelled target"}
    text = " + ".join(names[name] for name in one["resources"])
    budget = one["manifest"]["data"]["images"].get("target/labelled")
    return text.replace("target labels", f"{budget} target labels") if budget else text
