"""A study that can be committed: rows, seeds, data and label budgets in a YAML. Free of torch."""

import fnmatch
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segzoo.errors import ConfigError
from segzoo.methods.registry import methods
from segzoo.study.plan import CHECKPOINT, Plan, Row, Variant, parse_row, parse_seeds
from segzoo.study.results import SPLITS
from segzoo.suggest import did_you_mean
from segzoo.yaml_files import read_yaml

KEYS = ("question", "seeds", "options", "data", "budgets", "rows", "reference", "split")
ROW_KEYS = ("run", "cost", "reference", "data", "budgets", "published")
NUMBERS = ("cost", "published")
GROUPS = ("with labels", "without labels")
"""What `reference` may be divided by: whether a row learns from target labels."""
PATH_SIGNS = re.compile(r"[/\\,:\s]")


@dataclass(frozen=True)
class Budget:
    """A row with a number of labels.

    Attributes:
        row: its name without them.
        labels: how many target images have labels; None: all.
    """

    row: str
    labels: int | None


@dataclass(frozen=True)
class Comparison:
    """What is compared on one pair of data sets.

    Attributes:
        name: of its folder below that of the study, and in tables; empty: the folder of the study itself.
        data: name of the packaged data, or a YAML; empty: that of the options.
        plan: its rows, seeds and options.
        references: the row that each row is compared with.
        budgets: what the rows are that stand there once for every budget, by name.
        costs: how long a step of a row takes, beside others: the longest runs begin first.
        published: the mIoU, a fraction, that somebody published for a row.
    """

    name: str
    data: str
    plan: Plan
    references: Mapping[str, str]
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)

    def folder(self, out: Path) -> Path:
        """Where its runs are."""
        return out / self.name if self.name else out


@dataclass(frozen=True)
class Study:
    """Comparisons that one report answers a question with.

    Attributes:
        question: what is asked, in words.
        comparisons: by pair of data sets.
        split: the images that rows are compared on, see `segzoo.study.results.SPLITS`.
    """

    question: str
    comparisons: tuple[Comparison, ...]
    split: str = "test"


def single(plan: Plan) -> Study:
    """The study of one plan, all of whose rows are compared with its reference."""
    return Study("", (Comparison("", "", plan, dict.fromkeys(plan.names, plan.reference)),))


def read_study(path: Path, *, seeds: str | None = None, only: Sequence[str] = (), words: Sequence[str] = ()) -> Study:
    """The study of a YAML file.

    Args:
        path: the file; docs/studies.md describes it.
        seeds: e.g. ``0-2``; None: those of the file.
        only: patterns of ``DATA/ROW`` or of either, with ``*`` and ``?``; none: all.
        words: further options of `segzoo fit`, which all runs share and which win.

    Raises:
        ConfigError: something in it that does not exist, or nothing left of it.
    """
    content = read_yaml(path, "study")
    where = str(path)
    _check_keys(content, KEYS, where)
    if not isinstance(content.get("rows"), dict) or not content["rows"]:
        raise ConfigError(
            f"{where}: rows: expected a mapping of row names to methods with their options, see docs/studies.md"
        )
    numbers = parse_seeds(str(content.get("seeds", "0-2")) if seeds is None else seeds)
    found = []
    for data, options in _data(content, where).items():
        name = PATH_SIGNS.sub("-", Path(data).stem) if data else ""
        common = (*(["--data", data] if data else []), *_words(content.get("options"), where), *options, *words)
        one = _comparison(content, name, data, numbers, common, where)
        wanted = [row for row in one.plan.rows if _wanted(name, row.name, one.budgets, only)]
        kept = tuple(
            row for row in one.plan.rows if any(row.name == part.name for other in wanted for part in _needed(other))
        )
        if kept:
            reference = one.plan.reference if one.plan.reference in {row.name for row in kept} else kept[0].name
            plan = Plan(kept, numbers, reference, common)
            found.append(Comparison(name, data, plan, one.references, one.budgets, one.costs, one.published))
    if not found:
        raise ConfigError(f"nothing in {path} is called {' or '.join(only)}; expected a DATA, a ROW or DATA/ROW")
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise ConfigError(f"{where}: data: two of {', '.join(names)} have one name; rename a file")
    split = str(content.get("split", "test"))
    if split not in SPLITS:
        raise ConfigError(f"{where}: split: expected {' or '.join(SPLITS)}, found '{split}'")
    return Study(str(content.get("question") or ""), tuple(found), split)


