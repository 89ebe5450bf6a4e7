"""Methods in Python files of one's own, which the variable ``SEGZOO_METHODS`` or a command names.

Free of torch: what a file holds is read from its source, and the file runs only when its method is used.
"""

import ast
import importlib.util
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from segzoo.errors import ConfigError

VARIABLE = "SEGZOO_METHODS"
"""Environment variable: the files, divided as in ``PATH``. Processes that a command starts inherit it."""


def method_files() -> list[Path]:
    """The files that `VARIABLE` names, as absolute paths."""
    given = os.environ.get(VARIABLE, "").split(os.pathsep)
    return list(dict.fromkeys(Path(one).expanduser().absolute() for one in given if one))


def add_method_file(path: str) -> str:
    """Makes a file known to this process and those that it starts.

    Returns:
        The slug of its method.

    Raises:
        ConfigError: see `class_in`.
    """
    own = Path(path).expanduser().absolute()
    name = class_in(own)["slug"]
    os.environ[VARIABLE] = os.pathsep.join(str(one) for one in dict.fromkeys([*method_files(), own]))
    return str(name)


def class_in(path: Path) -> dict[str, Any]:
    """The class of a file that has a ``slug``: ``name``, ``slug``, ``summary`` (a line) and ``resources``.

    Raises:
        ConfigError: no such file, no Python, or not one such class.
    """
    if not path.is_file():
        raise ConfigError(f"no such file: {path}; expected the Python file of a method")
    return _read(path, path.stat().st_mtime_ns)


@cache
def _read(path: Path, _: int) -> dict[str, Any]:
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{path} is no Python that can be read: {error}") from error
    found = [(node, values) for node in body if isinstance(node, ast.ClassDef) and "slug" in (values := _values(node))]
    if len(found) != 1:
        names = ", ".join(node.name for node, _ in found) or "none"
        raise ConfigError(f'{path}: expected one class with a line such as slug = "my-method", found {names}')
    node, values = found[0]
    text = (ast.get_docstring(node) or "").strip().partition("\n")[0].rstrip(".")
    summary = f"{text} ({path.name})" if text else path.name
    return {"name": node.name, "slug": values["slug"], "summary": summary, "resources": values.get("resources", ())}


def _values(node: ast.ClassDef) -> dict[str, Any]:
    """The attributes of a class that are written out."""
    found = {}
    for name, value in _assigned(node):
        try:
            found[name] = ast.literal_eval(value)
        except ValueError:  # computed
            continue
    return found


def _assigned(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for line in node.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            yield line.targets[0].id, line.value
        elif isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None:
            yield line.target.id, line.value


def module_of(slug: str) -> str:
    """The name under which the file of a method is imported."""
    return f"segzoo_method_file_{slug.replace('-', '_')}"


def import_file(path: Path, slug: str) -> ModuleType:
    """Runs a file, once per process; files beside it can be imported by it.

    Raises:
        ConfigError: it ends with an error.
    """
    name = module_of(slug)
    if name in sys.modules and sys.modules[name].__file__ == str(path):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module  # before it runs: dataclasses and the help of options look for it there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"the method file {path} cannot be imported: {type(error).__name__}: {error}") from error
    return module
