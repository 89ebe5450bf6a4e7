"""The end of a run: its scores on the screen, in files and as a figure."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
from lightning.pytorch.trainer.states import TrainerFn

from segzoo.callbacks.publish import publish, publish_scores
from segzoo.evaluation.plots import scores_figure
from segzoo.evaluation.protocol import Protocol
from segzoo.evaluation.scores import IMAGE_COUNTS
from segzoo.evaluation.tables import print_scores
from segzoo.files import whole_file


class FinalReport(L.Callback):
    """After a test (or a validation of its own, not those during training) reports ``pl_module.scores``.

    Prints the table and the protocol; writes ``scores-<split>.json`` and ``.csv``, ``confusion.npz``
    and ``figures/scores-<split>.png``, and of a test ``images-test.npz``; sends the figure to the loggers, and to wandb the
    table of classes and the confusion matrix.

    Args:
        run_dir: folder of the run, or of this evaluation.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.run_dir = Path(run_dir)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reports the test split."""
        self._report(trainer, pl_module, "test")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reports the val split, unless this is a validation during training."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._report(trainer, pl_module, "val")

    def _report(self, trainer: L.Trainer, module: Any, split: str) -> None:
        if not trainer.is_global_zero or module.scores is None:
            return
        scores, protocol = module.scores, run_protocol(trainer, split)
        print_scores(scores, protocol)
        if split == "test":
            save_image_counts(self.run_dir, module.image_counts)
        scores.save(self.run_dir, f"scores-{split}", protocol, module.learned_from, module.sources)
        figure = scores_figure(scores, module.label_space, protocol.describe())
        publish(trainer, figure, self.run_dir / "figures" / f"scores-{split}.png", f"scores/{split}")
        publish_scores(trainer, scores, split)


def save_image_counts(folder: Path, counts: npt.NDArray[np.int64] | None) -> None:
    """Writes ``images-test.npz``: by image the pixels of every class that are right, that are true, and that are called so.

    Args:
        folder: of the run.
        counts: (N, 3, C); None: nobody counted, and no file of another test stays.
    """
    path = folder / IMAGE_COUNTS
    if counts is None:
        path.unlink(missing_ok=True)
        return
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, counts=counts)


def run_protocol(trainer: L.Trainer, split: str) -> Protocol:
    """The protocol of the evaluation that a trainer just did.

    Args:
        trainer: its datamodule has ``size`` (height, width), ``views``, how the network got the images, and ``counts()``,
            images by ``target/<split>``; its module has ``scored_images``, how many of them the scores are of.
        split: ``val`` or ``test``.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    module: Any = trainer.lightning_module
    space, views = module.label_space, data.views
    file = Path(trainer.ckpt_path or "last.ckpt").name
    return Protocol(
        classes=space.name,
        num_classes=space.num_classes,
        split=split,
        images=module.scored_images,
        split_images=data.counts()[f"target/{split}"],
        input_size=None if views.input == "native" else tuple(data.size),
        window=views.window,
        flips=views.flips,
        overlap=None if views.window is None else views.overlap,
        blend=None if views.window is None else views.blend,
        scales=views.scales,
        name=views.name,
        checkpoint="last" if file == "last.ckpt" else file,
    )
