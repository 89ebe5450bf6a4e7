"""Pictures of what a method sees and predicts, at fixed images, while it learns."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn import functional

from segzoo.callbacks.publish import publish
from segzoo.evaluation.confusion import predict_labels
from segzoo.evaluation.panels import panel_figure

Pixels = npt.NDArray[Any]


class ImagePanels(L.Callback):
    """Draws image, label and prediction of the same source and target images again and again.

    Files: ``<run_dir>/figures/panel-<source|target>-step<step>.png``, also sent to every logger. The training
    is the same to the last bit with and without this callback. The DataModule gives the images:
    ``panel_batch(domain, count)``.

    Further columns: a module with ``weighting`` shows ``weights(batch)`` (B, H, W) of the source images. A
    module with ``panel_maps(batch) -> dict[str, Tensor]`` shows, by title, maps (B, H, W) float, label ids
    (B, H, W) integer or RGB images (B, 3, H, W) in [0, 1]. Both get labels at the size of the images; target
    labels are drawn, but never given to the module. A module with ``step_pictures``, the pictures of its last
    step by title, has them drawn as ``panel-training-step<step>.png``; without ``segments`` it has no other panels.

    Args:
        run_dir: the run folder.
        every_n_steps: steps between two panels; ``None``: a quarter of ``max_steps``. The first and last step
            always have one.
        count: images per domain.
    """

    def __init__(self, run_dir: str | Path, every_n_steps: int | None = None, count: int = 4) -> None:
        self.folder = Path(run_dir) / "figures"
        self.every_n_steps = every_n_steps
        self.count = count
        self._drawn = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The untrained network, or that of the checkpoint."""
        self._drawn = -1
        self._draw(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After every so many steps."""
        every = self.every_n_steps or trainer.max_steps // 4
        if every > 0 and trainer.global_step % every == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The trained network."""
        self._draw(trainer, pl_module)

    def _draw(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        step = trainer.global_step
        data = getattr(trainer, "datamodule", None)
        if not trainer.is_global_zero or data is None or step == self._drawn:
            return
        self._drawn = step
        space: Any = module.label_space
        streams: Any = module.streams
        seen = {stream.domain for stream in streams.values()} | {"target"}  # no others need be there
        for domain in sorted(seen) if getattr(module, "segments", True) else ():
            with undisturbed(module), trainer.precision_plugin.forward_context():
                batch = move_data_to_device(data.panel_batch(domain, self.count), module.device)
                batch = trainer.precision_plugin.convert_input(batch)
                columns = _columns(module, batch, domain)
            figure = panel_figure(columns, space, f"{domain}, step {step}")
            publish(trainer, figure, self.folder / f"panel-{domain}-step{step:06d}.png", f"panel/{domain}")
        if pictures := getattr(module, "step_pictures", None):
            columns = {name: [_pixels(one) for one in maps[: self.count]] for name, maps in pictures.items()}
            figure = panel_figure(columns, space, f"training batch of step {step}")
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
    if domain == "source" and hasattr(module, "weighting"):
        columns["weight"] = [_pixels(one) for one in module.weights(given)]
    if hasattr(module, "panel_maps"):
        for name, maps in module.panel_maps(given).items():
            columns[name] = [_pixels(one) for one in maps]
    return columns


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
