"""The table of faults and the tests that put them in name the same rows."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `([a-z0-9-]+)` \| (.+) \| (.+) \|$", re.MULTILINE)
MARK = re.compile(r"\bfault\(\"([a-z0-9-]+)\"\)")


def rows() -> list[str]:
    return [match[1] for match in ROW.finditer((ROOT / "docs" / "reliability.md").read_text())]


def test_a_row_stands_once() -> None:
    assert [name for name, count in Counter(rows()).items() if count > 1] == []


def test_every_row_has_a_test_and_every_mark_a_row() -> None:
    marked = {name for path in (ROOT / "tests").rglob("test_*.py") for name in MARK.findall(path.read_text())}
    assert marked == set(rows())
