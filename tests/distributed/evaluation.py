"""Scores few images on however many processes torchrun started; rank zero writes what came out as JSON.

python -m torch.distributed.run --nproc_per_node 2 -m tests.distributed.evaluation FILE
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from segzoo.data import MiniCity
from tests import tiny

CASES: dict[str, dict[str, Any]] = {
    "one image": {"images": 1},
    "three images": {"images": 3},
    "three images, one by one": {"images": 3, "eval_batch_size": 1},
    "with a teacher": {"images": 1, "slug": "self-training"},
    "two batches": {"images": 5, "eval_batch_size": 2, "trainer": {"limit_val_batches": 2, "limit_test_batches": 1}},
    "half of the batches": {"images": 4, "eval_batch_size": 1, "trainer": {"limit_test_batches": 0.5}},
    "a dry run": {"images": 3, "trainer": {"fast_dev_run": 1}},
    "windows": {
        "images": 3,
        "eval_batch_size": 2,
        "protocol": {"input": "native", "window": (24, 40), "overlap": 0.5, "flips": True, "scales": (0.75, 1.0)},
    },
    "windows, limited": {
        "images": 3,
        "protocol": {"window": (24, 40)},
        "trainer": {"limit_test_batches": 2},
    },
}


def score(case: dict[str, Any], world: int) -> dict[str, Any]:
    """Validation while training and of its own, and a test."""
    case = dict(case)
    count, options, slug = case.pop("images"), case.pop("trainer", {}), case.pop("slug", "joint")
    target = MiniCity("target", train=8, val=count, test=count, size=tiny.SIZE)
    data = tiny.data(target=target, batch_size=4 // world, **case)
    strategy = "ddp" if world > 1 else "auto"
    settings = {
        "limit_val_batches": 1.0,
        "val_check_interval": 1,
        "check_val_every_n_epoch": None,
        "precision": "64-true",
    }
    trainer = tiny.trainer(1, **(settings | options), devices=world, strategy=strategy)
    method = tiny.method(slug, norm="frozen")
    found = {}
    trainer.fit(method, datamodule=data)
    for name, run in (("fit", None), ("validate", trainer.validate), ("test", trainer.test)):
        if run is not None:
            run(method, datamodule=data, verbose=False)
        assert method.scores is not None
        own = ("val/", "test/", "pseudo/precision")
        logged = {key: float(value) for key, value in trainer.logged_metrics.items() if key.startswith(own)}
        found[name] = {
            "images": method.scored_images,
            "confusion": method.scores.to_dict()["confusion"],
            "logged": logged,
        }
    return found


def main(path: str) -> None:
    """All cases."""
    torch.set_num_threads(1)
    world = int(os.environ.get("WORLD_SIZE", 1))
    found = {name: score(case, world) for name, case in CASES.items()}
    if int(os.environ.get("RANK", 0)) == 0:
        Path(path).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
