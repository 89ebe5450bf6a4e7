"""Wheel and sdist: what they hold, and that a fresh environment with nothing but one of them works."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from segzoo.cli.main import COMMANDS
from segzoo.methods.registry import methods
from tests.package.release import ROOT

pytestmark = pytest.mark.slow

STEPS = "fit --method joint --trainer.max_steps 2 --trainer.accelerator cpu --runs runs --name built"


def run(*command: object, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it could name a checkout
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both distributions; the wheel is built from the sdist, so that it lacks what the sdist lacks."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


def test_the_wheel_holds_types_and_configurations_and_nothing_beside_the_package(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tracked = run("git", "ls-files", "segzoo", "configs", cwd=ROOT).split()
    wanted = {name if name.startswith("segzoo/") else f"segzoo/{name}" for name in tracked}
    assert "segzoo/py.typed" in wanted and "segzoo/configs/base.yaml" in wanted
    assert not wanted - names
    # No other import name is written: a second top-level folder could overwrite that of another distribution.
    assert {PurePosixPath(name).parts[0] for name in names if ".dist-info/" not in name} == {"segzoo"}


def test_the_sdist_can_be_tested_and_read(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {PurePosixPath(*PurePosixPath(name).parts[1:]).as_posix() for name in archive.getnames()}
    pages = {"README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", "SECURITY.md", "docs/versions.md"}
    assert pages | {"tests/conftest.py", "pyproject.toml", "segzoo/py.typed", ".github/workflows/tests.yml"} <= names
    tested = run("git", "ls-files", "tests", "notebooks", ".github", cwd=ROOT).split()
    assert not set(tested) - names


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_a_fresh_environment_trains(kind: str, dist: Path, tmp_path: Path) -> None:
    """The libraries are those of this environment; segzoo is what pip installed."""
    (file,) = dist.glob(kind)
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    # At the end of the path, and without the .pth files in them: an editable install of ours is not found by it.
    libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (Path(site) / "libraries.pth").write_text("\n".join([*libraries, ""]))
    run(python, "-m", "pip", "install", "--no-deps", "--ignore-installed", file, cwd=tmp_path)
    where = run(python, "-c", "import segzoo; print(segzoo.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path)
    command = tmp_path / "venv" / "bin" / "segzoo"
    listed = run(command, "methods", cwd=tmp_path)
    assert all(slug in listed for slug in methods())
    assert all(name in run(command, "--help", cwd=tmp_path) for name in COMMANDS)
    assert "mIoU" in run(command, *STEPS.split(), cwd=tmp_path)
    assert list(tmp_path.glob("runs/**/last.ckpt"))
