"""Every command line in README, pages and notebooks has commands, methods, data and options that there are."""

import itertools
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from docs.site.generated import DATA_COMMANDS, printed
from docs.site.stage import ROOT, written_pages
from docs.site.tutorials import notebooks
from segzoo.cli.main import COMMANDS
from segzoo.cli.option_index import option_index
from segzoo.configs import config_names, config_path
from segzoo.methods.registry import methods
from segzoo.yaml_files import read_yaml

TRAINING = ("fit", "validate", "test")
FOLDERS = {"source": "segzoo.data.PairedFolders", "target": "segzoo.data.PairedFolders"}


def written(page: Path) -> str:
    """What a person wrote there; of a notebook its cells of text."""
    if page.suffix != ".ipynb":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def lines(page: Path) -> Iterator[str]:
    """The command lines of a page: those of blocks, without what stands behind a `#`."""
    text = re.sub(r" *\\\n\s+", " ", written(page))
    text = re.sub(r"( --variant '[^'\n]*)\n\s+", r"\1 ", text)
    text = re.sub(r" *\\\n\s+", " ", text)
    for line in text.splitlines():
        found = re.match(r"(?:    |\t)\s*(?:.*&& )?(?:\.venv/bin/)?(segzoo .*)$", line)
        if found and " ... " not in found[1] and not found[1].endswith("..."):
            yield re.sub(r"\s+#.*$", "", found[1])


FOUND = [(page, line) for page in (ROOT / "README.md", *written_pages(), *notebooks()) for line in lines(page)]


@cache
def help_of(*command: str) -> str:
    return printed([*command, "--help"])


def flags(words: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)]


def recipe_method(recipe: str) -> str | None:
    """The method of a recipe."""
    name: str | None = read_yaml(config_path("recipe", recipe)).get("method", {}).get("name")
    return name


METHOD_FILE = "--method half.py"


def check_training(words: list[str]) -> None:
    """The options of a training exist for its method."""
    value = dict(itertools.pairwise(words))
    method = value.get("--method")
    if recipe := value.get("--recipe"):
        assert recipe in config_names("recipe")
        method = method or recipe_method(recipe)
    known = methods()
    assert method is None or method in known or method in ("half", "METHOD")
    target = known[method].target if method in known else None
    index = option_index(target, dict(FOLDERS))
    for flag in flags(words):
        name = flag.removeprefix("--")
        assert index.knows(name) or re.search(rf"^ +{flag} ", help_of("fit") + help_of("test"), re.MULTILINE), (
            f"there is no option {flag}"
        )


def check(line: str) -> None:
    own_file = METHOD_FILE in line  # of docs/extending.md, whose tests train with it
    words = shlex.split(line.replace(METHOD_FILE, "--method half" if " fit " in line else ""))[1:]
    name = words[0]
    if name.startswith("--"):
        assert name in ("--help", "--version")
        return
    assert name in COMMANDS, f"there is no command {name}"
    if name in TRAINING:
        check_training([word for word in words[1:] if not (own_file and word == "--method.share")])
        return
    own, _, passed = " ".join(map(shlex.quote, words)).partition(" -- ")
    shown = help_of(name)
    own_words = shlex.split(own)
    if name == "data" and len(own_words) > 1:
        assert own_words[1] in DATA_COMMANDS
        shown = help_of("data", own_words[1])
    for flag in flags(own_words):
        assert flag in shown or flag.startswith("--protocol."), f"`segzoo {name}` has no option {flag}"
    for i, word in enumerate(own_words):
        if word == "--variant":
            _, _, row = own_words[i + 1].partition(":")
            method, *options = row.split()
            check_training(["--method", method, *(option for option in options if option.startswith("--"))])
    if passed:
        check_training(shlex.split(passed))


def test_there_are_command_lines() -> None:
    assert len(FOUND) > 60
    assert {line.split()[1] for _, line in FOUND} >= {"fit", "test", "predict", "compare", "data", "annotate", "bench"}


@pytest.mark.parametrize(("page", "line"), FOUND, ids=[f"{page.stem}: {line[:60]}" for page, line in FOUND])
def test_a_command_line_has_what_there_is(page: Path, line: str) -> None:
    check(line)


@pytest.mark.parametrize(
    "line", ["segzoo fti", "segzoo fit --method metapixx", "segzoo fit --method joint --method.wait 1"]
)
def test_a_wrong_line_is_found(line: str) -> None:
    with pytest.raises(AssertionError):
        check(line)
