"""The site has a page for everything, its links lead somewhere, and it is built without a warning."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.site import generated
from docs.site.stage import CONFIG, DOCS, GENERATED, ROOT, BrokenLinkError, with_files, written_pages
from docs.site.tutorials import NOTEBOOKS, as_markdown, notebooks, page_of
from segzoo.cli.main import COMMANDS
from segzoo.methods.registry import methods

MARKS = (generated.EQUATIONS, generated.OPTIONS, generated.TAKES)
TODAY_ELSEWHERE = {"studies.md", "sweeps.md"}
"""Pages that the navigation names before they are there."""


def nav_pages(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        for what in entry.values():
            yield from nav_pages(what) if isinstance(what, list) else [what]


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", [ROOT / "README.md", *written_pages()], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    for path in re.findall(r"\]\(([^)\s#]+)", page.read_text()):
        found = (page.parent / path).resolve()
        assert re.match(r"[a-z]+:", path) or found.exists(), f"there is no {path}"


@pytest.mark.parametrize("slug", methods())
def test_a_method_has_a_page_with_the_parts_of_its_code(slug: str) -> None:
    text = (DOCS / "methods" / f"{slug}.md").read_text()
    assert all(text.count(mark) == 1 for mark in MARKS)
    assert "## What we measured" in text and "## When it fails" in text
    filled = generated.fill(slug, text)
    assert not any(mark in filled for mark in MARKS)
    for section in ("label_space", "network", "optimizer"):
        assert f"| `{section}` |" not in filled


def test_the_options_of_a_method_are_those_of_its_class() -> None:
    filled = generated.fill("joint", "<!-- equations -->a\n<!-- options -->b\n<!-- takes -->c\n")
    assert "| `weight` | number |" in filled
    assert "L = (1/N_S) sum_i w_i l_i(theta) + L_T(theta)" in filled
    assert "It learns from synthetic images and labelled target images." in filled


def test_the_navigation_has_every_page_once() -> None:
    named = list(nav_pages(yaml.safe_load(CONFIG.read_text())["nav"]))
    assert len(named) == len(set(named))
    there = {str(page.relative_to(DOCS)).replace("README", "index") for page in (*written_pages(), *GENERATED)}
    tables = {name for name in there if name.startswith("photographs/") and name != "photographs/index.md"}
    assert set(named) | tables | TODAY_ELSEWHERE == there | TODAY_ELSEWHERE


def test_every_command_is_on_its_page() -> None:
    page = generated.command_page()
    for name in COMMANDS:
        section = page.partition(f"\n## segzoo {name}\n")[2].partition("\n## ")[0]
        assert f"segzoo {name}" in section.partition("```text")[2]


def test_every_option_has_a_default_and_a_sentence() -> None:
    rows = [line for line in generated.options_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    for row in rows:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert len(cells) == 4 and all(cells), row
        assert "typing" not in row and "<class" not in row


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    page = DOCS / "losses.md"
    assert "](photographs/index.md)" in with_files(page, tmp_path / "losses.md", tmp_path)
    broken = tmp_path / "page.md"
    broken.write_text("[nowhere](no_such_page.md)")
    with pytest.raises(BrokenLinkError, match=r"page\.md links to no_such_page\.md"):
        with_files(broken, tmp_path / "out.md", tmp_path)


def test_a_file_that_is_no_page_comes_with_it(tmp_path: Path) -> None:
    text = with_files(DOCS / "performance.md", tmp_path / "performance.md", tmp_path)
    (name,) = set(re.findall(r"\]\((\S+cpu-deeplabv3plus-resnet18\.json)\)", text))
    assert (tmp_path / name).read_bytes() == (
        ROOT / "tests/benchmarks/results/cpu-deeplabv3plus-resnet18.json"
    ).read_bytes()


def test_links_to_and_from_notebooks_lead_to_their_pages(tmp_path: Path) -> None:
    assert "](tutorials/your_own_data.md)" in with_files(DOCS / "index.md", tmp_path / "index.md", tmp_path)
    notebook = NOTEBOOKS / "what_metapix_learns.ipynb"
    text = "[r](../docs/results.md#top) [c](compare_methods.ipynb) [p](../docs/photographs/README.md) ![](a.png)"
    moved = with_files(notebook, tmp_path / page_of(notebook), tmp_path, text, {"a.png"})
    assert moved == "[r](../results.md#top) [c](compare_methods.md) [p](../photographs/index.md) ![](a.png)"
    with pytest.raises(BrokenLinkError, match=r"what_metapix_learns\.ipynb links to a\.png"):
        with_files(notebook, tmp_path / page_of(notebook), tmp_path, text)


@pytest.mark.parametrize("notebook", notebooks(), ids=lambda path: path.stem)
def test_a_notebook_becomes_a_page_with_its_pictures(notebook: Path) -> None:
    pytest.importorskip("nbconvert", reason="pip install -e '.[docs]'")
    cells = json.loads(notebook.read_text())["cells"]
    text, pictures = as_markdown(notebook)
    shown = [o for cell in cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) == len(shown) and all(text.count(f"]({name})") == 1 for name in pictures)
    assert text.count("```python\n") == sum(cell["cell_type"] == "code" for cell in cells)


@pytest.mark.slow
def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("pip install -e '.[docs]'")
    command = [sys.executable, "-m", "docs.site", "--out", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "dL_T / dw_i" in (tmp_path / "html/methods/metapix/index.html").read_text()
    assert "double_backward" in (tmp_path / "html/api/bilevel/index.html").read_text()
