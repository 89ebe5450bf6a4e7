"""What is kept of every run: scores, learning curve, and what they were measured with."""

import json
from pathlib import Path
from typing import Any

from docs.photographs.job import scores_of
from docs.photographs.plan import Pair
from segzoo.evaluation import Protocol, Scores
from segzoo.evaluation.history import read_history
from segzoo.files import write_text
from segzoo.methods.registry import methods
from segzoo.study.plan import Row

KEPT = ("started", "segzoo", "git", "python", "packages", "device", "precision", "max_steps", "training", "data")


def entry(pair: Pair, row: Row, seed: int, run: Path) -> dict[str, Any]:
    """What is kept of one run, in plain types.

    Args:
        pair: the data.
        row: the row of the run.
        seed: of the run.
        run: its folder.
    """
    manifest = json.loads((run / "manifest.json").read_text())
    history = read_history(run / "metrics.csv")
    curve = {name: history[name] for name in ("val/miou", "val/teacher_miou", "train/loss") if name in history}
    paths = {split: run / scores_of(split) for split in ("val", "test")}
    return {
        "pair": pair.name,
        "data": pair.data,
        "row": row.name,
        "method": row.method,
        "resources": list(methods()[row.method].resources),
        "reference": pair.references[row.name],
        "seed": seed,
        "options": [*pair.plan.common, *row.options],
        "scores": {split: _scores(path) for split, path in paths.items() if path.is_file()},
        "curve": {
            name: {"steps": [int(step) for step in steps], "values": [round(float(value), 5) for value in values]}
            for name, (steps, values) in curve.items()
        },
        "manifest": {key: manifest[key] for key in KEPT if key in manifest},
    }


def _scores(path: Path) -> dict[str, Any]:
    scores = Scores.load(path)
    measures = {"iou": scores.iou, "precision": scores.precision, "recall": scores.recall}
    return {
        "protocol": Protocol.load(path).describe(),
        "miou": scores.miou,
        "pixel_accuracy": scores.pixel_accuracy,
        "classes": {
            name: {
                measure: None if values[i] != values[i] else round(float(values[i]), 5)
                for measure, values in measures.items()
            }
            for i, name in enumerate(scores.classes)
        },
    }


def write_results(path: Path, entries: list[dict[str, Any]]) -> None:
    """Writes all of them as one JSON, whole or not at all."""
    write_text(path, json.dumps(entries, indent=1) + "\n")
