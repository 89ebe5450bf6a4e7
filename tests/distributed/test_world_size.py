"""Two and four gloo processes are one process on the whole batch."""

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

# Plain descent with a weight network that really moves: Adam would turn rounding of a vanishing gradient into a step.
DESCENT = {"optimizer": {"name": "sgd"}, "lr": 0.05}
# A longer virtual step amplifies the rounding of sums in another order: 0.5 makes 1.5e-12 of it in the parameters.
META = DESCENT | {"weight_lr": 1.0, "virtual_lr": 0.2}
VARIANTS: dict[str, dict[str, Any]] = {
    "metapix-fused-unnormalised": META | {"update": "fused", "normalize": "none"},
    "metapix-fused-head": META | {"update": "fused", "scope": "head"},
    "metapix-paper": META | {"update": "paper", "normalize": "softmax", "weight_lr": 0.1},
    "metapix-paper-optimizer": META | {"update": "paper", "virtual": "optimizer"},
    "metapix-every-second": META | {"meta_every": 2},
    "metapix-stages": META | {"stages": {"joint": 1, "weights": 1, "segmenter": 1}},
    "metapix-image": META | {"weights": "image"},
    "metapix-balanced": META | {"loss": {"class_balance": 1.0, "focal": 2.0}},
    "joint-balanced": DESCENT | {"loss": {"class_balance": 1.0, "focal": 0.5}},
    "reweight-head": DESCENT | {"scope": "head"},
    "maxsquare-multi-level": DESCENT | {"multi_level": True, "low_threshold": 0.2},
    "self-training-confident": DESCENT | {"pseudo": {"threshold": 0.2}, "mix_scope": "batch", "feature_distance": 1.0},
    "semi-supervised-confident": DESCENT | {"pseudo": {"threshold": 0.2, "weight": "pixel"}},
    "ssda-confident": DESCENT | {"pseudo": {"threshold": 0.2, "alignment": 1.0}, "masked": 1.0, "fourier": 0.1},
    "region-selection-fast": DESCENT | {"discriminator_lr": 0.05, "outputs": "shared"},
    "gradient-annotator-whitened": DESCENT | {"scope": "head", "metric": "relative", "whiten": True},
    "sepico-confident": DESCENT | {"pseudo": {"threshold": 0.2}, "temperature": 1.0},
    "sepico-fast-bank": DESCENT | {"pseudo": {"threshold": 0.2}, "temperature": 1.0, "fast": True, "contrast": "bank"},
}
WORLDS = (1, 2, 4)


def cases() -> dict[str, dict[str, Any]]:
    every = {slug: META if slug == "metapix" else DESCENT for slug in tiny.METHODS} | VARIANTS
    found = {}
    for name, options in every.items():
        slug = max((slug for slug in tiny.METHODS if name.startswith(slug)), key=len)
        for norm in ("group", "frozen", "sync"):
            found[f"{name}-{norm}"] = {"slug": slug, "options": options | {"norm": norm}, "precision": "64-true"}
    for slug in tiny.METHODS:
        options = {"optimizer": {"name": "sgd"}, "lr": 0.01, "norm": "group"}
        found[f"{slug}-single"] = {"slug": slug, "options": options, "precision": "32-true"}
    clipped = {"options": META | {"virtual": "optimizer", "norm": "group"}, "trainer": {"gradient_clip_val": 0.1}}
    found["metapix-clipped"] = {"slug": "metapix", "precision": "64-true"} | clipped
    found["metapix-sources"] = found["metapix-group"] | {"weights": [3.0, 1.0]}
    found["forgetful"] = found["metapix-group"] | {"forget_to_average": True}
    return found


def cases_of(world: int) -> dict[str, dict[str, Any]]:
    """Four processes on two cores take their time: they run what the bilevel step alone makes difficult."""
    orders = ("metapix-group", "metapix-frozen", "metapix-sync", "metapix-fused-un", "metapix-paper-")
    return {n: case for n, case in cases().items() if world < 4 or (n.startswith(orders) and "optimizer" not in n)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """All cases on one, two and four processes."""
    folders = {world: tmp_path_factory.mktemp(f"world{world}") for world in WORLDS}
    worker.main(str(folders[1]), json.dumps(cases()))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for world in WORLDS[1:]:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
        command = [*torchrun, "-m", "tests.distributed.worker", str(folders[world])]
        command.append(json.dumps(cases_of(world)))
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
        assert done.returncode == 0, done.stderr[-3000:]
    return folders


def difference(runs: dict[int, Path], name: str, world: int, what: str = "parameters") -> float:
    one, more = (torch.load(runs[w] / f"{name}.pt")[what] for w in (1, world))
    assert one.keys() == more.keys()
    # A tensor of zeros, or of gradients that cancel, is compared with the size of the others.
    floor = 1e-2 if what == "parameters" else 1e-3 * max(float(t.abs().max()) for t in one.values())
    return max(float((one[key] - more[key]).abs().max() / one[key].abs().max().clamp_min(floor)) for key in one)


@pytest.mark.parametrize(
    ("name", "world"),
    [(n, w) for w in WORLDS[1:] for n in cases_of(w) if not n.endswith(("single", "forgetful"))],
)
def test_several_processes_equal_one(name: str, world: int, runs: dict[int, Path]) -> None:
    assert difference(runs, name, world) < 1e-12
    assert difference(runs, name, world, "gradients") < 1e-10


@pytest.mark.fault("metrics-of-one-rank")
@pytest.mark.parametrize(
    ("name", "world"), [(n, w) for w in WORLDS[1:] for n in cases_of(w) if not n.endswith(("single", "forgetful"))]
)
def test_metrics_are_those_of_the_whole_batch(name: str, world: int, runs: dict[int, Path]) -> None:
    one, more = (torch.load(runs[w] / f"{name}.pt")["metrics"] for w in (1, world))
    assert list(one) == list(more) and "train/loss 2" in one
    for key, value in one.items():
        assert torch.isclose(value, more[key], rtol=1e-9, atol=1e-12, equal_nan=True), (key, value, more[key])


@pytest.mark.parametrize("name", [name for name in cases() if name.endswith("single")])
def test_two_processes_equal_one_in_single_precision(name: str, runs: dict[int, Path]) -> None:
    one, two = (torch.load(runs[world] / f"{name}.pt")["parameters"] for world in (1, 2))
    flat = [torch.cat([p.flatten() for p in parameters.values()]) for parameters in (one, two)]
    assert float((flat[0] - flat[1]).norm() / flat[0].norm()) < 1e-6


def test_gradients_of_one_rank_are_noticed(runs: dict[int, Path]) -> None:
    assert difference(runs, "forgetful", 2) > 1e-6
    assert difference(runs, "forgetful", 2, "gradients") > 1e-3


def test_the_weight_network_really_moved(runs: dict[int, Path]) -> None:
    after = torch.load(runs[1] / "metapix-group.pt")["parameters"]
    before = dict(tiny.method("metapix").named_parameters())
    moved = max(float((after[k].float() - before[k]).abs().max()) for k in after if k.startswith("weighting"))
    assert moved > 1e-2


@pytest.mark.parametrize("script", ["sharded", "second_order"])
def test_derivatives_that_do_not_exist_are_refused(script: str) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*torchrun, "-m", f"tests.distributed.{script}"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
