"""A folder has one writer, and its lock dies with it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from segzoo.errors import ConfigError
from segzoo.runtime.lock import FolderLock, locked, release_all
from tests.cli.conftest import Segzoo

ROOT = Path(__file__).parents[2]
Start = Callable[..., "subprocess.Popen[str]"]
ENDLESS = ["--trainer.max_steps", "100000", "--checkpoint_steps", "1", "--trainer.val_check_interval", "100000"]


def wait_for(condition: Callable[[], Any], seconds: float = 90) -> Any:
    """What the condition says as soon as it says something."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the command as a process of its own, which the test's end ends."""
    running = []

    def begin(*command: str | Path) -> "subprocess.Popen[str]":
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        words = [sys.executable, "-m", "segzoo", *map(str, command)]
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(words, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_a_second_writer_is_told_of_the_first(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    message = rf"{tmp_path} is being written by another process \(process {os.getpid()} on .*, since 20.*\); wait"
    with pytest.raises(ConfigError, match=message):
        FolderLock(tmp_path)
    first.release()
    with locked(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert list(tmp_path.iterdir()) == []


def test_a_lock_without_its_file_stands_in_nobodys_way(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    (tmp_path / ".lock").unlink()
    with locked(tmp_path):
        first.release()
        assert (tmp_path / ".lock").is_file(), "that of the second"
    release_all()


def test_a_folder_that_cannot_be_written_has_no_lock(tmp_path: Path) -> None:
    FolderLock(tmp_path / "nowhere").release()


def test_a_fork_does_not_hold_it(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    (read, write), (begun, begin) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # a worker that outlives its parent
        os.close(write)
        os.write(begin, b"1")
        os.read(read, 1)
        os._exit(0)
    os.read(begun, 1)
    with pytest.raises(ConfigError):
        FolderLock(tmp_path)
    lock._forget()  # as when the parent dies: nothing is unlocked, the file is closed
    with locked(tmp_path):
        pass
    os.close(write)
    os.waitpid(child, 0)


@pytest.mark.fault("two-resumes-at-once")
def test_a_run_that_is_written_is_not_resumed_until_its_writer_is_gone(
    start: Start, segzoo: Segzoo, toy: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    options = ["--data", toy, "--runs", runs, "--data.num_workers", "1", *ENDLESS]
    process = start("fit", "--method", "source-only", *options)
    run = runs / "source-only" / "toy" / "default-s0"
    last = run / "checkpoints" / "last.ckpt"
    wait_for(last.is_file)
    for command in (["fit", "--ckpt_path", last], ["test", "--ckpt_path", last, "--out", run]):
        done = segzoo(*command)
        assert done.status == 2 and done.err.count("\n") == 1
        assert f"default-s0 is being written by another process (process {process.pid} on " in done.err
    process.kill()  # its loader's worker lives for some seconds more
    process.wait()
    steps = str(100)
    done = segzoo("fit", "--ckpt_path", last, "--trainer.max_steps", steps, "--data.num_workers", "0")
    assert done.status == 0, done.err
    assert not (run / ".lock").exists()


@pytest.mark.fault("comparison-that-is-killed")
@pytest.mark.fault("two-comparisons-at-once")
@pytest.mark.slow
def test_the_trainings_of_a_comparison_end_with_it(start: Start, segzoo: Segzoo, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["compare", "--rows", "source-only", "--seeds", "0-1", "--out", out, "--", "--data", toy, *ENDLESS]
    run = out / "source-only" / "source-only" / "toy" / "default-s0"
    last, lock = run / "checkpoints" / "last.ckpt", run / ".lock"

    def training() -> int:
        words = lock.read_text().split() if lock.is_file() else []
        return int(words[1]) if len(words) > 1 else 0

    process = start(*command)
    wait_for(last.is_file)
    child = wait_for(training)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM and not is_alive(child)
    assert process.stdout is not None and "stopped; the same command continues" in process.stdout.read()

    size = last.stat().st_mtime_ns
    process = start(*command)
    wait_for(lambda: last.stat().st_mtime_ns > size)
    child = wait_for(training)
    done = segzoo(*command)
    assert done.status == 2 and f"out is being written by another process (process {process.pid} on " in done.err
    process.kill()
    process.wait()
    wait_for(lambda: not is_alive(child), 60)


@pytest.mark.fault("comparison-that-is-killed")
def test_a_comparison_that_meets_a_training_says_so(segzoo: Segzoo, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = out / "source-only" / "source-only" / "toy" / "default-s0"
    run.mkdir(parents=True)
    with locked(run):
        done = segzoo("compare", "--rows", "source-only", "--seeds", "0", "--out", out, "--", "--data", toy)
    assert done.status == 2 and "default-s0 is being written by another process" in done.err
    assert not list(out.glob("*.log"))
