"""What a training step saw and did, for tests that recompute it."""

from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

from segzoo.data import MiniCity
from segzoo.data.domains import ImageSet, Pixels
from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.methods.segmentation import SegmentationMethod
from tests import tiny


class Catch(L.Callback):
    """The batch, the gradients and the logged values of the first step."""

    batch: dict[str, Any]
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]
    logged: dict[str, float]

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batch = batch

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        self.gradients = {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}
        self.buffers = {name: b.clone() for name, b in pl_module.segmenter.named_buffers()}

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.logged = {name: float(value) for name, value in trainer.logged_metrics.items()}


class VoidMargin(MiniCity):
    """Labels whose upper quarter is void."""

    def images(self, split: Any, root: Path) -> ImageSet:
        whole = super().images(split, root)

        class Images(ImageSet):
            names = whole.names

            def image(self, index: int) -> Pixels:
                return whole.image(index)

            def label(self, index: int) -> Pixels:
                label = whole.label(index).copy()
                label[: len(label) // 4] = IGNORE_INDEX
                return label

        return Images()


def caught(
    slug: str, steps: int = 1, void: bool = False, data_options: dict[str, Any] | None = None, **options: Any
) -> tuple[SegmentationMethod, Catch]:
    """An untrained copy of a method in float64, and what its last of ``steps`` steps was."""
    catch = Catch()
    data = {"source": VoidMargin("source", train=8, val=2, test=3, size=tiny.SIZE)} if void else {}
    trainer_options = {"callbacks": [catch], "precision": "64-true"}
    tiny.fit(slug, steps, data_options=data | (data_options or {}), trainer_options=trainer_options, **options)
    return tiny.method(slug, **options).double().train(), catch
