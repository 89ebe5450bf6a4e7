"""Private names of other libraries stand in `segzoo.compat` and nowhere else, each with a check in test_compat.py."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import segzoo
from tests.unit.test_compat import CHECKS

PACKAGE = Path(segzoo.__file__).parent
DOCUMENTED = {"_exit", "_replace", "_asdict", "_fields"}
"""Names of Python that begin with an underscore and are public."""
ELSEWHERE: dict[str, set[str]] = {}
"""Names that are still used outside of `compat`, by file."""


def private(text: str) -> bool:
    return text.startswith("_") and not text.endswith("__") and text not in DOCUMENTED


def defined(tree: ast.AST) -> set[str]:
    """Names that a file defines: functions, classes, variables, and attributes of ``self``."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and of_self(node):
            found.add(node.attr)
    return found


def of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def foreign_names(tree: ast.AST, everywhere: set[str]) -> Iterator[str]:
    """Private names that a file uses and nobody here defines: on ``self`` nobody at all, on anything else this file."""
    here = defined(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr):
            if node.attr not in (everywhere if of_self(node) else here):
                yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "getattr",
            "setattr",
            "hasattr",
            "delattr",
        ):
            constant = node.args[1]
            if isinstance(constant, ast.Constant) and private(constant.value) and constant.value not in here:
                yield constant.value
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("segzoo"):
            yield from filter(private, [*(node.module or "").split("."), *(alias.name for alias in node.names)])
        elif isinstance(node, ast.Import):
            yield from filter(private, [part for alias in node.names for part in alias.name.split(".")])


def test_private_names_of_others_stand_in_compat_alone() -> None:
    trees = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    everywhere = set().union(*map(defined, trees.values()))
    found = {
        file: set(foreign_names(tree, everywhere)) for file, tree in trees.items() if not file.startswith("compat/")
    }
    new = {file: sorted(names - ELSEWHERE.get(file, set())) for file, names in found.items()}
    new = {file: names for file, names in new.items() if names}
    assert not new, f"private names of other libraries, which belong into segzoo/compat with a test: {new}"


@pytest.mark.parametrize(
    "line",
    [
        "trainer._run(x)",
        "getattr(x, '_run')",
        "from torch._ops import x",
        "from torch import _C",
        "import a._b",
        "self._run",
    ],
)
def test_a_new_private_name_is_found(line: str) -> None:
    assert list(foreign_names(ast.parse(line), {"_own"}))


@pytest.mark.parametrize(
    "line", ["self._own", "def _run(): ...\nx._run()", "x.__dict__", "from segzoo.a import _b", "os._exit"]
)
def test_private_names_of_our_own_are_free(line: str) -> None:
    assert not list(foreign_names(ast.parse(line), {"_own"}))


def test_no_class_replaces_a_private_name_of_a_foreign_base() -> None:
    """Meant, it belongs into `compat`; by chance, it breaks the base."""
    clashes = []
    for info in pkgutil.walk_packages(segzoo.__path__, "segzoo."):
        if info.name.startswith("segzoo.compat") or info.name.endswith("__main__"):
            continue
        for cls in vars(importlib.import_module(info.name)).values():
            if inspect.isclass(cls) and cls.__module__ == info.name:
                foreign = [base for base in cls.__mro__[1:] if not base.__module__.startswith("segzoo")]
                own = filter(private, defined(ast.parse(textwrap.dedent(inspect.getsource(cls)))))
                clashes += [f"{info.name}.{cls.__name__}.{n}" for n in own if any(n in vars(base) for base in foreign)]
    assert not clashes


def test_what_needs_no_torch_imports_none() -> None:
    code = "import sys, segzoo.compat.parsers, segzoo.compat.training; print({'torch', 'lightning'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_every_private_name_in_compat_has_a_check() -> None:
    files = (PACKAGE / "compat").glob("*.py")
    names = {name for file in files for name in foreign_names(ast.parse(file.read_text()), set())}
    assert names and not [name for name in names if not any(name in foreign.split(".") for foreign in words())]


def words() -> list[str]:
    return [foreign.replace("'s ", ".").replace(" and ", ".") for foreign in CHECKS]
