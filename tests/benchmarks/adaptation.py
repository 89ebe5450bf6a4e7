"""What a step of the adaptation methods costs, in forward passes of the same batch.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.adaptation [--architecture deeplabv2] [--encoder resnet18] [--size 192]

A supervised step (`source-only`: one forward and one backward pass) is three units. All rows take their steps in turn in one
process, through the real training loop, on one batch in memory; the median of the rounds counts. Without balanced crops a
target image has the size of a source image, so that all passes are alike.
"""

import argparse
import time
from statistics import median
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from segzoo.bench.problem import create_batch, create_method
from segzoo.bench.rows import Row, Task
from segzoo.runtime.quiet import be_quiet
from tests import tiny

CONTRAST = {"contrast_start": 0, "pseudo": {"threshold": 0.0}}
# The projections as published for either network.
PROJECTIONS = {
    "deeplabv2": {"projection_input": "last"},
    "daformer": {"projection_input": "fuse", "projection_hidden": 256},
}
ROWS = {
    "source-only": Row("source-only"),
    "maxsquare": Row("maxsquare"),
    "self-training": Row("self-training", {"pseudo": {"threshold": 0.0}}),
    "sepico/proto": Row("sepico", CONTRAST | {"contrast": "proto"}),
    "sepico/bank": Row("sepico", CONTRAST | {"contrast": "bank"}),
    "sepico/dist": Row("sepico", CONTRAST | {"contrast": "dist"}),
    "sepico/dist, fast": Row("sepico", CONTRAST | {"contrast": "dist", "fast": True}),
}
PUBLISHED = "sepico, the authors' passes: 4 teacher, 3 student"


class Clock(L.Callback):
    """The seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def steps(task: Task, row: Row, count: int) -> list[float]:
    clock = Clock()
    method = create_method(task, row)
    batch = {name: dict(images) for name, images in create_batch(task, torch.device("cpu")).items()}
    del batch["target"]["label"]
    trainer = tiny.trainer(count + 1, callbacks=[clock])
    images = {name: batch[name] for name in method.streams}
    trainer.fit(method, train_dataloaders=DataLoader([images] * (count + 1), batch_size=None))  # type: ignore[arg-type]
    return clock.seconds[1:]  # the first one warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="deeplabv2")
    parser.add_argument("--encoder", default="resnet18")
    for name, default in (("size", 192), ("batch", 2), ("rounds", 5), ("steps", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    be_quiet()
    nothing = {"threads": 1, "warmup": 0, "steps": 0, "start": "", "result": "", "gradient": "", "peers": ""}
    task = Task("", args.architecture, args.encoder, (args.size, args.size), args.batch, "32", "cpu", **nothing)  # type: ignore[arg-type]
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in ROWS}
    for _ in range(args.rounds):
        for name, row in ROWS.items():
            if row.method == "sepico":
                row = Row(row.method, {**row.options, **PROJECTIONS.get(args.architecture, {})})
            seconds[name] += steps(task, row, args.steps)
    unit = median(seconds["source-only"]) / 3
    print(f"{args.architecture} on {args.encoder}, {args.batch} x {args.size}x{args.size} per domain, one thread")
    for name, values in seconds.items():
        low, high = sorted(values)[len(values) // 4], sorted(values)[3 * len(values) // 4]
        print(f"  {name:20} {median(values):7.3f} s ({low:.3f}-{high:.3f})  {median(values) / unit:5.1f} units")
    print(f"  {PUBLISHED}: 13 units")


if __name__ == "__main__":
    main()
