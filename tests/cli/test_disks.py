"""Disks that are full, limits, memory that runs out, outputs that nobody reads: one line, and nothing that was good is lost."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segzoo.cli.streams import tolerant_streams
from segzoo.runtime.lock import release_all
from tests.cli.conftest import Segzoo
from tests.processes import Ended, Fork, at

RUN = Path("runs/joint/toy/default-s0")


def fit(toy: Path, *more: Any) -> list[Any]:
    quiet = ["--trainer.enable_model_summary", "false", "--trainer.limit_val_batches", "0", "--panel_steps", "100"]
    return [
        "fit",
        "--method",
        "joint",
        "--data",
        toy,
        "--trainer.max_steps",
        "6",
        "--checkpoint_steps",
        "1",
        *quiet,
        *more,
    ]


def assert_one_line(ended: Ended, *parts: str) -> None:
    assert ended.status == 2, ended
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1, ended.err
    for part in parts:
        assert part in ended.err


def manifest(run: Path) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text())


def assert_failed_after(run: Path, step: int, error: str) -> None:
    """The checkpoint before the fault can be read, nothing half is left, and the manifest knows."""
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == step
    assert not list(run.rglob("*.partial"))
    assert manifest(run)["status"] == "failed" and error in manifest(run)["error"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of a size."""
    mounted = []

    def mount(size: str) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        try:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, capture_output=True
            )
        except (OSError, subprocess.SubprocessError):
            pytest.skip("needs the right to mount")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def limited(size: int) -> Callable[[], None]:
    """No file of the process may grow beyond a size, in bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def fill(folder: Path) -> None:
    """Leaves no room on a small disk."""
    with pytest.raises(OSError, match="No space"), (folder / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.fault("disk-full-in-fit")
def test_a_disk_that_fills_up_with_checkpoints(toy: Path, tmp_path: Path, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("8m")  # room for one checkpoint of 5 MB
    ended = Fork(tmp_path, *fit(toy, "--runs", disk / "runs")).wait()
    assert_one_line(ended, "checkpoints/last.partial: No space left on device")
    assert_failed_after(disk / RUN, 1, "No space left on device")


@pytest.mark.fault("disk-full-in-fit")
@pytest.mark.parametrize("what", ["figure", "metrics"])
def test_a_disk_that_is_full_when_something_else_is_written(
    what: str, toy: Path, tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("16m")
    more = ["--panel_steps", "3"] if what == "figure" else ["--checkpoint_steps", "100", "--trainer.max_steps", "400"]
    step = 3 if what == "figure" else 100
    act = at("on_train_batch_start", 2 if what == "figure" else 101, lambda: fill(disk))
    ended = Fork(tmp_path, *fit(toy, "--runs", disk / "runs", *more), callback=act).wait()
    assert_one_line(ended, "No space left on device", "metrics.csv" if what == "metrics" else "default-s0/")
    assert_failed_after(disk / RUN, 2 if what == "figure" else step, "No space left on device")


@pytest.mark.fault("file-size-limit")
def test_a_limit_on_the_size_of_files(toy: Path, tmp_path: Path) -> None:
    act = at("on_train_batch_start", 2, limited(1_000_000))
    assert_one_line(Fork(tmp_path, *fit(toy), callback=act).wait(), "checkpoints/last.partial: File too large")
    assert_failed_after(tmp_path / RUN, 2, "File too large")


@pytest.mark.fault("disk-full-elsewhere")
def test_a_limit_in_test_and_predict(checkpoint: Path, toy: Path, tmp_path: Path) -> None:
    ended = Fork(tmp_path, "test", "--ckpt_path", checkpoint, "--out", "scores", before=limited(2_000)).wait()
    assert_one_line(ended, "scores/", ": File too large")
    assert manifest(tmp_path / "scores")["status"] == "failed"
    images = toy.parent / "syn" / "image"
    out = ["--out", tmp_path / "labelled"]
    ended = Fork(tmp_path, "predict", "--ckpt_path", checkpoint, "--input", images, *out, before=limited(800)).wait()
    assert_one_line(ended, str(tmp_path / "labelled"), ": File too large")


@pytest.mark.fault("temporary-folder-full")
def test_a_full_temporary_folder_does_not_matter(
    toy: Path, tmp_path: Path, small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk("16k")
    fill(disk)
    monkeypatch.setenv("TMPDIR", str(disk))
    monkeypatch.setattr("tempfile.tempdir", None)
    ended = Fork(tmp_path, *fit(toy, "--data.num_workers", "1", "--trainer.max_steps", "2")).wait()
    assert (ended.status, ended.err) == (0, "")
    assert torch.load(tmp_path / RUN / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.fault("disk-turns-read-only")
def test_a_disk_that_turns_read_only(toy: Path, tmp_path: Path, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("32m")

    def turn() -> None:
        release_all()  # the lock's open file, for which a kernel that meets errors does not wait, and `mount` does
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    act = at("on_train_batch_start", 2, turn)
    assert_one_line(Fork(tmp_path, *fit(toy, "--runs", disk / "runs"), callback=act).wait(), "Read-only file system")
    assert torch.load(disk / RUN / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


def workers(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.fault("loader-process-killed")
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes in /proc")
def test_a_loader_process_that_is_killed(toy: Path, tmp_path: Path) -> None:
    def kill() -> None:
        for pid in workers(os.getpid()):
            os.kill(pid, signal.SIGKILL)

    argv = fit(toy, "--data.num_workers", "1", "--trainer.max_steps", "60")
    ended = Fork(tmp_path, *argv, callback=at("on_train_batch_start", 4, kill)).wait()
    assert_one_line(ended, "a loader process was ended from outside", "--data.num_workers")
    assert manifest(tmp_path / RUN)["status"] == "failed"
    assert torch.load(tmp_path / RUN / "checkpoints/last.ckpt", weights_only=True)["global_step"] >= 4


NAMESPACE = ["unshare", "--mount", "sh", "-c"]


@pytest.mark.slow
@pytest.mark.fault("no-shared-memory")
@pytest.mark.parametrize("size", ["8k", "64k"])
def test_no_shared_memory_for_loader_processes(size: str, toy: Path, tmp_path: Path) -> None:
    small = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    if subprocess.run([*NAMESPACE, small, "sh", "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    command = [
        sys.executable,
        "-m",
        "segzoo",
        *map(str, fit(toy, "--data.num_workers", "2", "--data.size", "256", "256")),
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*NAMESPACE, small, "sh", *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )
    assert_one_line(Ended(done.returncode, done.stdout, done.stderr), "shared memory", "--data.num_workers 0")


@pytest.mark.fault("memory-runs-out")
@pytest.mark.parametrize("act", [lambda: torch.empty(2**48), lambda: np.ones(2**46)], ids=["torch", "numpy"])
def test_out_of_memory(act: Callable[[], Any], toy: Path, tmp_path: Path) -> None:
    ended = Fork(tmp_path, *fit(toy), callback=at("on_train_batch_start", 2, act)).wait()
    assert_one_line(ended, "out of memory; lower --data.batch_size")
    assert manifest(tmp_path / RUN)["status"] == "failed"


def output_to(path: str) -> Callable[[], None]:
    def redirect() -> None:
        os.dup2(os.open(path, os.O_WRONLY), 1)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115

    return redirect


def nobody_reads() -> None:
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115


@pytest.mark.fault("output-full-or-not-read")
def test_a_training_goes_on_when_nobody_can_read_it(toy: Path, tmp_path: Path) -> None:
    full = Fork(tmp_path / "full", *fit(toy), before=output_to("/dev/full")).wait()
    note = "standard output cannot be written: No space left on device; the results are in files\n"
    assert (full.status, full.err) == (0, note)
    unread = Fork(tmp_path / "unread", *fit(toy), before=nobody_reads).wait()
    assert (unread.status, unread.err) == (0, "")
    for name in ("full", "unread"):
        assert manifest(tmp_path / name / RUN)["status"] == "finished"
        assert (tmp_path / name / RUN / "scores-test.json").is_file()


@pytest.mark.fault("output-full-or-not-read")
def test_a_command_that_only_prints_fails_when_it_cannot(tmp_path: Path) -> None:
    full = Fork(tmp_path, "methods", before=output_to("/dev/full")).wait()
    assert (full.status, full.err) == (1, "standard output cannot be written: No space left on device\n")
    unread = Fork(tmp_path, "methods", before=nobody_reads).wait()
    assert (unread.status, unread.err) == (1, "")


@pytest.mark.fault("outputs-closed")
def test_closed_outputs_as_daemons_have_them(toy: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "segzoo", *map(str, fit(toy, "--trainer.max_steps", "2"))]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], cwd=tmp_path, env=environment)
    assert done.returncode == 0
    assert manifest(tmp_path / RUN)["status"] == "finished"
    assert torch.load(tmp_path / RUN / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


def test_outputs_are_as_before_after_a_command(segzoo: Segzoo) -> None:
    before = sys.stdout
    with tolerant_streams():
        assert sys.stdout is not before
    assert sys.stdout is before


class Parts(StringIO):
    """Remembers what it is given at once."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def write(self, text: str) -> int:
        self.parts.append(text)
        return super().write(text)


def test_a_line_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts()
    monkeypatch.setattr(sys, "stderr", parts)
    with tolerant_streams():
        print("two", "words", file=sys.stderr)
        sys.stderr.write("\r10 %")
        sys.stderr.flush()
        sys.stderr.write("no end")
    assert parts.parts == ["two words\n", "\r10 %", "no end"]


@pytest.mark.fault("names-that-are-no-text")
@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("ascii", "Straße – 😀", r"Stra\xdfe \u2013 \U0001f600"),
        ("utf-8", "Straße \udcff", r"Straße \udcff"),
        ("utf-8", "Straße – 😀", "Straße – 😀"),
    ],
)
def test_letters_that_an_output_lacks_end_nothing(
    encoding: str, text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of a class, on consoles of Windows and of old systems, or a name of a file that is no text."""
    content = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(content, encoding=encoding, write_through=True))
    with tolerant_streams():
        print(text)
    assert content.getvalue().decode().rstrip() == shown
