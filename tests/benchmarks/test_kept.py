"""Benchmarks in one process, and the start that several of them share."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from segzoo.bench.costs import cosine
from segzoo.bench.measure import measure
from segzoo.bench.problem import create_method, write_start
from segzoo.bench.rows import REFERENCE, ROWS, UNIT, Task
from segzoo.cli.main import main
from tests.benchmarks.adaptation import measure_rows, report
from tests.benchmarks.conftest import SMALL

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a .validation_step. but have no"),  # a step alone is measured
    pytest.mark.filterwarnings("ignore:the packaged generator draws"),
]
Make = Callable[..., Task]
BENCH = ["bench", "bilevel", *SMALL, "--one_process"]


def test_runs_share_a_start_and_its_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for precision in ("32", "bf16"):
        files = ["--keep", str(tmp_path / "kept"), "--json", str(tmp_path / f"{precision}.json")]
        assert main([*BENCH, "--rows", "metapix/sequential", "--precision", precision, *files]) == 0
        found.append(json.loads((tmp_path / f"{precision}.json").read_text())["metapix/sequential"]["cosine"])
    out = capsys.readouterr().out
    assert out.count("reference in float64") == 1 and "1/2  round 1, joint" in out
    assert json.loads((tmp_path / "32.json").read_text())["joint"]["peak_bytes"] is None
    assert found[0] > 0.9999 and found[1] != found[0]
    assert main([*BENCH, "--keep", str(tmp_path / "kept"), "--batch", "3"]) == 2
    assert "kept: its start is of batch 2, not 3; name another folder" in capsys.readouterr().err


def test_a_row_that_fails_in_one_process_is_skipped(tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "bench.json")]
    assert main([*BENCH, "--rows", "metapix/graph,metapix/sequential", *files]) == 0  # without a GPU
    found = json.loads((tmp_path / "bench.json").read_text())
    assert list(found) == ["joint", "metapix/sequential", "settings"]
    assert "cuda_graph" in found["settings"]["skipped"]["metapix/graph"]


def test_the_residual_branches_of_a_start_begin_at_zero(task: Make) -> None:
    shared = {"architecture": "unet", "encoder": "resnet18"}
    write_start(task(UNIT, start_steps=0, **shared), torch.device("cpu"))
    weights = torch.load(task(UNIT).start, weights_only=True)
    last = [value for name, value in weights.items() if "encoder.layer" in name and name.endswith("bn2.weight")]
    assert len(last) == 8 and not any(value.any() for value in last)
    assert all(value.all() for name, value in weights.items() if name.endswith("bn1.weight"))


@pytest.mark.slow
def test_half_precision_keeps_the_direction_on_a_deep_network(task: Make) -> None:
    shared = {"architecture": "deeplabv3plus", "encoder": "resnet50", "size": (96, 96), "start_steps": 20}
    measure(task(REFERENCE, precision="64", **shared))
    truth = np.load(task("").gradient)
    measure(task("metapix/sequential", precision="bf16", **shared))
    assert cosine(np.load(task("").gradient), truth) > 0.9  # from random branches: 0.3 at most


def test_the_adaptation_methods_steps(task: Make, capsys: pytest.CaptureFixture[str]) -> None:
    costs = measure_rows(task(""), "bf16/channels-last", ["source-only", "joint", "ssda"], rounds=1, steps=1)
    found = report(costs)
    assert found["joint"]["joint_steps"] == 1 and found["ssda"]["seconds"] > 0
    assert capsys.readouterr().out.count("joint steps") == 3
    refused = measure_rows(task("", size=(0, 0)), "32", ["source-only"], rounds=1, steps=1)
    assert isinstance(refused["source-only"], str) and "failed" in report(refused)["source-only"]


def test_the_weight_network_is_as_wide_as_asked_for(task: Make) -> None:
    for width in (8, 12):
        method = create_method(task("", weight_width=width), ROWS["metapix/sequential"])
        assert max(p.shape[0] for p in method.weighting.parameters() if p.ndim == 4) >= width  # type: ignore[union-attr]
        assert method.hparams["weight_width"] == width
    assert "weight_width" not in create_method(task("", weight_width=12), ROWS[UNIT]).hparams
