"""Trains tiny methods on however many processes torchrun started; rank zero saves the parameters of each case.

python -m torch.distributed.run --nproc_per_node 2 -m tests.distributed.worker FOLDER CASES, with CASES as JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch

from segzoo.methods import metapix
from tests import tiny


def train(case: dict[str, Any], out: Path) -> None:
    """Three steps on four images per domain, however many processes share them."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    # The mistake that a test wants to see noticed: every rank with its own g and v.
    average = metapix.average_gradients
    metapix.average_gradients = (lambda gradients: gradients) if case.get("forget_to_average") else average
    L.seed_everything(0, verbose=False)
    trained = tiny.method(case["slug"], **case["options"])
    strategy = "ddp" if world > 1 else "auto"
    trainer = tiny.trainer(3, precision=case["precision"], devices=world, strategy=strategy)
    trainer.fit(trained, datamodule=tiny.data(batch_size=4 // world))
    metapix.average_gradients = average
    if trainer.is_global_zero:
        torch.save({name: p.detach() for name, p in trained.named_parameters()}, out)


def main(folder: str, cases: str) -> None:
    """All cases, one file each."""
    torch.set_num_threads(1)
    for name, case in json.loads(cases).items():
        train(case, Path(folder) / f"{name}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
