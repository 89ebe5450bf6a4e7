"""Two gloo processes are one process on the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.distributed import worker

pytestmark = pytest.mark.filterwarnings("ignore")

CASES = [(slug, {}) for slug in tiny.METHODS]
CASES += [("metapix", {"update": "fused", "weight_norm": "mean1"}), ("metapix", {"update": "paper", "virtual": "optimizer"})]
CASES += [("metapix", {"meta_every": 2})]


def run(tmp_path: Path, world: int, slug: str, options: dict[str, Any], precision: str) -> dict[str, torch.Tensor]:
    out = tmp_path / f"{world}.pt"
    strategy = "ddp" if world > 1 else "auto"
    spec = json.dumps({"slug": slug, "options": options, "precision": precision, "world": world, "strategy": strategy})
    if world == 1:
        worker.main(str(out), spec)
    else:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [*torchrun, "-m", "tests.distributed.worker", str(out), spec]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    parameters: dict[str, torch.Tensor] = torch.load(out)
    return parameters


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max() / b[name].abs().max().clamp_min(1e-3)) for name in a)


@pytest.mark.parametrize(("slug", "options"), CASES, ids=[f"{s}-{'-'.join(map(str, o.values()))}" for s, o in CASES])
@pytest.mark.parametrize("norm", ["group", pytest.param("frozen", marks=pytest.mark.slow)])
def test_two_processes_equal_one(slug: str, options: dict[str, Any], norm: str, tmp_path: Path) -> None:
    options = {"norm": norm, "optimizer": "adam", **options}
    one, two = (run(tmp_path, world, slug, options, "64-true") for world in (1, 2))
    assert largest_difference(one, two) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("slug", tiny.METHODS)
def test_two_processes_equal_one_in_single_precision(slug: str, tmp_path: Path) -> None:
    options = {"norm": "group", "optimizer": "sgd", "lr": 0.01}
    one, two = (run(tmp_path, world, slug, options, "32-true") for world in (1, 2))
    assert largest_difference(one, two) < 1e-5


def test_unreduced_gradients_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a port that forgets to average g and v would compute must not pass the test above.
    options = {"norm": "group", "optimizer": "sgd", "lr": 0.1, "virtual_lr": 1.0}
    one = run(tmp_path, 1, "metapix", options, "64-true")
    monkeypatch.setenv("SEGZOO_TEST_SKIP_AVERAGE", "1")
    assert largest_difference(one, run(tmp_path, 2, "metapix", options, "64-true")) > 1e-6
