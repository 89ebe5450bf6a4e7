"""The notebooks are whole as they are committed, and run from top to bottom."""

import ast
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.notebooks.rerun import METADATA, NAMES, NOTEBOOKS, executed

MACHINE = re.compile(r"(?:^|[\s'\"(=])(?:/(?:home|root|tmp|work|Users|mnt|opt)/|[A-Z]:\\)")
LARGEST = 1_500_000
"""Bytes of a notebook, with its outputs."""


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())
    return found


def cells(name: str, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in read(name)["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def python(cell: dict[str, Any]) -> str:
    """A cell without the lines that are IPython's own, which a backslash continues."""
    return re.sub(r"^%(?:.*\\\n)*.*", "", source(cell), flags=re.MULTILINE)


def outputs(name: str) -> Iterator[dict[str, Any]]:
    for cell in cells(name, "code"):
        yield from cell["outputs"]


def texts(name: str) -> Iterator[str]:
    """All that is read of a notebook: cells, and what they printed or show as text."""
    for cell in read(name)["cells"]:
        yield source(cell)
    for output in outputs(name):
        yield "".join(output.get("text", ""))
        for kind, content in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield "".join(content)


def modules(tree: ast.AST) -> Iterator[str]:
    """The modules that are imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_there_are_four() -> None:
    assert tuple(sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_imports_what_a_user_has(name: str) -> None:
    found = {module for cell in cells(name, "code") for module in modules(ast.parse(python(cell)))}
    assert any(module.startswith("segzoo.methods") for module in found)
    for module in found:
        package = module.partition(".")[0]
        assert package not in ("tests", "docs")
        # A notebook runs in IPython, which the tests of this environment may lack.
        assert package == "IPython" or importlib.util.find_spec(module), module
    # Everything is there before the first training.
    assert ast.parse(python(cells(name, "code")[0])).body


@pytest.mark.parametrize("name", NAMES)
def test_it_was_run_from_top_to_bottom(name: str) -> None:
    code = cells(name, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = [output["output_type"] for output in outputs(name)]
    assert "error" not in kinds
    assert not any("Warning: " in text for text in texts(name))
    pictures = [output for output in outputs(name) if "image/png" in output.get("data", {})]
    assert len(pictures) >= 3
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < LARGEST


@pytest.mark.parametrize("name", NAMES)
def test_it_is_of_no_machine(name: str) -> None:
    for text in texts(name):
        assert not MACHINE.search(text), text
    assert read(name)["metadata"] == METADATA
    for cell in read(name)["cells"]:
        assert cell["metadata"] == {}


@pytest.mark.parametrize("text", ["see /tmp/x", "'/home/me'", 'open("C:\\data")', "a\n/mnt/b"])
def test_a_path_of_a_machine_is_found(text: str) -> None:
    assert MACHINE.search(text)


@pytest.mark.parametrize("name", NAMES)
def test_text_stands_between_the_cells(name: str) -> None:
    kinds = [cell["cell_type"] for cell in read(name)["cells"]]
    assert kinds[0] == kinds[-1] == "markdown"
    first, last = (source(cells(name, "markdown")[i]) for i in (0, -1))
    assert first.startswith("# ") and f"notebooks/{name}.ipynb" in first
    assert "## What this says, and what " in last
    assert kinds.count("markdown") >= 0.5 * kinds.count("code")


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files(name: str) -> None:
    text = "\n".join(source(cell) for cell in cells(name, "markdown"))
    links = [path for path in re.findall(r"\]\(([^)\s#]+)", text) if not re.match(r"[a-z]+:", path)]
    assert links
    for path in links:
        assert (NOTEBOOKS / path).resolve().is_file(), path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a person runs it, in an empty folder; it shows the same kinds of things as it was committed with."""
    for module in ("nbclient", "ipykernel"):
        pytest.importorskip(module, reason="pip install -e '.[test]'")
    monkeypatch.setenv("PYTHONPATH", "")  # to be set, and set back at the end
    monkeypatch.setenv("SEGZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    notebook = executed(name, tmp_path / "work")  # an error in a cell is one here
    shown = [kinds(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert shown == [kinds(cell) for cell in cells(name, "code")]


def kinds(cell: Any) -> list[str]:
    """What a cell shows: printed text, pictures, tables. Warnings are left out, which depend on what is installed."""
    found = [output for output in cell["outputs"] if output.get("name") != "stderr"]
    names = [set(output.get("data", {output["output_type"]: ""})) for output in found]
    # A picture of few colours is a palette, of which there is no JPEG beside the PNG.
    return [",".join(sorted(one - {"image/jpeg"} if "image/png" in one else one)) for one in names]
