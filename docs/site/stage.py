"""The pages of the site in a folder of their own: those of ``docs``, those that are generated, and the files they link to."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from docs.site.api import api_pages
from docs.site.generated import fill, generated_pages

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
CONFIG = Path(__file__).with_name("site.yaml")
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
"""A link or a picture of Markdown: what stands before its path, the path, and the rest with its anchor."""
GENERATED = {DOCS / name for name in ("command_line.md", "options.md", *api_pages())}
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


def with_files(source: Path, target: Path, pages: Path) -> str:
    """The text of a page whose links lead to files of the site.

    A file that is no page (a picture, a JSON, a source file) is copied beside them.

    Args:
        source: the page in the repository.
        target: where it goes.
        pages: the folder of all pages.

    Raises:
        BrokenLinkError: a link leads nowhere.
    """

    def moved(match: re.Match[str]) -> str:
        path = match[2]
        if re.match(r"[a-z]+:", path):
            return match[0]
        found = (source.parent / path).resolve()
        if found in GENERATED:  # the builder looks at these
            return match[0]
        if not found.is_relative_to(ROOT) or not found.is_file():
            raise BrokenLinkError(f"{source.name} links to {path}, where there is no file")
        if found.suffix == ".md" and found.is_relative_to(DOCS):
            return match[0].replace("README.md", "index.md")
        if found == ROOT / "README.md":
            return f"{match[1]}{os.path.relpath(pages / 'index.md', target.parent)}{match[3]}"
        copy = pages / (found.relative_to(DOCS) if found.is_relative_to(DOCS) else "files" / found.relative_to(ROOT))
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(found, copy)
        return f"{match[1]}{os.path.relpath(copy, target.parent)}{match[3]}"

    parts = CODE.split(source.read_text(encoding="utf-8"))
    return "".join(part if part.startswith("```") else LINK.sub(moved, part) for part in parts)


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
