"""Trains tiny methods on however many processes torchrun started; rank zero saves parameters, first gradients and metrics.

python -m torch.distributed.run --nproc_per_node 2 -m tests.distributed.worker FOLDER CASES, with CASES as JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch

from segzoo.callbacks import CollapseWatch
from segzoo.data import Domain, MiniCity, SeveralDomains
from segzoo.methods import meta_update
from tests import tiny


class FirstGradient(L.Callback):
    """The gradients of the first step, as the optimiser gets them."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        if not self.gradients:
            named = pl_module.named_parameters()
            self.gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}


class Metrics(L.Callback):
    """What was logged, by name and batch."""

    def __init__(self) -> None:
        self.metrics: dict[str, torch.Tensor] = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, o: Any, b: Any, batch_idx: int
    ) -> None:
        found = trainer._results.metrics(on_step=True)["log"]
        self.metrics |= {f"{name} {batch_idx}": value.double() for name, value in found.items()}


class Shares(CollapseWatch):
    """Logs the shares of the classes, and draws nothing."""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """No figure."""


def both_domains() -> list[Domain]:
    """Two sources of different looks and sizes."""
    return [MiniCity("source", train=5, size=tiny.SIZE), MiniCity("target", train=3, size=tiny.SIZE)]


def train(case: dict[str, Any], out: Path) -> None:
    """Three steps on four images per domain, however many processes share them."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    # The mistake that a test wants to see noticed: every rank with its own g and v.
    average = meta_update.average_gradients
    meta_update.average_gradients = (lambda gradients: gradients) if case.get("forget_to_average") else average
    L.seed_everything(0, verbose=False)
    trained = tiny.method(case["slug"], **case["options"])
    strategy = "ddp" if world > 1 else "auto"
    first, logged = FirstGradient(), Metrics()
    options = case.get("trainer", {}) | {
        "callbacks": [first, Shares(out.parent), logged],
        "devices": world,
        "strategy": strategy,
    }
    trainer = tiny.trainer(3, precision=case["precision"], **options)
    several = {"source": SeveralDomains(both_domains(), case["weights"])} if "weights" in case else {}
    trainer.fit(trained, datamodule=tiny.data(batch_size=4 // world, **several))
    meta_update.average_gradients = average
    if trainer.is_global_zero:
        saved = {name: p.detach() for name, p in trained.named_parameters()}
        saved |= {name: b for name, b in trained.named_buffers() if "running" in name}
        torch.save({"parameters": saved, "gradients": first.gradients, "metrics": logged.metrics}, out)


def main(folder: str, cases: str) -> None:
    """All cases, one file each."""
    torch.set_num_threads(1)
    for name, case in json.loads(cases).items():
        train(case, Path(folder) / f"{name}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
