"""Trainings in copies of a process that has imported everything: what one of them breaks, and who stops them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segzoo.study.trainings import Trainings
from segzoo.study.warm import AVAILABLE, WarmProcess

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="processes are not copied here")
ROOT = Path(__file__).parents[2]
PROGRAM = """
import atexit, os, signal, sys, tempfile, time
from segzoo.cli import warm
from segzoo.cli.follow import follow

warm.import_all = lambda: IMPORT
words = sys.argv[1:] or warm.await_command(follow)
if words is None:
    sys.exit(0)
kind = "copy" if sys.argv[0] == "segzoo" else "own"
print(kind, *words, os.environ.get("PLACE"), os.getppid(), flush=True)
if words[0] == "wait":
    def save(signum, frame):
        print("saved", flush=True)
        sys.exit(128 + signum)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, save)
    print("waits", flush=True)
    time.sleep(60)
if words[0] == "look":
    sys.exit(0 if os.path.isdir(sys.folder.name) else 9)
if words[0] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(words[1]))
"""


def program(imports: str = "None") -> list[str]:
    """One that has nothing to import, and does as its words say."""
    return [sys.executable, "-c", PROGRAM.replace("IMPORT", imports)]


@pytest.fixture
def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def trainings(environment: dict[str, str]) -> Iterator[Trainings]:
    with Trainings(program(), environment, warm=True) as found:
        yield found


def await_line(log: Path, line: str) -> None:
    deadline = time.monotonic() + 60
    while not log.is_file() or f"{line}\n" not in log.read_text():
        assert time.monotonic() < deadline, f"no '{line}' in {log}"
        time.sleep(0.01)


@pytest.mark.fault("run-of-a-study-is-killed")
def test_one_that_dies_takes_no_other_with_it(trainings: Trainings, tmp_path: Path) -> None:
    commands = [["exit", "0"], ["die"], ["exit", "3"], ["exit", "0"]]
    logs = [tmp_path / f"{number}.log" for number in range(4)]
    with ThreadPoolExecutor(2) as pool:
        places = [{"PLACE": str(number)} for number in range(4)]
        assert list(pool.map(trainings.run, commands, logs, places)) == [0, -signal.SIGKILL, 3, 0]
    said = [log.read_text().split() for log in logs]
    assert [words[:-1] for words in said] == [["copy", *c, str(n)] for n, c in enumerate(commands)]
    assert len({words[-1] for words in said}) == 1, "they are not copies of one process"


def test_what_an_import_made_outlives_every_copy(environment: dict[str, str], tmp_path: Path) -> None:
    made = "[setattr(sys, 'folder', tempfile.TemporaryDirectory()), atexit.register(sys.folder.cleanup)]"
    with Trainings(program(made), environment, warm=True) as trainings:
        assert [trainings.run(["look"], tmp_path / "a.log", {}) for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_those_that_run_are_told_to_stop_and_no_other_begins(
    signum: signal.Signals, trainings: Trainings, tmp_path: Path
) -> None:
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    with ThreadPoolExecutor(2) as pool:
        ended = [pool.submit(trainings.run, ["wait"], log, {}) for log in logs]
        for log in logs:
            await_line(log, "waits")
        trainings.stop(signum)
        assert [one.result() for one in ended] == [128 + signum] * 2
    assert all(log.read_text().endswith("waits\nsaved\n") for log in logs)
    assert trainings.run(["exit", "0"], tmp_path / "c.log", {}) == -signal.SIGTERM and not (tmp_path / "c.log").exists()


def test_a_stop_before_anything_is_imported_is_no_wait(environment: dict[str, str], tmp_path: Path) -> None:
    started = time.monotonic()
    with (
        Trainings(program("time.sleep(60)"), environment, warm=True) as trainings,
        ThreadPoolExecutor(1) as pool,
    ):
        ended = pool.submit(trainings.run, ["exit", "0"], tmp_path / "a.log", {})
        while trainings._warm is None:
            time.sleep(0.01)
        trainings.stop()
        assert ended.result() == -signal.SIGTERM
    assert time.monotonic() - started < 30


@pytest.mark.fault("comparison-that-is-killed")
def test_who_is_left_alone_saves_and_ends(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    process = subprocess.Popen(
        program(), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    order = {"number": 7, "words": ["wait"], "log": str(log), "environment": {}}
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    await_line(log, "waits")
    os.killpg(process.pid, signal.SIGTERM)  # as the manager of a cluster does: this one waits for its copies
    process.stdin.close()  # as the end of who holds it does
    assert process.stdout.read().splitlines() == ["ready", "begun 7", f"ended 7 {128 + signal.SIGTERM}"]
    assert process.wait(60) == 0 and log.read_text().endswith("waits\nsaved\n")
    process.stdout.close()


@pytest.mark.fault("warm-process-lost")
def test_without_the_process_runs_import_for_themselves(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with Trainings(program(), environment, warm=True) as trainings, ThreadPoolExecutor(1) as pool:
        ended = pool.submit(trainings.run, ["wait"], log, {})
        await_line(log, "waits")
        assert isinstance(trainings._warm, WarmProcess)
        trainings._warm._process.kill()
        assert ended.result() == -signal.SIGKILL
        await_line(log, "saved")
        assert trainings.run(["exit", "4"], tmp_path / "b.log", {}) == 4
    assert (tmp_path / "b.log").read_text().startswith("own exit 4")
    with Trainings(program("os._exit(5)"), environment, warm=True) as trainings:
        assert trainings.run(["exit", "6"], log, {}) == 6
    assert log.read_text().startswith("own exit 6")


@pytest.mark.slow
def test_what_is_imported_touches_no_device(environment: dict[str, str]) -> None:
    code = """
import torch
asked = []
for name in ("is_available", "device_count", "current_device", "_lazy_init"):
    setattr(torch.cuda, name, lambda *_, name=name: asked.append(name) or 0)
from segzoo.cli.warm import import_all
import_all()
assert not asked, asked
"""
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
