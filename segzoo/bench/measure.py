"""The measuring process: ``python -m segzoo.bench.measure TASK`` runs one row and writes what it found.

When all is imported and the device is ready, and before every measured step (or period of steps), it writes a line, `WAITS`,
and reads one: so the steps of several processes take turns. It ends where its standard input does: nobody waits for it then.
"""

import gc
import json
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

import segzoo
from segzoo.bench.meter import Meter
from segzoo.bench.peers import load_peers
from segzoo.bench.problem import create_batch, create_method, create_problem, write_start
from segzoo.bench.rows import SUITES, WAITS, Row, Task
from segzoo.data.streams import Batch
from segzoo.errors import ConfigError, SegzooError
from segzoo.runtime.device import find_device
from segzoo.runtime.memory import keep_freed_memory
from segzoo.runtime.quiet import be_quiet

TRAINER_PRECISION = {"64": "64-true", "32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def main(argv: Sequence[str]) -> int:
    """Measures one task; errors of the user and a lack of memory are results, too."""
    write_result(Task.from_json(argv[0]), _wait)
    return 0


def write_result(task: Task, wait: Callable[[], None] = lambda: None) -> None:
    """Measures a task, see `measure`, and writes what it found, or why it could not, to its file."""
    be_quiet()
    keep_freed_memory()  # as in `segzoo fit`
    try:
        result = measure(task, wait)
    except SegzooError as error:
        result = {"error": str(error)}
    except torch.OutOfMemoryError:
        result = {"failed": "out of memory"}
    gc.collect()  # a trainer and its networks hold each other, and the next row may be measured in this process
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    Path(task.result).write_text(json.dumps(result))


def _wait() -> None:
    print(f"\n{WAITS}", flush=True)
    if not sys.stdin.readline():
        raise SystemExit("segzoo bench has ended")


def measure(task: Task, wait: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Runs the warm-up and the measured steps of one row.

    Args:
        task: what to run.
        wait: called before anything runs, and before every measured period of steps.

    Returns:
        ``seconds`` of the steps (each the mean over the row's period), ``peak_bytes`` above idle, ``environment``.

    Raises:
        ConfigError: an unknown device, or a precision that the row does not know there.
    """
    device = _prepare(task)
    wait()
    if not Path(task.start).is_file():
        write_start(task, device)
    row = SUITES[task.suite].rows.get(task.row)
    if row is not None:
        meter, gradient = _run_own(task, row, device, wait)
    else:
        meter, gradient = _run_peer(task, device, wait)
    if gradient is not None and task.gradient:
        np.save(task.gradient, gradient.double().cpu().numpy())
    period = row.period if row else 1
    seconds = np.array(meter.seconds).reshape(-1, period).mean(1).tolist()
    return {"seconds": seconds, "peak_bytes": meter.peak_bytes, "environment": _environment(device)}


def _prepare(task: Task) -> torch.device:
    device = find_device(task.device)
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {task.device}: steps are measured on cpu or cuda")
    if task.precision == "16" and device.type == "cpu":
        raise ConfigError("precision 16 needs a CUDA device; a CPU has 32 and bf16")
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    if task.threads:
        torch.set_num_threads(task.threads)
    return device


class _Watch(L.Callback):
    """Measures the steps of a trainer and keeps the first step's gradient of one of the method's networks."""

    def __init__(self, device: torch.device, warmup: int, network: str, period: int, wait: Callable[[], None]) -> None:
        self.meter = Meter(device, warmup, self._drop_gradients, period, wait)
        self.network = network
        self.gradient: Tensor | None = None
        self._optimizers: list[Optimizer] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._optimizers = trainer.optimizers

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.meter.begin(batch_idx)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.meter.end(batch_idx)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        network = getattr(pl_module, self.network, None)
        if trainer.global_step == 0 and isinstance(network, torch.nn.Module):
            self.gradient = _flat([p.grad for p in network.parameters() if p.grad is not None])

    def _drop_gradients(self) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad()


def _run_own(task: Task, row: Row, device: torch.device, wait: Callable[[], None]) -> tuple[Meter, Tensor | None]:
    watch = _Watch(device, task.warmup, SUITES[task.suite].network, row.period, wait)
    train(task, row, device, watch, task.warmup + task.steps)
    return watch.meter, watch.gradient


def train(task: Task, row: Row, device: torch.device, callback: L.Callback, steps: int, **trainer_options: Any) -> None:
    """The real training loop on one batch in memory: trainer, hooks, logging and all."""
    options: dict[str, Any] = {
        "accelerator": "gpu" if device.type == "cuda" else "cpu",
        "devices": 1 if device.index is None or device.type == "cpu" else [device.index],
        "precision": TRAINER_PRECISION[task.precision],
        "max_steps": steps,
        "callbacks": [callback],
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        "use_distributed_sampler": False,
    }
    trainer = L.Trainer(**(options | trainer_options))
    method = create_method(task, row)
    images = create_batch(task, device)
    batch: dict[str, Batch] = {name: images[name] for name in method.streams}
    trainer.fit(method, train_dataloaders=DataLoader([batch] * steps, batch_size=None))  # type: ignore[arg-type]


def _run_peer(task: Task, device: torch.device, wait: Callable[[], None]) -> tuple[Meter, Tensor | None]:
    """A bare loop around the adapter's step."""
    if task.precision not in ("32", "bf16"):
        raise ConfigError(f"precision {task.precision}: the peers know 32 and bf16; leave them out of the rows")
    suite = SUITES[task.suite]
    problem = create_problem(task, suite.rows[suite.reference], device)

    def drop_gradients() -> None:
        for network in (problem.segmenter, problem.weighting):
            network.zero_grad()

    meter = Meter(device, task.warmup, drop_gradients, wait=wait)
    step = load_peers(Path(task.peers or ""))[task.row].build(problem)
    first = None
    for i in range(task.warmup + task.steps):
        meter.begin(i)
        gradient = step()
        meter.end(i)
        if first is None:
            first = _flat(gradient)
        del gradient
    return meter, first


def _flat(tensors: Sequence[Tensor]) -> Tensor | None:
    return torch.cat([t.detach().reshape(-1) for t in tensors]) if tensors else None


def _environment(device: torch.device) -> dict[str, Any]:
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else _processor(),
        "torch": torch.__version__,
        "lightning": L.__version__,
        "segzoo": segzoo.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "tf32": cuda and torch.backends.cudnn.allow_tf32,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
