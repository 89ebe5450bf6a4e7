"""What the runs of a comparison left in its folder, and whether it may stand in the table. Only scores need torch."""

import csv
import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from segzoo.errors import ConfigError
from segzoo.methods.registry import load_method
from segzoo.study.plan import Plan, Row

SPLITS = {"test": "scores-test.json", "val": "val/scores-val.json"}
"""The images that rows are compared on, and what a run that is complete has of them in its folder."""
SCORES = SPLITS["test"]


def find_run(folder: Path, row: Row, seed: int, scores: str = SCORES) -> Path:
    """The folder of a row's run: a complete one, else one that can be continued, else the folder for the runs of the row.

    `segzoo fit` places a run at RUNS/<method>/<data>/NAME-s<seed>; each row and seed has a RUNS of its own. One that was
    interrupted before its first checkpoint cannot be continued: the next is called NAME-s<seed>-2.

    Args:
        folder: of the comparison.
        row: whose run it is.
        seed: of the run.
        scores: the file by which a complete run is known.
    """
    runs = all_runs(folder, row, seed)
    for proof in (scores, "checkpoints/last.ckpt"):
        if found := [run for run in runs if (run / proof).is_file()]:
            return found[0]
    return folder / row.name


def all_runs(folder: Path, row: Row, seed: int) -> list[Path]:
    """All that were begun."""
    return [run for end in ("", "-*") for run in (folder / row.name).glob(f"{row.method}/*/default-s{seed}{end}")]


def checkpoint_of(folder: Path, row: Row, start: Row, seed: int) -> str:
    """The last checkpoint of a row that another one starts from.

    Raises:
        ConfigError: there is none.
    """
    path = find_run(folder, start, seed) / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise ConfigError(
            f"row {row.name} starts from a checkpoint of {start.name}, seed {seed}: add {start.name} to the rows"
        )
    return str(path)


def mean_weight(run: Path) -> float:
    """Mean over training of the mean source weight.

    Raises:
        ConfigError: the run is not there, or logged no weight.
    """
    if not (run / "metrics.csv").is_file():
        raise ConfigError(f"no weights at {run}: a row METHOD@OTHER needs the row OTHER")
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        weights = [float(row["weight/mean"]) for row in csv.DictReader(file) if row.get("weight/mean")]
    if not weights:
        raise ConfigError(
            f"{run / 'metrics.csv'} has no weight/mean: in a row METHOD@OTHER, OTHER must weigh the source and train "
            "long enough to log it (`trainer.log_every_n_steps`)"
        )
    return fmean(weights)


def check_beginnings(folder: Path, plan: Plan) -> None:
    """Refuses a row that takes something from another one which is neither compared nor there."""
    for row in plan.rows:
        for seed in plan.seeds:
            for start in row.starts:
                if start.name not in plan.names:
                    checkpoint_of(folder, row, start, seed)
            if row.weight_of and row.weight_of.name not in plan.names:
                mean_weight(find_run(folder, row.weight_of, seed))


def orders(row: Row, common: Sequence[str]) -> dict[str, Any]:
    """What decides a run beside its seed: the words of its command, and the content of the YAML files among them."""
    words = [*common, *row.options]
    paths = {word: Path(word.rpartition("=")[2]) for word in words if word.endswith((".yaml", ".yml"))}
    digests = {word: hashlib.sha256(path.read_bytes()).hexdigest() for word, path in paths.items() if path.is_file()}
    weight_of = [f"@{row.weight_of.name}"] if row.weight_of else []
    return {"command": ["--method", row.method, *words, *weight_of], "files": digests}


class OtherOptions(ConfigError):
    """A run that is there was trained with options that are not those of today."""

    def __str__(self) -> str:
        return f"{self.args[0]}; choose another folder, or remove that run"


def check_orders(run: Path, record: Path, now: dict[str, Any]) -> None:
    """Refuses a run that others would be compared with as if its options were theirs.

    Args:
        run: its folder.
        record: file of its orders.
        now: what they would be today.

    Raises:
        OtherOptions: they differ, or nobody noted those of the run.
    """
    try:
        then = json.loads(record.read_text())
    except (OSError, ValueError):  # cut off by a full disk
        then = None
    if then == now:
        return
    if then is None:
        reason = f"with options that nobody noted ({record} is missing or damaged)"
    elif then["command"] != now["command"]:
        reason = f"with `{shlex.join(then['command'])}` and not with `{shlex.join(now['command'])}`"
    else:
        changed = [name for name in now["files"] if then["files"].get(name) != now["files"][name]]
        reason = f"before {', '.join(changed)} changed"
    raise OtherOptions(f"{run} was trained {reason}")


def check_complete(run: Path, scores: str = SCORES) -> None:
    """Refuses a training that did not come to its end, and scores of a part of the split: they are no row of a table."""
    from segzoo.evaluation import Protocol  # imports torch

    protocol, manifest = Protocol.load(run / scores), run / "manifest.json"
    if not protocol.complete:
        raise ConfigError(
            f"{run / scores} is of {protocol.images} of {protocol.split_images} {protocol.split} images; remove that run's "
            f"folder and compare without `trainer.limit_{protocol.split}_batches` and `trainer.fast_dev_run`"
        )
    content = json.loads(manifest.read_text()) if manifest.is_file() else {}
    if content.get("status") == "stopped":
        raise ConfigError(
            f"{run} stopped at step {content['training']['steps']} of {content['max_steps']}: rows are compared after the "
            "same steps; remove that run's folder and compare without `trainer.max_time`"
        )


def planned_steps(runs: Iterable[Path]) -> int | None:
    """The steps of the longest of some runs by their manifests; None where none says it, or where one has no limit."""
    manifests = [run / "manifest.json" for run in runs]
    return longest(json.loads(path.read_text()) for path in manifests if path.is_file())


def longest(manifests: Iterable[Mapping[str, Any]]) -> int | None:
    """The steps of the longest of some trainings; None where none says it, or where one has no limit.

    Args:
        manifests: theirs, or the part of these that results keep.
    """
    steps = [int(one["max_steps"]) for one in manifests if "max_steps" in one]
    return max(steps) if steps and min(steps) > 0 else None


def read_resources(path: Path, method: str) -> dict[str, int | None]:
    """What a run learned from, with the number of images where its scores say it.

    Args:
        path: its ``scores-test.json``.
        method: the slug of its method, which is asked where the scores say nothing.
    """
    found: dict[str, int | None] | None = json.loads(path.read_text()).get("resources")
    return dict.fromkeys(load_method(method).resources) if found is None else found


def read_sources(path: Path) -> dict[str, dict[str, float]]:
    """Images and weight of each of several sources that a run learned from, by name; {} where it had one or none.

    Args:
        path: its ``scores-test.json``.
    """
    found: dict[str, dict[str, float]] = json.loads(path.read_text()).get("sources") or {}
    return found


def check_comparable(paths: Sequence[Path]) -> None:
    """Refuses a table of scores that were measured differently.

    The size that images were resized to may differ, and when the network was saved; whether they were resized may not.
    """
    from segzoo.evaluation import Protocol

    protocols = {path: replace(Protocol.load(path), checkpoint="last") for path in paths}
    first = paths[0]
    for path, protocol in protocols.items():
        size = protocol.input_size
        same = size if size is None or protocols[first].input_size is None else protocols[first].input_size
        if replace(protocol, input_size=same) != protocols[first]:
            raise ConfigError(
                f"scores of different protocols are not compared: {first} is '{protocols[first].describe()}', {path} is "
                f"'{protocol.describe()}'"
            )
