"""Measuring without processes: quick, and good for everything but the numbers."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any, Self

import pytest

from segzoo.bench import runner
from segzoo.bench.measure import main
from segzoo.bench.process import Process
from segzoo.bench.rows import Task

PEERS = Path(__file__).with_name("peers.py")
NETWORK = ["--architecture", "unet", "--encoder", "tu-test_resnet", "--size", "32", "32"]
SMALL = [*NETWORK, "--steps", "1", "--warmup", "1", "--rounds", "1"]


class Ended(Process):
    """A process that has ended when it is started."""

    def __init__(self, status: int = 0, output: str = "") -> None:
        self.status, self.output = status, output.splitlines()

    def __enter__(self) -> Self:
        return self

    def await_turn(self) -> None:
        assert self.status is not None

    def __exit__(self, *_: object) -> None:
        assert self.status is not None


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`segzoo bench` calls its measuring process as a function."""

    def start(task: Task, environment: dict[str, str]) -> Ended:
        try:
            return Ended(main([task.to_json()]))
        except Exception as error:
            return Ended(1, f"Traceback ...\n{type(error).__name__}: {error}\n")

    monkeypatch.setattr("sys.stdin", StringIO("\n" * 1000))  # always its turn
    monkeypatch.setattr(runner, "start", start)


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., Task]:
    """A small task; further fields as keywords."""

    def make(row: str, **options: Any) -> Task:
        fields: dict[str, Any] = {
            "architecture": "unet",
            "encoder": "tu-test_resnet",
            "size": (32, 32),
            "batch": 2,
            "precision": "32",
            "device": "cpu",
            "threads": None,
            "warmup": 0,
            "steps": 1,
            "start": str(tmp_path / "start.pt"),
            "result": str(tmp_path / "result.json"),
            "gradient": str(tmp_path / "gradient.npy"),
            "peers": str(PEERS),
        }
        return Task(row, **fields | options)

    return make
