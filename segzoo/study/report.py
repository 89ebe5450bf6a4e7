"""The report of a study: one HTML file that holds all it shows, for a screen of any size, in light and dark, and for paper."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from segzoo.files import write_text
from segzoo.study import words
from segzoo.study.choice import Choice
from segzoo.study.curves import budget_figure, learning_figure, svg
from segzoo.study.entries import Entry
from segzoo.study.findings import Findings, RowFinding, find
from segzoo.study.pictures import find_pictures
from segzoo.study.plan import CHECKPOINT
from segzoo.study.statistics import mean_std

FILE = "report.html"
MANY = 40
"""Classes from which on no confusion matrix is shown as a table."""


def write_report(
    path: Path,
    entries: Sequence[Entry],
    out: Path,
    *,
    question: str = "",
    command: str = "",
    missing: Sequence[str] = (),
    choice: Choice | None = None,
) -> Path:
    """Writes the report.

    Args:
        path: the HTML file.
        entries: of the runs that are complete, at least one.
        out: folder that their runs are named from.
        question: what was asked.
        command: that was given.
        missing: names of the runs that are not complete.
        choice: that was made on the validation images. The report begins with it, and says that the test images took no part.

    Returns:
        The path.
    """
    text = make_report(entries, out, question=question, command=command, missing=missing, choice=choice)
    write_text(path, text)
    return path


def make_report(
    entries: Sequence[Entry],
    out: Path,
    *,
    question: str = "",
    command: str = "",
    missing: Sequence[str] = (),
    choice: Choice | None = None,
) -> str:
    """The text of the HTML file; arguments are those of `write_report`."""
    found = find(entries, out)
    page = Environment(
        loader=PackageLoader("segzoo.study", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {
        "spread": lambda pair: words.spread(*pair),
        "points": words.points,
        "interval": words.interval_text,
        "p": words.p_text,
        "verdict": words.verdict_text,
        "percent": _percent,
    }
    return page.get_template("report.html.j2").render(
        question=question or "Which row is best?",
        answers=words.answer(found) if choice is None else choice.lines,
        choice=choice and choice.table(),
        pairs=[_pair(one, number, out) for number, one in enumerate(found)],
        missing=list(missing),
        runs=len(entries),
        command=command,
        date=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        versions=_versions(entries),
        script=Markup(_beside("report.js")),  # ours
        style=Markup(_beside("report.css")),
    )


def _beside(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _pair(one: Findings, number: int, out: Path) -> dict[str, Any]:
    figures: dict[str, Markup | None] = {"budgets": None, "learning": None}
    for name, figure, described in (
        ("budgets", budget_figure(one), "mIoU over the number of labelled images, a line for each row"),
        (
            "learning",
            learning_figure(one),
            "mIoU on the validation images over the training steps, a line for each row",
        ),
    ):
        if figure is not None:
            figures[name] = Markup(svg(figure, f"{name}{number}", described))  # text in it is escaped by matplotlib
    return {
        "name": one.name,
        "id": f"pair{number}",
        "split": one.split,
        "protocol": one.protocol,
        "rows": one.rows,
        "groups": list(dict.fromkeys(row.group for row in one.rows)),
        "published": any(row.published is not None for row in one.rows),
        "figures": figures,
        "worths": [words.worth_sentence(worth) for worth in one.worths],
        "classes": list(one.rows[0].classes),
        "heat": _heat(one),
        "confusions": [(row.name, _confusion(row, one.split)) for row in one.rows]
        if len(one.rows[0].classes) <= MANY
        else [],
        "pictures": find_pictures(one, out),
        "costs": [_costs(row) for row in one.rows],
        "beside": [text for row in one.rows if (text := _beside_its_own(row))],
        "settings": [_settings(row) for row in one.rows],
    }


def _heat(one: Findings) -> list[dict[str, Any]]:
    """A line per row: IoU by class, and its difference to the reference where all seeds have one sign."""
    found = []
    for row in one.rows:
        cells = []
        for label, value in row.classes.items():
            effect = row.effects.get(label)
            note = ""
            if effect is not None:
                note = f"{words.points(effect[0])} points against {row.reference}, "
                note += f"{effect[1]} of {effect[2]} seeds with this sign"
            sure = effect is not None and effect[2] > 1 and effect[1] == effect[2] and abs(effect[0]) >= 0.02
            mark = "" if not sure or effect is None else "▲" if effect[0] > 0 else "▼"
            cells.append({"value": value, "note": note, "mark": mark, "label": label})
        found.append({"row": row.name, "cells": cells})
    return found


def _confusion(row: RowFinding, split: str) -> list[list[float | None]] | None:
    """Shares of each true class in the runs of all seeds together; None where they were not kept."""
    matrices = [one["scores"][split].get("confusion") for one in row.entries]
    if not all(matrices):
        return None
    size = range(len(matrices[0]))
    total = [[sum(matrix[i][j] for matrix in matrices) for j in size] for i in size]
    return [[value / sum(line) if sum(line) else None for value in line] for line in total]


def _costs(row: RowFinding) -> dict[str, Any]:
    trainings = [one["manifest"].get("training", {}) for one in row.entries]
    memory = [one.get("peak_memory_mib", {}) for one in trainings]

    def mean(values: Sequence[Any]) -> float | None:
        known = mean_std([math.nan if value is None else float(value) for value in values])[0]
        return None if math.isnan(known) else known

    # Not its seconds, which are those of the last start of a run that went on.
    seconds = mean(
        [one["steps"] / one["steps_per_second"] if one.get("steps_per_second") else None for one in trainings]
    )
    return {
        "row": row.name,
        "steps": ", ".join(dict.fromkeys(str(one["manifest"].get("max_steps", "–")) for one in row.entries)),
        "minutes": None if seconds is None else seconds / 60,
        "images": mean([one.get("images_per_second") for one in trainings]),
        "memory": mean([one.get("cuda", one.get("process")) for one in memory]),
        "where": "GPU" if any("cuda" in one for one in memory) else "process",
        "device": ", ".join(dict.fromkeys(str(one["manifest"].get("device", "–")) for one in row.entries)),
        "precision": ", ".join(dict.fromkeys(str(one["manifest"].get("precision", "–")) for one in row.entries)),
    }


def _beside_its_own(row: RowFinding) -> str:
    """That a row's costs are not all that it needs, where it starts from others or takes a weight from one; else empty."""
    starts = [name for option in row.entries[0]["options"] for name in CHECKPOINT.findall(option)]
    needed = list(dict.fromkeys(filter(None, [*starts, row.name.partition("@")[2]])))
    if not needed:
        return ""
    return (
        f"{row.name} also needs the training of {words.and_list(needed)}, whose steps and minutes are not in its line."
    )


def _settings(row: RowFinding) -> dict[str, Any]:
    first = row.entries[0]
    return {
        "row": row.name,
        "seeds": ", ".join(map(str, row.seeds)),
        "images": ", ".join(f"{name} {count}" for name, count in _images(first).items()),
        "command": first["manifest"].get("command") or " ".join([first["method"], *first["options"]]),
    }


def _images(one: Entry) -> Mapping[str, Any]:
    images: Mapping[str, Any] = (one["manifest"].get("data") or {}).get("images", {})
    return images


def _versions(entries: Sequence[Entry]) -> dict[str, str]:
    """What the runs were made with; several where they differ."""
    found: dict[str, dict[str, None]] = {}
    for one in entries:
        manifest = one["manifest"]
        git = manifest.get("git")
        if git:
            found.setdefault("revision", {})[f"{git['revision'][:12]}{' with changes' if git.get('dirty') else ''}"] = (
                None
            )
        for name in ("segzoo", "python", "platform"):
            if name in manifest:
                found.setdefault(name, {})[str(manifest[name])] = None
        for name, version in manifest.get("packages", {}).items():
            found.setdefault(name, {})[str(version)] = None
    return {name: ", ".join(values) for name, values in found.items()}


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"
