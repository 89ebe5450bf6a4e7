"""What a study consists of: pairs of data sets, rows and seeds, read from a YAML. Free of torch."""

import fnmatch
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segzoo.errors import ConfigError
from segzoo.methods.registry import methods
from segzoo.study.plan import CHECKPOINT, Plan, Row, parse_seeds
from segzoo.suggest import did_you_mean
from segzoo.yaml_files import read_yaml

KEYS = {"seeds", "steps", "validations", "pairs", "rows", "references"}
ROW_KEYS = {"run", "cost", "reference", "pairs"}


@dataclass(frozen=True)
class Pair:
    """One pair of data sets, and what is compared on it.

    Attributes:
        name: of its folder and in tables.
        data: name of the packaged data, or a YAML.
        plan: its rows, seeds and options.
        costs: how long a run of a row takes, beside others.
        references: the row that each row is compared with.
    """

    name: str
    data: str
    plan: Plan
    costs: Mapping[str, float]
    references: Mapping[str, str]


def read_study(
    path: Path, *, seeds: str | None, steps: int | None, only: Sequence[str], words: Sequence[str]
) -> list[Pair]:
    """The pairs of a study.

    Args:
        path: its YAML.
        seeds: e.g. ``0-2``; None: those of the YAML.
        steps: of every run; None: those of the YAML.
        only: patterns of ``PAIR/ROW`` or of either; none: all.
        words: further options of `segzoo fit` that all runs share.

    Raises:
        ConfigError: something in it that does not exist, or nothing left of it.
    """
    content = read_yaml(path)
    _check_keys(content, KEYS, str(path))
    steps = int(content["steps"]) if steps is None else steps
    numbers = parse_seeds(seeds or str(content["seeds"]))
    interval = max(1, steps // int(content["validations"]))
    length = ["--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(interval)]
    found = []
    for data, options in content["pairs"].items():
        name = Path(data).stem
        common = ("--data", data, *length, *shlex.split(options or ""), *words)
        rows = _rows(content["rows"], name, path)
        wanted = [row for row in rows.values() if _wanted(name, row.name, only)]
        kept = tuple(row for row in rows.values() if any(row.name in other.names for other in wanted))
        if kept:
            references = {row.name: _reference(content, row) for row in kept}
            costs = {row.name: float(content["rows"][row.name].get("cost", 1)) for row in kept}
            found.append(Pair(name, data, Plan(kept, numbers, kept[0].name, common), costs, references))
    if not found:
        raise ConfigError(f"nothing in {path} is called {' or '.join(only)}; expected a PAIR, a ROW or PAIR/ROW")
    return found


def _rows(content: Mapping[str, Any], pair: str, path: Path) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for name, row in content.items():
        _check_keys(row, ROW_KEYS, f"{path}: rows.{name}")
        method, *options = shlex.split(row["run"])
        if method not in methods():
            raise ConfigError(f"{path}: rows.{name}: unknown method '{method}'{did_you_mean(method, methods())}")
        starts = [start for option in options for start in CHECKPOINT.findall(option)]
        if any(fnmatch.fnmatch(pair, pattern) for pattern in row.get("pairs", ["*"])):
            if unknown := [start for start in starts if start not in rows]:
                raise ConfigError(f"{path}: rows.{name} starts from {unknown[0]}, which is no row above it")
            rows[name] = Row(name, method, tuple(options), starts=tuple(rows[start] for start in starts))
    return rows


def _wanted(pair: str, row: str, only: Sequence[str]) -> bool:
    names = (pair, row, f"{pair}/{row}")
    return not only or any(fnmatch.fnmatch(name, pattern) for pattern in only for name in names)


def _reference(content: Mapping[str, Any], row: Row) -> str:
    labels = "with labels" if "labels" in methods()[row.method].resources else "without labels"
    return str(content["rows"][row.name].get("reference", content["references"][labels]))


def _check_keys(content: Any, known: set[str], where: str) -> None:
    if not isinstance(content, dict):
        raise ConfigError(f"{where} must be a mapping, found '{content}'")
    for key in content:
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'{did_you_mean(str(key), sorted(known))}")
