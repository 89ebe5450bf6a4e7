"""Bad inputs of all kinds to all commands: each is one line, at once, and nothing stays behind."""

import os
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.cli.bad_input_cases import CASES, FIT
from tests.cli.conftest import Segzoo

SECONDS = 15
NAMES = pytest.mark.fault("names-that-no-table-shows")
SUBSETS = pytest.mark.fault("subset-of-nothing")
SCORES = pytest.mark.fault("nothing-to-score")
CONFIGURATIONS = pytest.mark.fault("file-that-is-no-configuration")
ROWS = {
    "name-of-two-lines": NAMES,
    "name-of-300-letters": NAMES,
    "name-with-a-bell": NAMES,
    "class-of-two-lines": NAMES,
    "class-without-a-name": NAMES,
    "subset-of-nothing": SUBSETS,
    "class-twice-in-a-subset": SUBSETS,
    "test-of-no-batches": SCORES,
    "validate-no-batches": SCORES,
    "pipe-as-configuration": CONFIGURATIONS,
    "socket-as-configuration": CONFIGURATIONS,
    "nodes-that-nobody-starts": pytest.mark.fault("nodes-that-nobody-starts"),
}
"""Rows of the table that a case belongs to, too."""


@pytest.fixture(autouse=True)
def _hangs_fail() -> Iterator[None]:
    def fail(signum: int, frame: FrameType | None) -> None:
        pytest.fail(f"no end after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, fail)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def below(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


@pytest.mark.fault("variables-without-numbers")
@pytest.mark.parametrize("name", ["LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_PORT"])
def test_a_variable_that_is_no_number_is_named(
    segzoo: Segzoo, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "x")
    result = segzoo(*shlex.split(FIT.replace("TOY", str(toy))), "--trainer.devices", "2")
    assert result.status == 2
    assert result.err == f"error: the variable {name} is 'x', and launchers set it to a number: unset it\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.fault("working-directory-removed")
@pytest.mark.parametrize("command", [FIT, "test --ckpt_path LAST"])
def test_a_working_directory_that_was_removed_is_said(
    segzoo: Segzoo, toy: Path, checkpoint: Path, command: str
) -> None:
    Path("gone").mkdir()
    os.chdir("gone")
    Path.cwd().rmdir()
    result = segzoo(*shlex.split(command.replace("TOY", str(toy)).replace("LAST", str(checkpoint))))
    assert result.status == 2
    assert result.err == "error: the working directory was removed; change to one that exists\n"


@pytest.mark.fault("sixty-bad-inputs")
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")  # a decoder of no channels
@pytest.mark.filterwarnings("ignore:Importing 'os.path.join' is not allowed")  # a callback that is a function
@pytest.mark.parametrize("name", [pytest.param(name, marks=ROWS.get(name, ())) for name in CASES])
def test_a_bad_input_is_one_line_at_once(segzoo: Segzoo, toy: Path, trained: Path, tmp_path: Path, name: str) -> None:
    prepare, command, words = CASES[name]
    prepare(toy.parent, trained)
    last = str(trained / "checkpoints" / "last.ckpt")
    argv = [argument.replace("TOY", str(toy)).replace("LAST", last) for argument in shlex.split(command)]
    before = below(tmp_path, toy.parent, trained)

    signal.alarm(SECONDS)
    started = time.monotonic()
    result = segzoo(*argv)
    assert time.monotonic() - started < SECONDS
    signal.alarm(0)

    assert result.status == 2, result
    assert result.err.startswith("error: ") and result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.out + result.err
    assert all(word in result.err for word in words), result.err
    assert below(tmp_path, toy.parent, trained) == before


def test_there_are_sixty() -> None:
    assert len(CASES) >= 60
