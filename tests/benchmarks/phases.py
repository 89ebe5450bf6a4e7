"""Where the time of a whole training step goes, phase by phase; on CUDA, also how much of it the device computes.

python -m tests.benchmarks.phases [--rows joint,metapix/sequential] [--architecture segformer --encoder mit_b2]
    [--size 512 512] [--batch 4] [--weight_width 16] [--precision bf16] [--device cuda] [--steps 10] [--kernels 8]

A step is that of `segzoo bench bilevel`: trainer, hooks and logging included. On CUDA a phase lasts from the moment that the
device reaches it to the moment that the device leaves it, and "busy" is the time that its kernels take: where the two part, the
device waits for Python to launch them.
"""

import argparse
import functools
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile

from segzoo.bench.measure import train
from segzoo.bench.rows import ROWS, WEIGHT_WIDTH, Task
from segzoo.bilevel import engines
from segzoo.methods.meta_update import MetaUpdate
from segzoo.runtime.memory import keep_freed_memory
from segzoo.runtime.quiet import be_quiet

PHASES: dict[str, tuple[Any, str]] = {
    "weight network, forward": (MetaUpdate, "_raw_weights"),
    "source, forward and backward": (engines, "_source_gradient"),
    "target, forward and backward": (engines, "_target_gradient"),
    "dual forward": (engines, "unit_jvp"),
    "backward of the loss": (L.LightningModule, "backward"),
    "optimiser": (sys.modules["torch.optim.adam"], "adam"),
}
WARMUP = 4


class Clock:
    """Moments on the device's time line."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, first: Any, last: Any) -> float:
        """Milliseconds."""
        return float(first.elapsed_time(last)) if self.cuda else 1000 * (last - first)


class Steps(L.Callback):
    """Keeps the moments of the measured steps, and profiles the last one on CUDA."""

    def __init__(self, clock: Clock, steps: int) -> None:
        self.clock, self.last = clock, WARMUP + steps
        self.moments: dict[str, list[tuple[int, Any, Any]]] = defaultdict(list)
        self.step, self.profile = 0, profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])

    def around(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            first = self.clock.now()
            try:
                return function(*args, **kwargs)
            finally:
                self.moments[label].append((self.step, first, self.clock.now()))

        return measured

    def on_train_batch_start(self, *_: Any) -> None:
        self.start = self.clock.now()
        if self.clock.cuda and self.step == self.last:
            torch.cuda.synchronize()
            self.profile.start()

    def on_train_batch_end(self, *_: Any) -> None:
        if self.clock.cuda and self.step == self.last:
            torch.cuda.synchronize()
            self.profile.stop()
        self.moments["step"].append((self.step, self.start, self.clock.now()))
        self.step += 1

    def milliseconds(self, label: str) -> float:
        """Median over the measured steps of what the phase took in each."""
        if self.clock.cuda:
            torch.cuda.synchronize()
        total: dict[int, float] = defaultdict(float)
        for step, first, last in self.moments[label]:
            if WARMUP <= step < self.last:
                total[step] += self.clock.between(first, last)
        return median(total.values()) if total else 0.0


def run(task: Task) -> Steps:
    device = torch.device(task.device)
    steps = Steps(Clock(device), task.steps)
    with ExitStack() as stack:
        for label, (owner, name) in PHASES.items():
            stack.enter_context(patch.object(owner, name, steps.around(label, getattr(owner, name))))
        train(task, ROWS[task.row], device, steps, steps.last + 1)
    return steps


def report(task: Task, kernels: int) -> None:
    steps = run(task)
    whole = steps.milliseconds("step")
    print(f"\n{task.row}, {task.architecture} on {task.encoder}, precision {task.precision}: {whole:.1f} ms")
    rest = whole
    for label in PHASES:
        own = steps.milliseconds(label)
        rest -= own
        print(f"  {label:30} {own:8.1f} ms  {own / whole:5.0%}")
    print(f"  {'the rest':30} {rest:8.1f} ms  {rest / whole:5.0%}")
    if steps.clock.cuda:
        events = [event for event in steps.profile.events() if event.device_type.name == "CUDA"]
        found = [event for event in events if not event.is_user_annotation]
        spent: dict[str, list[float]] = defaultdict(list)
        for event in found:
            spent[event.name].append(event.device_time / 1000)
        busy = sum(map(sum, spent.values()))
        print(f"  busy {busy:.1f} ms with {len(found)} kernels; the longest:")
        for name in sorted(spent, key=lambda name: -sum(spent[name]))[:kernels]:
            print(f"  {sum(spent[name]):8.2f} ms  {len(spent[name]):5} x  {name[:110]}")


def main() -> None:
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
    add("--size", type=int, nargs=2, default=(192, 192))
    for name, count in (("batch", 2), ("steps", 10), ("kernels", 8), ("weight_width", WEIGHT_WIDTH)):
        add(f"--{name}", type=int, default=count)
    args = parser.parse_args()
    be_quiet()
    keep_freed_memory()
    settings = vars(args) | {"size": tuple(args.size), "threads": None, "warmup": WARMUP}
    rows, kernels = settings.pop("rows"), settings.pop("kernels")
    with TemporaryDirectory() as folder:
        for row in rows.split(","):
            report(Task(row, start=str(Path(folder) / "start.pt"), **settings), kernels)


if __name__ == "__main__":
    main()
