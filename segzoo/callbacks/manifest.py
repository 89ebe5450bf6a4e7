"""The manifest of a run: enough to say later where a number came from."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

import segzoo
from segzoo.callbacks.report import run_protocol
from segzoo.callbacks.shown import Shown
from segzoo.configs import config_text
from segzoo.files import named_errors, write_text
from segzoo.stopping import Stopped

PACKAGES = (
    "torchvision",
    "lightning",
    "torchmetrics",
    "segmentation-models-pytorch",
    "timm",
    "albumentations",
    "numpy",
)
LOGGED = ("segzoo", "git", "python", "packages", "device", "resources")
"""What a logger with ``log_record`` gets of the record."""
BLOCK = 4096
SECRET = re.compile(r"(?i)(key|token|secret|passw\w*)")


class RunManifest(L.Callback):
    """Writes ``<run_dir>/manifest.json`` when a run starts, when training ends, after a test, and on failure.

    ``config.yaml`` is written with it, when the module has a ``run_config``. A folder that holds a run already keeps
    that run's record until there is something new: a resumed training's first step, or a test that starts.

    A resumed run keeps the first start and command; the later ones are listed in ``resumed``. Where the folder was removed or
    renamed during the run, both files are written again with the next checkpoint.

    Args:
        run_dir: the run folder.
        changed: options that differ from those of the checkpoint, before and now: ``{"trainer.max_steps": (400, 800)}``.
    """

    def __init__(self, run_dir: str | Path, changed: Mapping[str, tuple[Any, Any]] | None = None) -> None:
        self.path = Path(run_dir) / "manifest.json"
        self.changed = {name: list(values) for name, values in (changed or {}).items()}
        self.content: dict[str, Any] = {}
        self._images = 0
        self._first_step = 0
        self._started = 0.0
        self._begun = False
        self._writes = False
        self._config: dict[str, Any] | None = None

    @property
    def trained(self) -> bool:
        """Whether training began in this process."""
        return self._started > 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Says what runs, once per process: the test after a training belongs to the same run."""
        self._writes = trainer.is_global_zero
        if not self.content:
            self.content = {"status": "running", "stage": stage, **_environment(trainer, pl_module)}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Adds the data; the clock starts here, after loading."""
        self._started, self._first_step, self._images = time.monotonic(), trainer.global_step, 0
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(trainer.strategy.root_device)
        self.content |= {
            "resumed_at_step": None,
            "data": _data(trainer),
            "resources": cast(Shown, pl_module).learned_from,
            "sources": cast(Shown, pl_module).sources,
        }
        for logger in trainer.loggers:
            taker: Any = logger
            if hasattr(taker, "log_record"):
                taker.log_record({name: self.content[name] for name in LOGGED})
        if trainer.global_step:
            self._continue(trainer.global_step)
        else:
            self._begin(trainer, pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A test needs no training before it. The record of a training that had come to its end stays: only scores are new.

        How the test of an earlier start ended, which was interrupted or failed, no longer counts.
        """
        if self.content["stage"] == "fit" and not self.trained and self.path.is_file():
            self.content, self._begun = json.loads(self.path.read_text()), True
            trained = self.content.get("training", {}).get("steps", 0) >= self.content.get("max_steps", 0)
            if trained and self.content["status"] != "finished":
                self.content["status"] = "running"
                self.content.pop("error", None)
        self._begin(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins the file when the command is a validation; one within a training changes nothing."""
        if trainer.state.fn == "validate":
            self._begin(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts images."""
        self._images += _images(batch)
        self._begin(trainer, pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """A checkpoint never lies in a folder without its record."""
        if not self.path.is_file():
            self._write()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Adds time, speed and memory."""
        done = trainer.max_steps == -1 or trainer.global_step >= trainer.max_steps
        self._finish_training(trainer, "finished" if done else "stopped")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Adds the scores and their protocol."""
        self._add_scores(trainer, pl_module, "test")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same for ``segzoo validate``; validations during training are in ``metrics.csv``."""
        if trainer.state.fn == "validate":
            self._add_scores(trainer, pl_module, "val")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Says why the run ended."""
        stopped = isinstance(exception, KeyboardInterrupt | SIGTERMException | Stopped)
        if not stopped:
            self.content["error"] = f"{type(exception).__name__}: {exception}"
        try:
            self._finish_training(trainer, "stopped" if stopped else "failed")
        except OSError as error:
            if not isinstance(exception, OSError):  # the same disk: what stopped the run is said already
                raise error from exception

    def note(self, error: Exception) -> None:
        """Writes down what ended the run, where :meth:`on_exception` has not."""
        with suppress(OSError, ValueError):  # what could not be written is less than what ended the run
            if self._begun and json.loads(self.path.read_text())["status"] == "running":
                self.close("failed", f"{type(error).__name__}: {error}")

    def close(self, status: str, error: str | None) -> None:
        """For an end without a trainer: from another thread, when the main one cannot."""
        self.content |= {"status": status, "ended": _now()} | ({"error": error} if error else {})
        self._write()

    def _finish_training(self, trainer: L.Trainer, status: str) -> None:
        self.content["status"] = status
        self.content["ended"] = _now()
        if self._started and "training" not in self.content:
            seconds = time.monotonic() - self._started
            self.content["training"] = {
                "steps": trainer.global_step,
                "seconds": round(seconds, 2),
                "steps_per_second": round((trainer.global_step - self._first_step) / seconds, 3),
                "images_per_second": round(self._images * trainer.world_size / seconds, 2),
                "peak_memory_mib": _peak_memory(trainer.strategy.root_device),
            }
        self._write()

    def _add_scores(self, trainer: L.Trainer, module: Any, split: str) -> None:
        if module.scores is None:
            return
        scores = {name: value for name, value in module.scores.to_dict().items() if name != "confusion"}
        found, before = _data(trainer), self.content.get("data")
        # Only what this process has opened is counted.
        self.content["data"] = found and {**found, "images": {**(before or found)["images"], **found["images"]}}
        self.content |= {"resources": module.learned_from, "sources": module.sources}
        self.content.setdefault("scores", {})[split] = {
            "protocol": run_protocol(trainer, split).to_dict(),
            **scores,
        }
        if self.content["status"] == "running":
            self.content |= {"status": "finished", "ended": _now()}
        self._write()

    def _begin(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self._begun:
            return
        self._begun = True
        self._write()
        self._config = cast(Shown, module).run_config
        self._write_config()

    def _continue(self, step: int) -> None:
        """Keeps the first start and command; this one comes to the list of those that went on."""
        try:
            before = json.loads(self.path.read_text())
        except (OSError, ValueError):  # the checkpoint of another folder
            before = {}
        this = {"started": self.content["started"], "command": self.content["command"], "step": step}
        resumed = [*before.get("resumed", []), {**this, "changed": self.changed}]
        first = {name: before[name] for name in ("started", "command") if name in before}
        self.content |= {**first, "resumed_at_step": step, "resumed": resumed}

    def _write(self) -> None:
        if not self._begun or not self._writes:
            return
        text = json.dumps(self.content, indent=1) + "\n"
        try:
            write_text(self.path, text)
        except OSError:
            # A full disk still takes what fits into the blocks that the file has.
            if not self.path.is_file() or len(text.encode()) > -(-self.path.stat().st_size // BLOCK) * BLOCK:
                raise
            with named_errors(self.path), self.path.open("r+") as file:
                file.write(text)
                file.truncate()
        if not self.path.with_name("config.yaml").is_file():
            self._write_config()

    def _write_config(self) -> None:
        if self._config is not None and self._writes:
            write_text(self.path.with_name("config.yaml"), config_text(self._config))


def command_line(argv: Sequence[str]) -> str:
    """The command without what should not be written down: the program's folder and secret values."""
    program = Path(argv[0]).name
    words, hidden = ["segzoo" if program == "__main__.py" else program], False  # `python -m segzoo`
    for word in argv[1:]:
        name, equals, _ = word.partition("=")
        secret = name.startswith("-") and SECRET.search(name) is not None
        words.append("***" if hidden else f"{name}=***" if secret and equals else word)
        hidden = secret and not equals
    return " ".join(words)


def git_state(package: Path) -> dict[str, Any] | None:
    """Revision and whether tracked files differ from it, if the package itself is tracked."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        # a virtual environment inside somebody's checkout must not report that checkout's revision
        git("ls-files", "--error-unmatch", "__init__.py")
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"revision": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def _environment(trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
    return {
        "started": _now(),
        "command": command_line(sys.argv),
        "method": cast(Shown, module).slug,
        "seed": _seed(trainer),
        "max_steps": trainer.max_steps,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "segzoo": segzoo.__version__,
        "git": git_state(Path(segzoo.__file__).parent),
        "python": platform.python_version(),
        "packages": {"torch": str(torch.__version__), **_versions()},  # torch's own says which build
        "platform": f"{platform.system()} {platform.machine()}",
        "device": _device(trainer.strategy.root_device),
        "world_size": trainer.world_size,
        "precision": str(trainer.precision),
        "threads": torch.get_num_threads(),
    }


def _data(trainer: L.Trainer) -> dict[str, Any] | None:
    data: Any = getattr(trainer, "datamodule", None)
    return None if data is None else {"name": data.name, "images": data.counts()}


def _images(batch: Any) -> int:
    if not isinstance(batch, Mapping):
        return 0
    if isinstance(batch.get("image"), Tensor):
        return len(batch["image"])
    return sum(_images(part) for part in batch.values())


def _seed(trainer: L.Trainer) -> int | None:
    data: Any = getattr(trainer, "datamodule", None)
    seed = getattr(data, "seed", None)
    if seed is None:
        seed = os.environ.get("PL_GLOBAL_SEED")
    return int(seed) if seed not in (None, "") else None


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type


def _peak_memory(device: torch.device) -> dict[str, float]:
    """In MiB; ``process`` is the resident memory of this process without its loader workers."""
    peak = {}
    if sys.platform != "win32":
        import resource

        # kilobytes, but bytes on macOS
        unit = 2**20 if sys.platform == "darwin" else 2**10
        peak["process"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
    if device.type == "cuda":
        peak["cuda"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return peak


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