def _comparison(
    content: Mapping[str, Any], name: str, data: str, seeds: tuple[int, ...], common: tuple[str, ...], where: str
) -> Comparison:
    described = {
        row: entry
        for row, entry in ((str(row), _entry(entry, f"{where}: rows.{row}")) for row, entry in content["rows"].items())
        if any(fnmatch.fnmatch(name, pattern) for pattern in entry.get("data", ["*"]))
    }
    variants = {row: _variant(row, entry, where) for row, entry in described.items() if "run" in entry}
    texts: dict[str, tuple[str, Budget | None]] = {}
    for row, entry in described.items():
        budgets = _budgets(entry.get("budgets", content.get("budgets")), f"{where}: budgets")
        parts = row.split("@")
        slugs = [variants[part].method if part in variants else part for part in parts]
        if budgets and all(slug in methods() and "labels" in methods()[slug].resources for slug in slugs):
            for labels in budgets:
                text = "@".join(_with_labels(part, labels) for part in parts)
                texts[text] = (row, Budget(row, labels))
                for part, slug in zip(parts, slugs, strict=True):
                    own = variants[part].options if part in variants else ()
                    number = "null" if labels is None else str(labels)
                    option = ("--data.target_labels", number)
                    variants[_with_labels(part, labels)] = Variant(slug, (*own, *option))
        else:
            texts[row] = (row, None)
    budgeted = {part for _, budget in texts.values() if budget for part in budget.row.split("@")}
    for text, (_, budget) in texts.items():
        for part in text.split("@") if budget else ():
            variants[part] = Variant(variants[part].method, _starts(variants[part].options, budget, budgeted))
    try:
        rows = tuple(parse_row(text, variants) for text in texts)
    except ConfigError as error:
        raise ConfigError(f"{where}: rows: {error}") from error
    if not rows:
        raise ConfigError(f"{where}: no row is for the data '{name}'")
    budgets_of = {text: budget for text, (_, budget) in texts.items() if budget}
    first = next(iter(described))
    references = {
        row.name: _reference(
            content, described[texts[row.name][0]], row, budgets_of.get(row.name), first, tuple(texts), where
        )
        for row in rows
    }
    numbers = {
        key: _numbers(key, rows, {row.name: described[texts[row.name][0]] for row in rows}, where) for key in NUMBERS
    }
    plan = Plan(rows, seeds, references[rows[0].name], common)
    published = {row: value / 100 for row, value in numbers["published"].items()}
    return Comparison(name, data, plan, references, budgets_of, numbers["cost"], published)


def _numbers(key: str, rows: Sequence[Row], entries: Mapping[str, Mapping[str, Any]], where: str) -> dict[str, float]:
    found = {row.name: entries[row.name][key] for row in rows if key in entries[row.name]}
    for row, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ConfigError(f"{where}: rows.{row}.{key}: expected a number above 0, found '{value}'")
    return {row: float(value) for row, value in found.items()}


def _entry(entry: Any, where: str) -> dict[str, Any]:
    """A row as a mapping: nothing is the method of that name, a text is what it runs."""
    if entry is None or isinstance(entry, str):
        return {"run": entry} if entry else {}
    _check_keys(entry, ROW_KEYS, where)
    if isinstance(entry.get("data"), str):
        entry = {**entry, "data": [entry["data"]]}
    return dict(entry)


