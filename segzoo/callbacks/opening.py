"""What a training says before its first step, and how long it will take, a few steps later."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer

from segzoo.callbacks.progress import clock, total_steps
from segzoo.callbacks.shown import LabelsImages
from segzoo.compat.training import time_limit
from segzoo.evaluation.tables import source_text


class Opening(L.Callback):
    """Says in a few lines what is trained, where and on what; after ``steps`` steps or ``seconds``, how long it takes.

    Args:
        run_dir: the run folder.
        steps: that are timed; the first one, which compiles and fills caches, is not.
        seconds: that steps are timed, if fewer fit into them.
        say: prints the lines; None for `print`.
    """

    def __init__(
        self,
        run_dir: str | Path,
        steps: int = 10,
        seconds: float = 10.0,
        say: Callable[[str], object] | None = None,
    ) -> None:
        self.say = say or partial(print, flush=True)
        self.run_dir, self.steps, self.seconds = Path(run_dir), steps, seconds
        self._started: float | None = None
        self._first_step, self._timed, self._paused = 0, False, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Says what is known by now."""
        self._started, self._first_step, self._timed = None, trainer.global_step, not trainer.is_global_zero
        if trainer.is_global_zero:
            self.say("\n".join(opening_lines(trainer, pl_module, self.run_dir)))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Says how long it takes, once."""
        done = trainer.global_step - self._first_step
        if self._timed or not done:
            return
        if self._started is None:
            self._started, self._first_step = time.monotonic(), trainer.global_step
            return
        seconds = time.monotonic() - self._started
        if done < self.steps and seconds < self.seconds:
            return
        self._timed = True
        left = (total_steps(trainer) or 0) - trainer.global_step
        if left > 0:
            text = (
                f"expected time: {clock(left * seconds / done)} for the {left} steps that are left, without validation"
            )
            bar: Any = trainer.progress_bar_callback
            (bar.print if bar else print)(text)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A validation does not count."""
        self._paused = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on it is steps again."""
        if self._started is not None:
            self._started += time.monotonic() - self._paused


def opening_lines(trainer: L.Trainer, module: Any, run_dir: Path) -> list[str]:
    """Method and network, device, data, batch, steps and folder, a line each."""
    data: Any = getattr(trainer, "datamodule", None)
    lines = [
        f"{module.slug}: {_network(trainer, module)}",
        f"device: {_device(trainer)}",
    ]
    if data is not None:
        lines += [f"data: {_images(data, module)}", f"batch: {_batch(trainer, data)}"]
    return [*lines, f"steps: {_steps(trainer)}", f"writes to: {run_dir}"]


def _network(trainer: L.Trainer, module: Any) -> str:
    trained = _millions(module)
    if not isinstance(module, LabelsImages):
        return f"{trained} trained parameters"
    options = cast(L.LightningModule, module).hparams.get("network", {})
    size = _millions(module.segmenter)
    parameters = f"{size} parameters" + (f", {trained} with all that is trained" if trained != size else "")
    if trainer.global_step:
        weights = f"weights of the checkpoint {trainer.ckpt_path}"
    elif options.get("initial_checkpoint"):
        weights = f"weights of {options['initial_checkpoint']}"
    elif options.get("encoder_checkpoint"):
        weights = f"encoder pretrained, of {options['encoder_checkpoint']}"
    elif options.get("encoder_weights"):
        weights = f"encoder pretrained, '{options['encoder_weights']}'"
    else:
        known = _pretrained(str(options.get("encoder")))
        hint = "".join(f"`network.encoder_weights` {name} or " for name in known[:1])
        weights = f"random weights (pretrained ones: {hint}`network.encoder_checkpoint` FILE)"
    return f"{options.get('architecture')} with {options.get('encoder')}, {parameters}; {weights}"


def _pretrained(encoder: str) -> list[str]:
    """Names of the weights that can be downloaded for an encoder."""
    import timm

    from segzoo.compat.networks import pretrained_names

    if encoder.startswith("tu-"):
        return ["imagenet"] if timm.is_model_pretrained(encoder.removeprefix("tu-")) else []
    return pretrained_names(encoder)


def _millions(module: torch.nn.Module) -> str:
    count = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return f"{count / 1e6:.1f} M" if count >= 50_000 else str(count)


def _device(trainer: L.Trainer) -> str:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    processes = f", {trainer.world_size} processes" if trainer.world_size > 1 else ""
    return f"{name}{processes}, precision {trainer.precision}"


def _images(data: Any, module: Any) -> str:
    """Only of what the method looks at."""
    counts = data.counts()
    streams = module.streams.values()
    parts = []
    for domain in ("source", "target"):
        labelled = {stream.labelled for stream in streams if stream.domain == domain}
        total = counts.get(f"{domain}/train")
        if not labelled or total is None:
            continue
        seen = []
        if True in labelled:
            budget = counts.get(f"{domain}/labelled", total)
            seen.append(f"{total} images" if budget == total else f"{budget} of {total} images labelled")
        if False in labelled:
            number = counts.get(f"{domain}/unlabelled", total)
            again = seen and budget == total and data.further_images() is None
            rest = "the same ones without labels" if again else f"{number} unlabelled"
            seen.append(rest if seen else f"{number} images, without labels")
        several = f": {source_text(module.sources)}" if domain == "source" and module.sources else ""
        parts.append(f"{domain} {', '.join(seen)}{several}")
    if isinstance(module, LabelsImages):
        parts += [f"{split} {counts[f'target/{split}']}" for split in ("val", "test") if f"target/{split}" in counts]
    return f"{data.name}, {'; '.join(parts)}"


def _batch(trainer: L.Trainer, data: Any) -> str:
    factors = [f"{data.batch_size} images per domain"]
    if trainer.world_size > 1:
        factors.append(f"{trainer.world_size} processes")
    if trainer.accumulate_grad_batches > 1:
        factors.append(f"{trainer.accumulate_grad_batches} accumulated")
    crop = f", crops of {data.crop_size[1]}x{data.crop_size[0]}" if data.crop_size else ""
    return f"{' x '.join(factors)}, {data.size[1]}x{data.size[0]} (WxH){crop}"


def _steps(trainer: L.Trainer) -> str:
    total = total_steps(trainer)
    limits = [clock(limit) for c in trainer.callbacks if isinstance(c, Timer) and (limit := time_limit(c))]  # type: ignore[attr-defined]
    begun = f"continues at step {trainer.global_step}" if trainer.global_step else ""
    if total is None:
        return ", ".join(
            [*([begun] if begun else []), f"until {limits[0]} have passed" if limits else "until interrupted"]
        )
    text = (f"{begun} of {total}" if begun else str(total)) + "".join(f", at most {limit}" for limit in limits)
    every = trainer.val_check_interval
    if isinstance(every, int) and every > total and trainer.limit_val_batches:
        text += f", without a validation, of which there is one every {every} (`trainer.val_check_interval`)"
    return text
