"""The script that fills the tables of a GPU: what becomes of steps that fail, and the whole of it on a CPU."""

import json
import sys
import tarfile
import time
from pathlib import Path
from typing import ClassVar

import pytest

from tests.benchmarks import gpu_day
from tests.benchmarks.gpu_day import Day, Program, Workers
from tests.benchmarks.gpu_steps import Step, full, tiny


class Fake:
    """A worker whose steps end as their first argument says, without a process."""

    started: ClassVar[list["Fake"]] = []

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.ended = False
        self.started.append(self)

    def await_ready(self, seconds: float) -> bool:
        return seconds > 0

    def run(self, step: Step, log: Path, seconds: float) -> str:
        self.steps.append(step.name)
        log.write_text(f"| table of {step.name} |\n1/2  progress\n")
        return step.arguments[0]

    def end(self) -> None:
        self.ended = True


def step(name: str, failure: str = "", least: int = 0, fresh: bool = False) -> Step:
    return Step(name, "segzoo", [failure], 10, least, fresh)


def test_a_step_that_fails_costs_its_worker_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_day, "Worker", Fake)
    Fake.started.clear()
    day = Day(tmp_path / "out", time.monotonic() + 60, tmp_path / "day.tar.gz")
    day.out.mkdir()
    steps = [step("a"), step("b", "took long"), step("c"), step("d", least=100), step("e", fresh=True)]
    assert day.run(steps) == 2
    assert [worker.steps for worker in Fake.started] == [["a", "b"], ["c"], ["e"], []]
    assert all(worker.ended for worker in Fake.started)
    found = json.loads((day.out / "seconds.json").read_text())
    assert [found[name]["failure"] for name in "abce"] == ["", "took long", "", ""]
    assert found["d"]["failure"].startswith("left out: it takes 100 s")
    out = capsys.readouterr().out
    assert "| table of c |" in out and "progress" not in out and "3 of 5 steps" in out
    with tarfile.open(tmp_path / "day.tar.gz") as archive:
        assert {"gpu_day/seconds.json", "gpu_day/b.txt", "gpu_day/e.txt"} <= set(archive.getnames())


def test_programs_end_in_time(tmp_path: Path) -> None:
    def result(code: str, seconds: float) -> str:
        program = Program(Step("x", "", [sys.executable, "-S", "-c", code], 10), tmp_path / "x.txt")
        try:
            return program.result(seconds)
        finally:
            program.end()

    assert result("print('table')", 20) == ""
    assert (tmp_path / "x.txt").read_text() == "table\n"
    assert result("raise SystemExit(3)", 20) == "failed (3)"
    assert result("while True: pass", 0.2).startswith("took more than")


def test_a_tiny_day_has_the_steps_of_a_full_one(tmp_path: Path) -> None:
    whole, small = (make(tmp_path, tmp_path / "scratch") for make in (full, tiny))
    assert [s.name for s in small] == [s.name for s in whole]
    assert all("cuda" in s.arguments for s in whole if not s.beside)
    assert not any({"cuda", "512", "resnet50", "mit_b2"} & set(s.arguments) for s in small)


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    workers = Workers()
    try:
        worker = workers.get(fresh=False)
        assert worker.await_ready(60)
        endless = Step("x", "loading", ["--images", "1000000"], 1)
        assert worker.run(endless, tmp_path / "x.txt", 1) == "took more than 1 s"
        workers.drop()
        other = workers.get(fresh=False)
        assert worker.process.poll() is not None and other.await_ready(60)
        assert other.run(Step("y", "segzoo", ["--version"], 9), tmp_path / "y.txt", 30) == ""
        assert "segzoo" in (tmp_path / "y.txt").read_text()
        assert other.run(Step("z", "segzoo", ["bench", "nothing"], 9), tmp_path / "z.txt", 30).startswith("failed (")
    finally:
        workers.end()


@pytest.mark.slow
def test_the_whole_day_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "day.tar.gz"
    command = ["gpu_day", str(tmp_path / "out"), "--tiny", "--seconds", "600", "--archive", str(archive)]
    monkeypatch.setattr("sys.argv", command)
    assert gpu_day.main() == 0
    with tarfile.open(archive) as packed:
        names = {Path(name).name for name in packed.getnames()}
    tables = [s.name for s in full(tmp_path, tmp_path) if s.module == "segzoo"]
    assert {f"{name}{ending}" for name in tables for ending in (".json", ".png", ".txt")} <= names
    distributed = json.loads((tmp_path / "out" / "deeplabv3plus-resnet50-bf16-nccl.json").read_text())
    assert distributed["joint"]["reduced_gradients"] == pytest.approx(1, abs=0.01)
    assert distributed["metapix/sequential"]["reduced_gradients"] > 1
