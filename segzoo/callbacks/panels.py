"""Pictures of what a method sees and predicts, at fixed images, while it learns."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn import functional

from segzoo.callbacks.publish import publish, publish_overlays
from segzoo.callbacks.shown import LabelsImages, Shown
from segzoo.evaluation.confusion import predict_labels
from segzoo.evaluation.panels import panel_figure

Pixels = npt.NDArray[Any]
FILE = re.compile(r"panel-\w+-step(\d+)\.png")


class ImagePanels(L.Callback):
    """Draws image, label and prediction of the same source and target images again and again.

    Files: ``<run_dir>/figures/panel-<source|target>-step<step>.png``, also sent to every logger. The training
    is the same to the last bit with and without this callback. The DataModule gives the images:
    ``panel_batch(domain, count)``.

    Further columns are the module's ``panel_maps``, which get labels at the size of the images; target labels are
    drawn, but never given to the module. What its ``step_pictures`` hold is drawn as
    ``panel-training-step<step>.png``; a module that labels no images has no other panels (`segzoo.callbacks.shown`).

    Args:
        run_dir: the run folder.
        every_n_steps: steps between two panels; ``None``: at steps 10, 20, 50, 100, 200, 500, ..., about twenty in a
            training of a million steps, however it ends. Step 0 and the last one so far always have panels. A
            resumed training draws none of the step that it continues from.
        count: images per domain.
    """

    def __init__(self, run_dir: str | Path, every_n_steps: int | None = None, count: int = 4) -> None:
        self.folder = Path(run_dir) / "figures"
        self.every_n_steps = every_n_steps
        self.count = count
        self._drawn = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The untrained network, or, in a folder without panels, that of the checkpoint."""
        self._drawn = -1
        if trainer.global_step == 0 or not list(self.folder.glob("panel-*.png")):
            self._draw(trainer, pl_module)
        self._drawn = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """At the steps that have panels."""
        if self._has_panels(trainer.global_step):
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The trained network. Where the training had ended earlier before, that end is no longer one."""
        self._draw(trainer, pl_module)
        for path in self.folder.glob("panel-*.png") if trainer.is_global_zero else ():
            match = FILE.fullmatch(path.name)
            if match and int(match[1]) < trainer.global_step and not self._has_panels(int(match[1])):
                path.unlink(missing_ok=True)

    def _has_panels(self, step: int) -> bool:
        if self.every_n_steps:
            return step % self.every_n_steps == 0
        return step == 0 or (step >= 10 and str(step).rstrip("0") in ("1", "2", "5"))

    def _draw(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        step = trainer.global_step
        data = getattr(trainer, "datamodule", None)
        if not trainer.is_global_zero or data is None or step == self._drawn:
            return
        self._drawn = step
        shown = cast(Shown, module)
        space = shown.label_space
        seen = {stream.domain for stream in shown.streams.values()} | {"target"}  # no others need be there
        for domain in sorted(seen) if isinstance(module, LabelsImages) else ():
            with undisturbed(module), trainer.precision_plugin.forward_context():
                batch = move_data_to_device(data.panel_batch(domain, self.count), module.device)
                batch = trainer.precision_plugin.convert_input(batch)
                columns = _columns(module, batch, domain)
            figure = panel_figure(columns, space, f"{domain}, step {step}", batch.get("name"))
            publish(trainer, figure, self.folder / f"panel-{domain}-step{step:06d}.png", f"panel/{domain}")
            publish_overlays(trainer, columns, space, f"overlay/{domain}")
        if pictures := shown.step_pictures:
            columns = {name: [_pixels(one) for one in maps[: self.count]] for name, maps in pictures.items()}
            figure = panel_figure(columns, space, f"training batch of step {step}", shown.step_names)
            publish(trainer, figure, self.folder / f"panel-training-step{step:06d}.png", "panel/training")


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards modes, buffers and random generators are as before."""
    modes = {part: part.training for part in module.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    module.eval()
    try:
        with isolate_rng(), torch.no_grad():
            yield
    finally:
        for part, training in modes.items():
            part.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _columns(module: Any, batch: dict[str, Any], domain: str) -> dict[str, list[Pixels]]:
    image, labels = batch["image"], batch.get("label")
    sizes = [image.shape[-2:]] * len(image) if labels is None else [label.shape[-2:] for label in labels]
    logits = module(image)
    columns = {"image": [_pixels(one) for one in image]}
    if labels is not None:
        columns["label"] = [_pixels(one) for one in labels]
    columns["prediction"] = [
        _pixels(predict_labels(one[None], tuple(size))[0]) for one, size in zip(logits, sizes, strict=True)
    ]
    given = {name: value for name, value in batch.items() if name != "label"}
    if domain == "source" and labels is not None:
        given["label"] = torch.stack([_resize(label, image.shape[-2:]) for label in labels])
    return columns | {name: [_pixels(one) for one in maps] for name, maps in module.panel_maps(given).items()}


def _resize(label: Tensor, size: torch.Size) -> Tensor:
    if label.shape == size:
        return label
    return functional.interpolate(label[None, None].float(), size=size, mode="nearest-exact")[0, 0].long()


def _pixels(picture: Tensor) -> Pixels:
    """What :func:`panel_figure` takes: RGB as (H, W, 3) uint8, label ids and maps as they are."""
    if picture.ndim == 3:
        return (picture.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    if picture.is_floating_point():
        return picture.float().cpu().numpy()
    return picture.cpu().numpy().astype(np.int64)
