"""The pages of the site in a folder of their own: those of ``docs``, those that are generated, and the files they link to."""

import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from docs.site.api import api_pages
from docs.site.generated import fill, generated_pages
from docs.site.tutorials import NOTEBOOKS, as_markdown, notebooks, page_of, write_files

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
CONFIG = Path(__file__).with_name("site.yaml")
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
"""A link or a picture of Markdown: what stands before its path, the path, and the rest with its anchor."""
GENERATED = {
    DOCS / name for name in ("command_line.md", "options.md", *api_pages(), *(page_of(path) for path in notebooks()))
}
"""Pages that are made here; those of the repository say so, and where the same stands in a terminal."""
CODE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)


class BrokenLinkError(Exception):
    """A page links to a file that there is not."""


def stage(out: Path) -> Path:
    """Writes pages and configuration.

    Args:
        out: the folder; its ``docs`` is replaced.

    Returns:
        the configuration that the builder reads.

    Raises:
        BrokenLinkError: a page links to a file that there is not.
    """
    out = out.resolve()
    pages = out / "docs"
    shutil.rmtree(pages, ignore_errors=True)
    for source in written_pages():
        target = pages / str(source.relative_to(DOCS)).replace("README.md", "index.md")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(fill(source.stem, with_files(source, target, pages)), encoding="utf-8")
    for name, text in generated_pages().items():
        target = pages / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    for notebook in notebooks():
        target = pages / page_of(notebook)
        text, pictures = as_markdown(notebook)
        write_files(pictures, target.parent)
        target.write_text(with_files(notebook, target, pages, text, set(pictures)), encoding="utf-8")
    shutil.copy(CONFIG.with_name("extra.css"), pages / "extra.css")
    settings = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    settings["nav"] = existing(settings["nav"], pages)
    settings["docs_dir"], settings["site_dir"] = "docs", "html"
    settings["plugins"][-1]["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT)]
    config = out / "mkdocs.yml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return config


def written_pages() -> Iterator[Path]:
    """The pages that somebody wrote."""
    pages = (path for path in sorted(DOCS.rglob("*.md")) if "site" not in path.relative_to(DOCS).parts)
    return (path for path in pages if path not in GENERATED)


def with_files(source: Path, target: Path, pages: Path, text: str | None = None, beside: Collection[str] = ()) -> str:
    """The text of a page whose links lead to files of the site.

    A file that is no page (a picture, a JSON, a source file) is copied beside them.

    Args:
        source: the page in the repository.
        target: where it goes.
        pages: the folder of all pages.
        text: what is written there, where it is not the content of ``source``.
        beside: paths of files that lie beside the page already.

    Raises:
        BrokenLinkError: a link leads nowhere.
    """

    def moved(match: re.Match[str]) -> str:
        path = match[2]
        if re.match(r"[a-z]+:", path) or path in beside:
            return match[0]
        found = (source.parent / path).resolve()
        # The builder looks whether generated pages are there.
        if found not in GENERATED and (not found.is_relative_to(ROOT) or not found.is_file()):
            raise BrokenLinkError(f"{source.name} links to {path}, where there is no file")
        if (page := _page_of(found)) is None:
            page = str(found.relative_to(DOCS) if found.is_relative_to(DOCS) else "files" / found.relative_to(ROOT))
            copy = pages / page
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, copy)
        return f"{match[1]}{os.path.relpath(pages / page, target.parent)}{match[3]}"

    parts = CODE.split(source.read_text(encoding="utf-8") if text is None else text)
    return "".join(part if part.startswith("```") else LINK.sub(moved, part) for part in parts)


def _page_of(found: Path) -> str | None:
    """The page that shows a file, below the folder of all pages; None for one that is no page."""
    if found == ROOT / "README.md":
        return "index.md"
    if found.parent == NOTEBOOKS and found.suffix == ".ipynb":
        return page_of(found)
    if found.suffix == ".md" and found.is_relative_to(DOCS):
        return str(found.relative_to(DOCS)).replace("README.md", "index.md")
    return None


def existing(nav: list[Any], pages: Path) -> list[Any]:
    """The entries of the navigation whose pages there are.

    Args:
        nav: entries, each one page or a list of them by its title.
        pages: the folder of all pages.
    """
    kept: list[Any] = []
    for entry in nav:
        ((title, what),) = entry.items()
        if isinstance(what, list):
            kept.append({title: existing(what, pages)})
        elif (pages / what).is_file():
            kept.append(entry)
    return kept
