"""Training steps for which the host does not wait, and what is captured of them. Run with `pytest -m gpu`."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from segzoo.callbacks import LastCheckpoint
from segzoo.errors import NonFiniteLossError
from segzoo.methods.joint import JointTraining
from segzoo.methods.late_checks import skips_on_device
from segzoo.methods.metapix import MetaPix
from tests import tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ON_CUDA: dict[str, Any] = {"accelerator": "cuda", "devices": 1}


class NoWaits(L.Callback):
    """After some steps, an error where the host waits for the device between the loading of a batch and the end of its step."""

    def __init__(self, after: int) -> None:
        self.after, self.watched = after, 0

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step >= self.after:
            torch.cuda.set_sync_debug_mode("error")
            self.watched += 1

    def on_train_batch_end(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("slug", "options"),
    [
        ("joint", {}),
        ("joint", {"optimizer": {"name": "sgd"}}),
        ("joint", {"overlap": "lovasz"}),
        ("source-only", {}),
        ("metapix", {"cuda_graph": False}),
        ("metapix", {"cuda_graph": False, "update": "paper"}),
        ("metapix", {"cuda_graph": False, "scope": "decoder"}),
        ("metapix", {"cuda_graph": True}),  # captured before
        ("maxsquare", {}),
        ("region-selection", {}),
        ("self-training", {}),
        ("semi-supervised", {}),
        ("ssda", {}),
        ("gradient-annotator", {}),
    ],
)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_host_waits_for_no_step(slug: str, options: dict[str, Any], precision: str) -> None:
    watch = NoWaits(after=4)
    settings = {"callbacks": [watch], "log_every_n_steps": 1000, "precision": precision, "gradient_clip_val": 1.0}
    try:
        tiny.fit(slug, 8, trainer_options=ON_CUDA | settings, **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert watch.watched == 4


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_fused_steps_are_those_of_the_cpu(name: str) -> None:
    options = {"network": {"norm": "group"}, "optimizer": {"name": name, "lr": 0.01}}
    devices: list[dict[str, Any]] = [ON_CUDA, {}]
    gpu, cpu = (
        tiny.fit("joint", 4, trainer_options=device | {"precision": "64-true", "gradient_clip_val": 0.1}, **options)
        for device in devices
    )
    assert skips_on_device(gpu.optimizers(use_pl_optimizer=False))
    for (key, expected), value in zip(cpu.state_dict().items(), gpu.state_dict().values(), strict=True):
        torch.testing.assert_close(value.cpu(), expected, rtol=1e-6, atol=1e-8, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_bad_step_is_left_out_on_the_device(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    terms, before = JointTraining.weighted_terms, dict[str, torch.Tensor]()

    def spoiled(self: Any, *args: Any) -> dict[str, torch.Tensor]:
        found = terms(self, *args)
        if self.global_step == 3:
            before.update({n: p.detach().cpu().clone() for n, p in self.named_parameters()})
            found["source"] = found["source"] * math.nan
        return found

    monkeypatch.setattr(JointTraining, "weighted_terms", spoiled)
    options = {"callbacks": [LastCheckpoint(tmp_path, every_n_steps=100)], "enable_checkpointing": True}
    with pytest.raises(NonFiniteLossError, match="non-finite loss at step 3: source = nan; the parameters before this"):
        tiny.fit("joint", 8, optimizer={"name": name}, trainer_options=ON_CUDA | options)
    saved = torch.load(tmp_path / "checkpoints" / "last-good.ckpt", map_location="cpu", weights_only=True)
    assert saved["global_step"] == 4  # read one step late
    assert before and all(torch.equal(saved["state_dict"][n], p) for n, p in before.items())


@pytest.mark.parametrize(
    "options",
    [{"scope": "decoder"}, {"scope": "head"}, {"keep_outputs": False}, {"overlap": "lovasz"}, {"overlap": "dice"}],
)
def test_parts_of_the_network_are_captured(options: dict[str, Any]) -> None:
    settings = {"network": {"norm": "group"}, "virtual_lr": 0.5, "trainer_options": ON_CUDA | {"precision": "64-true"}}
    usual, captured = (
        tiny.fit("metapix", 6, cuda_graph=graph, **settings, **options).state_dict() for graph in (False, True)
    )
    for name, expected in usual.items():
        torch.testing.assert_close(captured[name], expected, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_auto_captures_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    end, graphs = MetaPix.on_train_end, []

    def ended(self: MetaPix) -> None:
        graphs.append(self._captured is not None and self._captured.graph is not None)
        end(self)

    monkeypatch.setattr(MetaPix, "on_train_end", ended)
    tiny.fit("metapix", 4, cuda_graph="auto", trainer_options=ON_CUDA)
    tiny.fit("metapix", 4, cuda_graph="auto", trainer_options=ON_CUDA | {"precision": "bf16-mixed"})
    assert graphs == [True, True]
    tiny.fit("metapix", 4, cuda_graph="auto", trainer_options=ON_CUDA | {"precision": "16-mixed"})
    tiny.fit("metapix", 4, cuda_graph="auto", virtual="optimizer", trainer_options=ON_CUDA)
    assert graphs == [True, True, False, False]


def run_process(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        timeout=150,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
    )
    assert done.returncode == 0 and "done" in done.stdout, done.stderr[-3000:]


def test_a_capture_that_fails_leaves_a_device_that_trains_on() -> None:
    run_process("tests.gpu.steps", "failing")


def test_collectives_of_nccl_are_captured() -> None:
    run_process("torch.distributed.run", "--standalone", "--nproc_per_node=1", "-m", "tests.gpu.steps", "nccl")
