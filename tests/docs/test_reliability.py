"""The page of faults and the tests that put them in name the same ones."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
STATEMENT = re.compile(r"^- (?:.+\n)(?:  .+\n)*", re.MULTILINE)
NAMES = re.compile(r"<!-- faults: ([a-z0-9\s-]+?)\s-->")
MARK = re.compile(r"\bfault\(\"([a-z0-9-]+)\"\)")


def named(text: str) -> list[str]:
    return [name for names in NAMES.findall(text) for name in names.split()]


def test_every_statement_names_its_faults() -> None:
    statements = STATEMENT.findall(PAGE)
    assert len(statements) > 50
    assert [statement for statement in statements if not named(statement)] == []


def test_a_fault_is_named_once() -> None:
    assert [name for name, count in Counter(named(PAGE)).items() if count > 1] == []


def test_every_fault_has_a_test_and_every_mark_a_statement() -> None:
    marked = {name for path in (ROOT / "tests").rglob("test_*.py") for name in MARK.findall(path.read_text())}
    assert marked == set(named(PAGE))
