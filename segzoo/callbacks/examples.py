"""The same few test images, as every run labels them: what reports of several runs show beside each other."""

from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image
from torch import Tensor

from segzoo.callbacks.shown import LabelsImages, Shown
from segzoo.data.splits import evenly
from segzoo.evaluation.confusion import predict_labels
from segzoo.evaluation.strips import logit_strips
from segzoo.evaluation.windows import windows_at_once
from segzoo.files import whole_file

FOLDER = "examples"
COUNT, WIDTH = 8, 480


class ExampleImages(L.Callback):
    """Writes some images of a test, evenly spread over it: what they show, what is true and what the network says.

    Files: ``<run_dir>/examples/<position>-<image.jpg|label.png|prediction.png>``; the last two are label ids with the colours
    of the classes, and all are at most 480 pixels wide. Where several processes share the images, nothing is written.

    Args:
        run_dir: folder of the run, or of this evaluation.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.folder = Path(run_dir) / FOLDER
        self._chosen: set[int] = set()
        self._seen = 0
        self._pictures: dict[str, Image.Image] = {}

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Chooses the images."""
        self._seen, self._chosen, self._pictures = 0, set(), {}
        data: Any = getattr(trainer, "datamodule", None)
        if data is not None and trainer.world_size == 1 and isinstance(pl_module, LabelsImages):
            self._chosen = set(evenly(data.counts()["target/test"], COUNT))

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Labels those of the batch that were chosen."""
        for place, label in enumerate(batch["label"]):
            if self._seen + place in self._chosen:
                with isolate_rng(), torch.no_grad(), trainer.precision_plugin.forward_context():
                    picture, said = _labelled(trainer, pl_module, batch["image"][place], label, place)
                self._keep(f"{self._seen + place:05d}", cast(Shown, pl_module), picture, label, said)
        self._seen += len(batch["label"])

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes them, now that the test has a score."""
        for name, picture in self._pictures.items():
            with whole_file(self.folder / name) as partial:
                picture.save(partial, "JPEG" if name.endswith(".jpg") else "PNG", quality=85)
        self._pictures = {}

    def _keep(self, name: str, module: Shown, picture: Tensor, label: Tensor, said: Tensor) -> None:
        pixels = picture if picture.dtype == torch.uint8 else (picture.float().clamp(0, 1) * 255).round().byte()
        image = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy()))
        if image.width > WIDTH:
            image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
        self._pictures[f"{name}-image.jpg"] = image
        palette = np.zeros((256, 3), np.uint8)
        palette[: module.label_space.num_classes] = module.label_space.palette
        for kind, ids in (("label", label), ("prediction", said)):
            self._pictures[f"{name}-{kind}.png"] = _indexed(ids.cpu().numpy(), palette)


def _labelled(trainer: L.Trainer, network: Any, image: Any, label: Tensor, place: int) -> tuple[Tensor, Tensor]:
    """What an image of a batch shows, and what a network says of it at the size of its label."""
    height, width = label.shape
    if isinstance(image, Tensor):
        return image, predict_labels(network(image[None]), (height, width))[0]
    if said := getattr(network, "labelled", []):
        return image[0], said[place]  # windows of a large image take minutes
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    at_once = windows_at_once(data.eval_batch_size, label.device)
    strips = logit_strips(network, image, data.views, (height, width), at_once)
    return image[0], torch.cat([logits.max(0).indices.byte() for _, logits in strips])


def _indexed(ids: npt.NDArray[Any], palette: npt.NDArray[np.uint8]) -> Image.Image:
    """A picture of label ids (H, W), at most `WIDTH` wide, that viewers show in the colours of a palette (256, 3)."""
    if ids.shape[1] > WIDTH:
        height = round(ids.shape[0] * WIDTH / ids.shape[1])
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(int)
            for new, old in zip((height, WIDTH), ids.shape, strict=True)
        )
        ids = ids[rows[:, None], columns[None]]
    picture = Image.fromarray(ids.astype(np.uint8), "L")
    picture.putpalette(palette.tobytes())
    return picture