def _variant(row: str, entry: Mapping[str, Any], where: str) -> Variant:
    method, *options = _words(entry["run"], f"{where}: rows.{row}") or ("",)
    if "@" in row or PATH_SIGNS.search(row):
        raise ConfigError(f"{where}: rows.{row}: a row of its own name has none of @ / : , and no space in it")
    if method not in methods():
        raise ConfigError(f"{where}: rows.{row}: unknown method '{method}'{did_you_mean(method, methods())}")
    return Variant(method, tuple(options))


def _starts(options: Sequence[str], budget: Budget | None, budgeted: set[str]) -> tuple[str, ...]:
    """Options in which ``{ROW}`` is the row with the same labels, where it has some."""

    def same(match: re.Match[str]) -> str:
        assert budget is not None
        return "{" + (_with_labels(match[1], budget.labels) if match[1] in budgeted else match[1]) + "}"

    return tuple(CHECKPOINT.sub(same, option) for option in options)


def _with_labels(row: str, labels: int | None) -> str:
    return f"{row}-{'all' if labels is None else labels}"


def _reference(
    content: Mapping[str, Any],
    entry: Mapping[str, Any],
    row: Row,
    budget: Budget | None,
    first: str,
    rows: tuple[str, ...],
    where: str,
) -> str:
    """The row that another is compared with: with the same labels, where there is such a one."""
    found = entry.get("reference", content.get("reference"))
    if isinstance(found, dict):
        _check_keys(found, GROUPS, f"{where}: reference")
        found = found.get(GROUPS[0] if "labels" in methods()[row.method].resources else GROUPS[1])
    name = first if found is None else str(found)
    if budget and (same := "@".join(_with_labels(part, budget.labels) for part in name.split("@"))) in rows:
        return same
    if name not in rows:
        raise ConfigError(f"{where}: reference {name} is not a row{did_you_mean(name, rows)}")
    return name


def _budgets(values: Any, where: str) -> list[int | None]:
    if values is None or values is False:
        return []
    if not isinstance(values, list) or not all(
        value == "all" or (type(value) is int and value > 0) for value in values
    ):
        raise ConfigError(f"{where}: expected a list of numbers of labelled images and 'all', found '{values}'")
    if len(set(values)) < len(values):
        raise ConfigError(f"{where}: {values}: each one once")
    return [None if value == "all" else value for value in values]


def _data(content: Mapping[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    """The options of every pair of data sets, by its name or file."""
    found = content.get("data")
    if found is None:
        return {"": ()}
    if isinstance(found, str):
        return {found: ()}
    if isinstance(found, list):
        return {str(name): () for name in found}
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"{where}: data: expected a name, a list of names, or names with options, found '{found}'")
    return {str(name): _words(options, f"{where}: data.{name}") for name, options in found.items()}


def _words(text: Any, where: str) -> tuple[str, ...]:
    if text is None:
        return ()
    if not isinstance(text, str):
        raise ConfigError(f"{where}: expected options in one text, as on the command line, found '{text}'")
    try:
        return tuple(shlex.split(text))
    except ValueError as error:  # a quotation mark without its partner
        raise ConfigError(f"{where}: {str(error).lower()} in '{text}'") from error


def _needed(row: Row) -> list[Row]:
    """A row and those that it waits for."""
    before = [*row.starts, *([row.weight_of] if row.weight_of else [])]
    return [row, *(part for other in before for part in _needed(other))]


def _wanted(data: str, row: str, budgets: Mapping[str, Budget], only: Sequence[str]) -> bool:
    names = [row, *([budgets[row].row] if row in budgets else [])]
    names += [data, *(f"{data}/{name}" for name in names)]
    return not only or any(fnmatch.fnmatch(name, pattern) for pattern in only for name in names)


def _check_keys(content: Any, known: Sequence[str], where: str) -> None:
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: expected a mapping of {', '.join(known)}, found '{content}'")
    for key in content:
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'{did_you_mean(str(key), sorted(known))}")
