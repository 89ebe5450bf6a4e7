"""Workflows, policy and metadata: what they say of the code is true."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import segzoo
from segzoo.cli.main import main
from segzoo.cli.neighbour import neighbour_warning
from tests.package.release import ROOT, addresses, obstacles, versions
from tests.unit.test_rooms import LEAVES, MAY_IMPORT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = {path.stem: path for path in (ROOT / ".github" / "workflows").glob("*.yml")}
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def workflow(name: str) -> dict[str, Any]:
    read = yaml.safe_load(WORKFLOWS[name].read_text())
    assert isinstance(read, dict)
    read["on"] = read.pop(True)  # YAML 1.1 reads `on` as a truth value
    return read


def runs(name: str) -> list[str]:
    """The command lines of a workflow."""
    return [step["run"] for job in workflow(name)["jobs"].values() for step in job["steps"] if "run" in step]


def test_there_are_workflows_for_tests_docs_and_releases() -> None:
    assert set(WORKFLOWS) == {"tests", "docs", "release"}


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_a_workflow_may_read_only_and_ends(name: str) -> None:
    read = workflow(name)
    assert read["on"] and read["permissions"] == {"contents": "read"}
    for job in read["jobs"].values():
        assert job["runs-on"] and job["timeout-minutes"] <= 120
        assert set(job.get("needs", "").split()) <= set(read["jobs"])
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", step["uses"])


def test_the_tests_run_on_the_supported_pythons_and_the_lowest_torch() -> None:
    matrix = workflow("tests")["jobs"]["tests"]["strategy"]["matrix"]
    said = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert matrix["python"] == said
    supported = SpecifierSet(PROJECT["requires-python"])
    assert said[0] in supported and f"3.{int(said[0].partition('.')[2]) - 1}" not in supported
    (lowest,) = matrix["include"]
    pinned = dict(part.split("==") for part in lowest["torch"].split())
    for text in PROJECT["dependencies"]:
        required = Requirement(text)
        if required.name in ("torch", "torchvision"):
            (bound,) = [part.version for part in required.specifier if part.operator == ">="]
            assert pinned.pop(required.name) == f"{bound}.*"
    assert not pinned and lowest["python"] == said[0]


def test_the_workflows_run_what_contributing_says() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    for tool in ("ruff check .", "mypy"):
        assert tool in runs("tests") and tool in contributing
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["ruff-format", "ruff-check", "mypy"]


def test_a_release_is_published_without_a_stored_token() -> None:
    publish = workflow("release")["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"} and publish["needs"] == "build"
    assert "secrets." not in WORKFLOWS["release"].read_text()


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_for_issues_is_whole(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    if path.stem == "config":
        return
    assert form["name"] and form["description"] and form["labels"]
    names = [field["id"] for field in form["body"]]
    assert len(names) == len(set(names))
    assert all(field["type"] in ("input", "textarea") and field["attributes"]["label"] for field in form["body"])


def test_one_version_and_one_address() -> None:
    assert set(versions().values()) == {segzoo.__version__}
    source = PROJECT["urls"]["Source"]
    assert all(url.startswith(source) for url in addresses().values())


def release_of(folder: Path, date: str, address: str) -> Path:
    """A copy of what a release compares."""
    (folder / "segzoo").mkdir(parents=True)
    for name in ("segzoo/__init__.py", "CITATION.cff", "CHANGELOG.md", "pyproject.toml"):
        text = (ROOT / name).read_text().replace("example.org", address)
        (folder / name).write_text(re.sub(r"^(## \S+) \(.*\)$", rf"\1 ({date})", text, flags=re.MULTILINE))
    return folder


def test_what_stops_a_release(tmp_path: Path) -> None:
    tag = f"v{segzoo.__version__}"
    assert obstacles(tag, release_of(tmp_path / "good", "2026-12-01", "segzoo.test")) == []
    assert len(obstacles("v9.9.9", release_of(tmp_path / "tag", "2026-12-01", "segzoo.test"))) == 3
    (undated,) = obstacles(tag, release_of(tmp_path / "date", "unreleased", "segzoo.test"))
    assert "unreleased" in undated
    fake = obstacles(tag, release_of(tmp_path / "address", "2026-12-01", "example.org"))
    assert len(fake) == len(addresses()) and all("placeholder" in line for line in fake)


def test_contributing_maps_every_room_and_leaf() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## The rooms\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \| (.+) \|$", section, re.MULTILINE)
    named = [name for first, _ in rows for name in re.findall(r"`(\w+)`", first)]
    assert sorted(named) == sorted([*MAY_IMPORT, *LEAVES])
    # The table's order is the direction of the imports.
    rooms = [name for name in named if name in MAY_IMPORT]
    for room, others in MAY_IMPORT.items():
        assert all(rooms.index(other) > rooms.index(room) for other in others), room


def installed(folder: Path, name: str) -> None:
    """Metadata of a distribution, as pip leaves them."""
    info = folder / f"{name.replace('-', '_')}-1.0.13.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.13\n")


def test_the_other_segzoo_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(tmp_path / "ours", "segzoo-da")
    installed(tmp_path / "other", "segzoo")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "ours"), *sys.path])
    assert neighbour_warning() is None
    monkeypatch.setattr(sys, "path", [str(tmp_path / "other"), *sys.path])
    assert main(["methods"]) == 0
    said = capsys.readouterr()
    assert (
        said.err.startswith("warning: the distribution `segzoo` 1.0.13")
        and "pip uninstall segzoo segzoo-da" in said.err
    )
    assert said.out.startswith("method")
