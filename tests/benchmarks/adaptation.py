"""What a step of the adaptation methods costs, in joint steps and in forward passes of the same batch, and its peak memory.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.adaptation [--architecture deeplabv2] [--encoder resnet18] [--size 192]
    python -m tests.benchmarks.adaptation --device cuda --variants bf16,bf16/channels-last,32 --encoder resnet50 --size 512

A supervised step (`source-only`: one forward and one backward pass) is three units. All rows take their steps in turn in one
process, through the real training loop, on one batch in memory; the median of the rounds counts. Without balanced crops a
target image has the size of a source image, so that all passes are alike. Peak memory counts from an idle process, and on CUDA
only: that of a CPU's process holds what rows before left.
"""

import argparse
import gc
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from segzoo.bench.costs import MIB
from segzoo.bench.measure import TRAINER_PRECISION
from segzoo.bench.meter import Meter
from segzoo.bench.problem import create_batch, create_method
from segzoo.bench.rows import LR, Row, Task
from segzoo.data.streams import Batch, Stream
from segzoo.errors import SegzooError
from segzoo.runtime.quiet import be_quiet
from tests import tiny

CONTRAST = {"contrast_start": 0, "pseudo": {"threshold": 0.0}}
# The projections as published for either network.
PROJECTIONS = {
    "deeplabv2": {"projection_input": "last"},
    "daformer": {"projection_input": "fuse", "projection_hidden": 256},
}
UNIT, JOINT = "source-only", "joint"
ROWS = {
    UNIT: Row("source-only"),
    JOINT: Row("joint"),
    "maxsquare": Row("maxsquare"),
    "self-training": Row("self-training", {"pseudo": {"threshold": 0.0}}),
    "sepico/proto": Row("sepico", CONTRAST | {"contrast": "proto"}),
    "sepico/bank": Row("sepico", CONTRAST | {"contrast": "bank"}),
    "sepico/dist": Row("sepico", CONTRAST | {"contrast": "dist"}),
    "sepico/dist, fast": Row("sepico", CONTRAST | {"contrast": "dist", "fast": True}),
    "ssda": Row("ssda", {"pseudo": {"threshold": 0.0}}),
    "semi-supervised": Row("semi-supervised", {"pseudo": {"threshold": 0.0}}),
    "gradient-annotator": Row("gradient-annotator", {"annotator_lr": LR}),
}
PUBLISHED = "sepico, the authors' passes: 4 teacher, 3 student"
CHANNELS_LAST = "channels-last"
WARMUP = 2
"""Before the second step memory is counted; in it, gradients are overwritten."""


class Clock(L.Callback):
    """The seconds of each step after the warm-up, until the device is done, and the peak of its memory."""

    def __init__(self, device: torch.device) -> None:
        self.meter = Meter(device, WARMUP, self._drop_gradients)
        self._method: L.LightningModule | None = None

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self._method = pl_module
        self.meter.begin(trainer.fit_loop.total_batch_idx)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.meter.end(trainer.fit_loop.total_batch_idx)

    def _drop_gradients(self) -> None:
        assert self._method is not None
        self._method.zero_grad()


@dataclass
class Cost:
    """What was measured of a row: the seconds of its steps, and its peak where it can be counted."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None


def measure(task: Task, row: Row, count: int) -> Cost:
    """So many steps of a row after the warm-up."""
    device = torch.device(task.device)
    clock, method = Clock(device), create_method(task, row)
    batch = {name: images_of(create_batch(task, device), stream) for name, stream in method.streams.items()}
    steps = WARMUP + count
    trainer = tiny.trainer(
        steps,
        callbacks=[clock],
        accelerator="gpu" if device.type == "cuda" else "cpu",
        precision=TRAINER_PRECISION[task.precision],
    )
    trainer.fit(method, train_dataloaders=DataLoader([batch] * steps, batch_size=None))  # type: ignore[arg-type]
    return Cost(clock.meter.seconds, clock.meter.peak_bytes if device.type == "cuda" else None)


def images_of(batch: dict[str, Batch], stream: Stream) -> Batch:
    """A stream's part of the batch: a method that asks for no labels gets none."""
    return {name: value for name, value in batch[stream.domain].items() if stream.labelled or name != "label"}


