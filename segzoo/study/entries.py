"""What is kept of every run of a study: scores, learning curve, and what they were measured with, in plain types."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segzoo.errors import ConfigError
from segzoo.files import write_text
from segzoo.study.plan import Plan, Row
from segzoo.study.results import SPLITS, find_run, read_resources
from segzoo.study.running import Run, is_complete, waves
from segzoo.study.statistics import Floats
from segzoo.study.study_file import Budget, Study

Entry = Mapping[str, Any]
KEPT = (
    "started",
    "command",
    "segzoo",
    "git",
    "python",
    "packages",
    "platform",
    "device",
    "world_size",
    "precision",
    "max_steps",
    "training",
    "data",
)
CURVES = ("val/miou", "val/teacher_miou", "train/loss")
RESULTS = "results.json"


class Compared(Protocol):
    """What an entry takes from a comparison: its name, its data, its plan, and the references of its rows."""

    @property
    def name(self) -> str: ...
    @property
    def data(self) -> str: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def references(self) -> Mapping[str, str]: ...


def make_entry(one: Compared, row: Row, seed: int, run: Path, scores: Mapping[str, Path]) -> dict[str, Any]:
    """What is kept of one run.

    Args:
        one: the comparison that it belongs to.
        row: the row of the run.
        seed: of the run.
        run: its folder.
        scores: files of its scores by split; those that are missing are left out.
    """
    from segzoo.evaluation.history import read_history

    path = run / "manifest.json"
    manifest = json.loads(path.read_text()) if path.is_file() else {}
    history = read_history(run / "metrics.csv")
    there = {split: path for split, path in scores.items() if path.is_file()}
    learned = next((read_resources(path, row.method) for path in there.values()), {})
    return {
        "pair": one.name,
        "data": one.data,
        "row": row.name,
        "method": row.method,
        "resources": list(row.resources),
        "learned": learned,
        "reference": one.references[row.name],
        "seed": seed,
        "options": [*one.plan.common, *row.options],
        "run": str(run),
        "scores": {split: read_scores(path) for split, path in there.items()},
        "curve": {
            name: {"steps": [int(step) for step in steps], "values": [round(float(value), 5) for value in values]}
            for name, (steps, values) in history.items()
            if name in CURVES
        },
        "manifest": {key: manifest[key] for key in KEPT if key in manifest},
    }


def read_scores(path: Path) -> dict[str, Any]:
    """The scores of a file, in plain types; a score that does not exist is None."""
    from segzoo.evaluation import Protocol as Measured
    from segzoo.evaluation import Scores

    scores = Scores.load(path)
    measures = {"iou": scores.iou, "precision": scores.precision, "recall": scores.recall}
    return {
        "protocol": Measured.load(path).describe(),
        "miou": scores.miou,
        "pixel_accuracy": scores.pixel_accuracy,
        "classes": {
            name: {
                measure: None if values[i] != values[i] else round(float(values[i]), 5)
                for measure, values in measures.items()
            }
            for i, name in enumerate(scores.classes)
        },
        "confusion": scores.confusion.tolist(),
    }


def study_entries(out: Path, study: Study) -> list[dict[str, Any]]:
    """Those of the runs that are complete, in the order of data, rows and seeds.

    Args:
        out: folder of the study.
        study: what is compared.
    """
    found, proof = [], SPLITS[study.split]
    shown = SPLITS if study.split == "test" else {study.split: proof}
    for one in study.comparisons:
        for row in one.plan.rows:
            for seed in one.plan.seeds:
                if is_complete(one.folder(out), one.plan, row, seed, proof):
                    run = find_run(one.folder(out), row, seed, proof)
                    entry = make_entry(one, row, seed, run, {split: run / file for split, file in shown.items()})
                    entry["data"] = one.data or entry["manifest"].get("data", {}).get("name", "")
                    entry["run"] = os_path(run, out)
                    if row.name in one.budgets:
                        entry["budget"] = _budget(one.budgets[row.name])
                    if row.name in one.published:
                        entry["published"] = one.published[row.name]
                    found.append(entry)
    return found


def missing_runs(entries: Sequence[Entry], study: Study) -> list[Run]:
    """The runs of a study that no entry is of."""
    there = {(one["pair"], one["row"], one["seed"]) for one in entries}
    runs = (run for wave in waves(study) for run in wave)
    return [run for run in runs if (run.comparison.name, run.row.name, run.seed) not in there]


def os_path(run: Path, out: Path) -> str:
    """A run's folder as results name it: from the folder of the study, where it lies there."""
    return run.relative_to(out).as_posix() if run.is_relative_to(out) else str(run)


def kept(entry: Entry, out: Path, name: str) -> Path | None:
    """What a run, or a test of it in a folder ``test`` of its own, kept under a name; None where it did not, or where the entry
    has no score of a test.

    Args:
        entry: of the run.
        out: folder that it is named from.
        name: of a file or a folder.
    """
    run = out / str(entry["run"]) if "run" in entry and "test" in entry["scores"] else None
    places = [run / name, run / "test" / name] if run else []
    return next((place for place in places if place.exists()), None)


def image_counts(entry: Entry, out: Path) -> Floats | None:
    """Pixels of every test image by class (N, 3, C), as the run kept them; None where it did not."""
    path = kept(entry, out, "images-test.npz")
    if path is None:
        return None
    with np.load(path) as file:
        return np.asarray(file["counts"], dtype=np.float64)


def write_results(path: Path, entries: Sequence[Entry]) -> None:
    """Writes all of them as one JSON, whole or not at all."""
    write_text(path, json.dumps(list(entries), indent=1) + "\n")


def read_results(path: Path) -> list[dict[str, Any]]:
    """What `write_results` wrote.

    Raises:
        ConfigError: it cannot be read, or is something else.
    """
    try:
        found = json.loads(path.read_text())
        assert isinstance(found, list) and all({"row", "seed", "scores", "manifest"} <= set(one) for one in found)
    except (OSError, ValueError, AssertionError, TypeError) as error:
        raise ConfigError(f"{path} is no results.json of a study; expected one that `segzoo compare` wrote") from error
    return [dict(one) for one in found]


def _budget(budget: Budget) -> dict[str, Any]:
    return {"row": budget.row, "labels": budget.labels}
