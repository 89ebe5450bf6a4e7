"""The rooms of the package: what may import what, and that no message below the command line names a flag."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import segzoo

ROOT = Path(segzoo.__file__).parent

MAY_IMPORT = {
    "cli": {
        "study",
        "sweep",
        "bench",
        "dataprep",
        "inference",
        "methods",
        "models",
        "data",
        "evaluation",
        "callbacks",
        "loggers",
        "runtime",
    },
    "study": {"methods", "evaluation", "runtime"},
    "sweep": set(),
    "bench": {"methods", "losses", "models", "data", "evaluation", "runtime"},
    "dataprep": {"inference", "data", "evaluation"},
    "inference": {"methods", "models", "data", "evaluation", "runtime"},
    "methods": {"bilevel", "losses", "adaptation", "models", "data", "evaluation", "callbacks"},
    "callbacks": {"loggers", "models", "data", "evaluation"},
    "loggers": set(),
    "adaptation": {"losses", "models", "data"},
    "models": {"bilevel", "losses", "data"},
    "evaluation": {"data"},
    "data": set(),
    "runtime": set(),
    "bilevel": set(),
    "losses": set(),
}
"""The rooms from the front of the house to its back, and the rooms behind each that it may use."""
LEAVES = {
    "checkpoint_path": "which file is meant by the path of a run",
    "checks": "ranges of numbers",
    "compat": "private names of the libraries",
    "configs": "where the packaged files are",
    "distributed": "sums over processes",
    "errors": "errors that a user can fix",
    "files": "files that are whole or not there",
    "floats": "the precision of counts",
    "lazy_names": "names that are imported when they are used",
    "nonblocking": "what else makes the host wait for a GPU",
    "options": "values that Python gave",
    "stopping": "what signals ask for",
    "suggest": "the nearest name",
    "yaml_files": "YAML whose errors name lines",
}
"""Small modules that any room may use; they use only each other."""
ALONE = {"bilevel": {"compat"}, "losses": {"compat"}}
"""Rooms that could be taken out and used elsewhere, and the only leaves that they may use."""
FACES = {"segzoo", "segzoo.__main__"}
"""They show to the outside what is within; from within, `import segzoo` asks for the version alone."""

CIRCLES: dict[frozenset[str], str] = {}
"""Known ones, with what ties them."""
WITH_FLAGS = {
    "segzoo.callbacks.manifest": "options of git",
    "segzoo.study.curves": "variables of a style sheet, which look like flags",
    "segzoo.study.study_file": "the words of runs",
    "segzoo.study.choice": "the words of a run",
    "segzoo.study.results": "the words of a command, as a comparison notes them",
}
"""Modules below the command line with flags in texts, and why."""
FLAG = re.compile(r"(?<![\w-])--[a-z]\w+")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The room, or the leaf."""
    return module.split(".")[1]


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}
WITHIN = [name for name in FILES if name not in FACES]


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules of ours that a module imports, anywhere in it, also for its types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                if name in FILES or node.module in FILES:
                    yield name if name in FILES else str(node.module)


ARROWS = {name: set(imported(TREES[name])) - FACES for name in WITHIN}


def reached(start: str) -> set[str]:
    found: set[str] = set()
    left = [start]
    while left:
        new = ARROWS[left.pop()] - found
        found |= new
        left += new
    return found


def test_every_module_stands_in_a_room_or_is_a_leaf() -> None:
    assert {room_of(name) for name in WITHIN} <= {*MAY_IMPORT, *LEAVES}
    assert not set(MAY_IMPORT) & set(LEAVES)


def test_rooms_stand_one_behind_the_other() -> None:
    order = list(MAY_IMPORT)
    for room, others in MAY_IMPORT.items():
        assert others <= set(MAY_IMPORT)
        assert "methods" not in others or order.index(room) < order.index("methods")
        assert not others & {"cli"}


@pytest.mark.parametrize("room", [*MAY_IMPORT, *LEAVES])
def test_imports_go_to_the_back_of_the_house(room: str) -> None:
    allowed = {room, *MAY_IMPORT.get(room, ()), *ALONE.get(room, LEAVES)}
    for name in WITHIN:
        if room_of(name) == room:
            wrong = sorted(other for other in ARROWS[name] if room_of(other) not in allowed)
            assert not wrong, f"{name} imports {', '.join(wrong)}: {room} may use {', '.join(sorted(allowed))}"


def test_there_are_no_circles() -> None:
    reach = {name: reached(name) for name in WITHIN}
    circles = {
        frozenset({name, *(other for other in reach[name] if name in reach[other])})
        for name in WITHIN
        if name in reach[name]
    }
    new, gone = circles - set(CIRCLES), set(CIRCLES) - circles
    assert not new, f"modules that import each other: {[sorted(circle) for circle in new]}"
    assert not gone, f"no circles any more, take them out of CIRCLES: {[sorted(circle) for circle in gone]}"


def texts(tree: ast.Module) -> Iterator[ast.Constant]:
    """The strings of a module that are no docstrings."""
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node


@pytest.mark.parametrize("room", [*(room for room in MAY_IMPORT if room != "cli"), *LEAVES])
def test_no_message_below_the_command_line_names_a_flag(room: str) -> None:
    for name in WITHIN:
        if room_of(name) == room:
            flags = [
                f"line {text.lineno}: {FLAG.findall(text.value)}"
                for text in texts(TREES[name])
                if FLAG.search(text.value)
            ]
            if name in WITH_FLAGS:
                assert flags, f"{name} names no flags any more, take it out of WITH_FLAGS"
            else:
                assert not flags, f"{name} names a flag instead of `section.name`: {flags}"