def variant(task: Task, row: Row, name: str) -> tuple[Task, Row]:
    """Of ``PRECISION`` or ``PRECISION/channels-last``."""
    precision, _, layout = name.partition("/")
    if layout not in ("", CHANNELS_LAST):
        raise SystemExit(f"--variants {name}: expected a precision, or one with /{CHANNELS_LAST}")
    speed = {"channels_last": True} if layout else {}
    if row.method == "sepico":
        row = replace(row, options={**row.options, **PROJECTIONS.get(task.architecture, {})})
    return replace(task, precision=precision), replace(row, speed=speed)


def measure_rows(task: Task, name: str, rows: Sequence[str], rounds: int, steps: int) -> dict[str, Cost | str]:
    """The rows of a variant; one that cannot be measured has the reason instead."""
    costs: dict[str, Cost | str] = {row: Cost() for row in rows}
    for _ in range(rounds):
        for row in rows:
            cost = costs[row]
            if isinstance(cost, str):
                continue
            try:
                found = measure(*variant(task, ROWS[row], name), steps)
                cost.seconds += found.seconds
                cost.peak_bytes = cost.peak_bytes or found.peak_bytes
            except (SegzooError, RuntimeError) as error:
                costs[row] = str(error).partition("\n")[0]
            gc.collect()  # a trainer and its networks hold each other
            if task.device != "cpu":
                torch.cuda.empty_cache()
    return costs


def report(costs: dict[str, Cost | str]) -> dict[str, Any]:
    """Prints the table, and returns it for a JSON file."""
    middle = {name: median(cost.seconds) for name, cost in costs.items() if isinstance(cost, Cost)}
    found: dict[str, Any] = {}
    for name, cost in costs.items():
        if isinstance(cost, str):
            print(f"  {name:20} {cost}")
            found[name] = {"failed": cost}
            continue
        values = sorted(cost.seconds)
        low, high = values[len(values) // 4], values[3 * len(values) // 4]
        units, joint = (middle[name] / middle[of] if of in middle else None for of in (UNIT, JOINT))
        peak = None if cost.peak_bytes is None else cost.peak_bytes / MIB
        print(
            f"  {name:20} {middle[name]:7.3f} s ({low:.3f}-{high:.3f})"
            + ("" if units is None else f"  {3 * units:5.1f} units")
            + ("" if joint is None else f"  {joint:5.2f} joint steps")
            + ("" if peak is None else f"  {peak:7.0f} MiB"),
        )
        found[name] = {"seconds": middle[name], "quartiles": [low, high], "joint_steps": joint, "peak_mib": peak}
    return found


def main() -> None:
    """Measures and prints, and writes what there is after each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="deeplabv2")
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--variants", default="32", help="precisions 32 and bf16, or bf16/channels-last, by commas")
    parser.add_argument("--rows", default=";".join(ROWS), help="separated by semicolons")
    parser.add_argument("--json", type=Path)
    for name, default in (("size", 192), ("batch", 2), ("rounds", 5), ("steps", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    be_quiet()
    task = Task(
        "",
        args.architecture,
        args.encoder,
        (args.size, args.size),
        args.batch,
        "32",
        args.device,
        1,
        WARMUP,
        args.steps,
    )
    cuda = args.device != "cpu"
    if not cuda:
        torch.set_num_threads(1)
    where = torch.cuda.get_device_name() if cuda else "one thread"
    print(f"{args.architecture} on {args.encoder}, {args.batch} x {args.size}x{args.size} per domain, {where}")
    settings = vars(args) | {"json": None, "where": where, "torch": torch.__version__}
    found: dict[str, Any] = {"settings": settings}
    for name in args.variants.split(","):
        print(f"{name}:", flush=True)
        found[name] = report(measure_rows(task, name, args.rows.split(";"), args.rounds, args.steps))
        if args.json:
            args.json.write_text(json.dumps(found, indent=2) + "\n")
    print(f"  {PUBLISHED}: 13 units")


if __name__ == "__main__":
    main()
