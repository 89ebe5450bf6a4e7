"""What has to hold before a tag is released: ``python -m tests.package.release v0.1.0``."""

import re
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PLACEHOLDER = "example.org"


def versions(root: Path = ROOT) -> dict[str, str]:
    """The version, by the file that names it."""
    code = (root / "segzoo" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"$', code, re.MULTILINE)
    newest = re.search(r"^## (\S+) \((.+)\)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    return {
        "segzoo/__init__.py": found[1] if found else "none",
        "CHANGELOG.md": newest[1] if newest else "none",
        "CITATION.cff": str(citation["version"]),
    }


def addresses(root: Path = ROOT) -> dict[str, str]:
    """The public addresses of the project, by where they stand."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    urls = {f"pyproject.toml: {name}": str(url) for name, url in project["urls"].items()}
    return {**urls, "CITATION.cff: repository-code": str(citation["repository-code"])}


def obstacles(tag: str, root: Path = ROOT) -> list[str]:
    """What speaks against a release of ``tag``, a sentence each; empty where nothing does."""
    found = [
        f"{file} has version {version}, but the tag is {tag}; make them one"
        for file, version in versions(root).items()
        if f"v{version}" != tag
    ]
    if re.search(r"^## \S+ \(unreleased\)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE):
        found.append("CHANGELOG.md has a version that is unreleased; write the date of its release")
    return found + [
        f"{place} is the placeholder {url}; write the repository's public address"
        for place, url in addresses(root).items()
        if PLACEHOLDER in url
    ]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.package.release TAG")
    if wrong := obstacles(sys.argv[1]):
        sys.exit("\n".join(wrong))
    print(f"{sys.argv[1]} can be released")
