"""What a step costs in every stage of MetaPix, in steps of `joint`, as processor time: other programs may run beside it.

OMP_NUM_THREADS=1 python -m tests.benchmarks.stages [--size 96] [--steps 6] [--rounds 2] [--json FILE]
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch

from segzoo.data import MiniCity
from tests import tiny

NETWORK = {"architecture": "deeplabv3plus", "encoder": "resnet18", "encoder_weights": None, "options": None}
WARMUP = 2


class Clock(L.Callback):
    """Seconds of processor time of each step, without those of its data and its optimiser's start."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.begin = time.process_time()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds.append(time.process_time() - self.begin)


def seconds(slug: str, size: int, steps: int, **options: Any) -> float:
    """Those of a step, the median of ``steps`` behind the first ones."""
    clock = Clock()
    L.seed_everything(0, verbose=False)
    domains = {d: MiniCity(d, train=8, val=2, test=3, size=(size, size)) for d in ("source", "target")}
    trainer = tiny.trainer(WARMUP + steps, callbacks=[clock], log_every_n_steps=1000)
    trainer.fit(tiny.method(slug, network=NETWORK, **options), datamodule=tiny.data(size=(size, size), **domains))
    return median(clock.seconds[WARMUP:])


def main() -> None:
    """Prints a row per stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option, default in (("--size", 96), ("--steps", 6), ("--rounds", 2)):
        parser.add_argument(option, type=int, default=default)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    total = WARMUP + args.steps
    rows: dict[str, dict[str, Any]] = {
        "every step": {},
        "stage joint": {"stages": {"joint": total - 1, "weights": 1}},
        "stage weights": {"stages": {"weights": total}},
        "stage segmenter": {"stages": {"weights": 1, "segmenter": total - 1}},
    }
    ratios: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(args.rounds):
        joint = seconds("joint", args.size, args.steps)
        for name, options in rows.items():
            ratios[name].append(seconds("metapix", args.size, args.steps, weight_width=8, **options) / joint)
    for name, found in ratios.items():
        print(f"{name:16} {median(found):.2f} joint steps, {min(found):.2f} to {max(found):.2f}")
    if args.json:
        settings = vars(args) | {"json": None, "torch": torch.__version__}
        args.json.write_text(json.dumps({"settings": settings, **ratios}, indent=2) + "\n")


if __name__ == "__main__":
    main()
