"""What the processes of a distributed step send each other, and how long the step takes beside one without.

    python -m torch.distributed.run --nproc_per_node 2 -m tests.benchmarks.reductions --encoder resnet50 --size 64
    python -m tests.benchmarks.reductions --device cuda --encoder resnet50 --size 512 --precision bf16      world size 1, NCCL

Bytes are those of a step and a process: the buckets of DistributedDataParallel, the collectives of `segzoo.distributed`, and
the buffers that are broadcast. They depend on the network alone, not on the device or the size of the images. With one process
nothing but DDP's buckets is reduced, so that its seconds show what DDP itself costs, and two processes show the bytes.
"""

import argparse
import json
import os
import socket
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from segzoo.bench.costs import MIB
from segzoo.bench.measure import train
from segzoo.bench.meter import Meter
from segzoo.bench.rows import ROWS, Task
from segzoo.errors import SegzooError
from segzoo.runtime.quiet import be_quiet

WARMUP = 4
"""DDP makes its buckets anew after the first step, and a graph is captured in the third."""
GRADIENTS, OWN, BUFFERS = "DDP's gradients", "segzoo.distributed", "broadcast buffers"


class Counts(L.Callback):
    """Counts the bytes of the measured steps, and times them."""

    def __init__(self, device: torch.device) -> None:
        self.meter = Meter(device, WARMUP, lambda: None)
        self.bytes: dict[str, list[int]] = defaultdict(list)
        self.parameters = 0
        self._step, self._in_hook = 0, False

    def add(self, kind: str, tensors: Any) -> None:
        """Tensors that a collective of a measured step sends."""
        if self._step >= WARMUP and not self._in_hook:
            self.bytes[kind].append(sum(t.numel() * t.element_size() for t in tensors))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.parameters = sum(p.numel() * p.element_size() for p in pl_module.parameters() if p.requires_grad)
        model = trainer.strategy.model
        if isinstance(model, DistributedDataParallel):
            model.register_comm_hook(dist.group.WORLD, self._reduce)

    def _reduce(self, group: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        self.add(GRADIENTS, [bucket.buffer()])
        self._in_hook = True  # it calls what is watched, too
        try:
            return allreduce_hook(group, bucket)
        finally:
            self._in_hook = False

    def on_train_batch_start(self, *_: Any) -> None:
        self.meter.begin(self._step)

    def on_train_batch_end(self, *_: Any) -> None:
        self.meter.end(self._step)
        self._step += 1

    def watched(self, kind: str, function: Callable[..., Any], argument: int) -> Callable[..., Any]:
        """A collective that is counted by its argument, a tensor or some."""

        def counting(*args: Any, **kwargs: Any) -> Any:
            value = args[argument]
            self.add(kind, [value] if isinstance(value, torch.Tensor) else value)
            return function(*args, **kwargs)

        return counting


def run(task: Task, distributed: bool) -> Counts:
    """A row's steps, alone or under DDP."""
    device = torch.device(task.device)
    counts = Counts(device)
    world = int(os.environ["WORLD_SIZE"])
    options: dict[str, Any] = {"strategy": "ddp", "devices": world} if distributed else {"devices": 1}
    with ExitStack() as stack:
        for owner, name, kind, argument in (
            (dist, "all_reduce", OWN, 0),
            (dist, "all_gather", OWN, 1),
            (dist, "_broadcast_coalesced", BUFFERS, 1),
        ):
            function = counts.watched(kind, getattr(owner, name), argument)
            stack.enter_context(patch.object(owner, name, function))
        train(task, ROWS[task.row], device, counts, WARMUP + task.steps, **options)
    return counts


def measure(task: Task) -> dict[str, Any]:
    """A row alone and under DDP."""
    alone = run(task, distributed=False)
    both = run(task, distributed=True)
    sent = {kind: sum(values) / task.steps for kind, values in both.bytes.items()}
    return {
        "alone_seconds": median(alone.meter.seconds),
        "seconds": median(both.meter.seconds),
        "gradient_bytes": both.parameters,
        "bytes": sent,
        "collectives": {kind: len(values) / task.steps for kind, values in both.bytes.items()},
        "reduced_gradients": sum(sent.get(kind, 0.0) for kind in (GRADIENTS, OWN)) / both.parameters,
    }


def report(name: str, found: dict[str, Any]) -> None:
    """A line of the table."""
    parts = [
        f"{kind} {found['bytes'][kind] / MIB:.1f} MiB in {found['collectives'][kind]:.0f}" for kind in found["bytes"]
    ]
    print(
        f"  {name:20} {1000 * found['seconds']:7.1f} ms, alone {1000 * found['alone_seconds']:7.1f} ms; reduced: "
        f"{found['reduced_gradients']:.2f} x the gradient ({found['gradient_bytes'] / MIB:.1f} MiB); {'; '.join(parts)}",
        flush=True,
    )


def main() -> None:
    """Measures, prints on the first process, and writes after each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    for name, default in (
        ("rows", "joint,metapix/sequential"),
        ("architecture", "deeplabv3plus"),
        ("encoder", "resnet18"),
        ("precision", "32"),
        ("device", "cpu"),
    ):
        add(f"--{name}", default=default)
    for name, count in (("size", 64), ("batch", 2), ("steps", 6)):
        add(f"--{name}", type=int, default=count)
    add("--json", type=Path)
    args = parser.parse_args()
    be_quiet()
    size = (args.size, args.size)
    tasks = [
        Task(row, args.architecture, args.encoder, size, args.batch, args.precision, args.device, None, 0, args.steps)
        for row in args.rows.split(",")
    ]
    environment = {} if "RANK" in os.environ else world_of_one()
    with patch.dict(os.environ, environment):
        measure_all(tasks, vars(args), args.json)


def world_of_one() -> dict[str, str]:
    """What torchrun would say to the only process of a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    return ranks | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}


def measure_all(tasks: list[Task], settings: dict[str, Any], file: Path | None) -> None:
    """Prints a line per row on the first process, and writes after each."""
    first, world = os.environ["RANK"] == "0", int(os.environ["WORLD_SIZE"])
    found: dict[str, Any] = {"settings": settings | {"json": None, "world": world, "torch": torch.__version__}}
    if first:
        one = tasks[0]
        print(f"{one.architecture} on {one.encoder}, precision {one.precision}, {one.device}, {world} processes")
    for task in tasks:
        row = task.row
        try:
            found[row] = measure(task)
        except (SegzooError, RuntimeError) as error:
            found[row] = {"failed": str(error).partition("\n")[0]}
        if first:
            if "failed" in found[row]:
                print(f"  {row:20} {found[row]['failed']}")
            else:
                report(row, found[row])
            if file:
                file.write_text(json.dumps(found, indent=2) + "\n")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
