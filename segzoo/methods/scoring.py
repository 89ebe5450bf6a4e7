"""How a method is scored: one confusion matrix of all images, and no score of predictions that are none."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segzoo.compat.training import trainer_of
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.streams import Batch
from segzoo.distributed import sum_across_ranks
from segzoo.errors import NonFinitePredictionError
from segzoo.evaluation import ConfusionMatrix, Scores, confusion_metric, count_unusable, update_confusion
from segzoo.evaluation.strips import logit_strips
from segzoo.evaluation.windows import Network, windows_at_once
from segzoo.methods.logged import LoggedSteps


class ScoredImages(LoggedSteps):
    """A module whose ``forward`` gives logits (B, C, H, W), scored on labelled images.

    Attributes:
        label_space: the classes.
        confusion: the confusion matrix of the evaluation in progress.
        scores: those of the last evaluation; None before.
        scored_images: how many images they are of.
        image_counts: pixels by image of the last test, (N, 3, C): right ones, true ones, and those called so; None where
            several processes shared the images.
        labelled: label ids (H, W) uint8 of the images of a test's last batch that came in windows or in several views, which
            nobody should have to compute again; empty for other batches.
    """

    label_space: LabelSpace

    def prepare_scoring(self, num_classes: int) -> None:
        """Starts with nothing counted."""
        self.confusion = confusion_metric(num_classes)
        self.scores: Scores | None = None
        self.scored_images = 0
        self.image_counts: npt.NDArray[np.int64] | None = None
        self._evaluated, self._unusable = 0, torch.zeros((), dtype=torch.long)
        self._totals: list[Tensor] = []
        self.labelled: list[Tensor] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds a batch of the target's val split to the confusion matrix."""
        self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds a batch of the target's test split to the confusion matrix."""
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        """Logs ``val/miou``, ``val/pixel_accuracy``, and by class ``val/iou/<class>``, ``val/precision/``, ``val/recall/``."""
        self._score("val")

    def on_test_epoch_end(self) -> None:
        """The same for ``test``."""
        self._score("test")

    def _evaluate(self, batch: Batch) -> None:
        # On the device: nothing waits for it until the end.
        self._unusable = self._unusable + self.count_batch(self, batch, self.confusion)
        # Of images that only keep the ranks in step the labels are void.
        self._evaluated += int(batch["counted"].sum()) if "counted" in batch else len(batch["image"])

    def count_batch(self, network: Network, batch: Batch, confusion: ConfusionMatrix) -> Tensor:
        """Adds what a network says of a batch to a confusion matrix, as the protocol of the data has it.

        Returns:
            how many of its images have logits that are not finite, a scalar on the device.
        """
        own = confusion is self.confusion and self._tests_alone()
        self.labelled = [] if own else self.labelled
        if isinstance(batch["image"], Tensor):
            logits = network(batch["image"])
            for one, label in zip(logits, batch["label"], strict=True):
                update_confusion(confusion, one[None], label[None])
                self._note_image(confusion)
            return count_unusable(logits)
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        at_once = windows_at_once(data.eval_batch_size, self.device)
        unusable = torch.zeros((), dtype=torch.long, device=self.device)
        for inputs, label in zip(batch["image"], batch["label"], strict=True):
            finite = torch.ones((), dtype=torch.bool, device=self.device)
            size = (label.shape[0], label.shape[1])
            strips: list[Tensor] = []
            for top, logits in logit_strips(network, inputs, data.views, size, at_once):
                update_confusion(confusion, logits[None], label[None, top : top + logits.shape[1]])
                finite &= torch.isfinite(logits).all()
                if own:
                    strips.append(logits.max(0).indices.byte())
            self._note_image(confusion)
            self.labelled += [torch.cat(strips)] if own else []
            unusable += ~finite
        return unusable

    def _note_image(self, confusion: ConfusionMatrix) -> None:
        """Keeps what a matrix holds after an image of a test."""
        if confusion is self.confusion and self._tests_alone():
            matrix = confusion.confmat
            self._totals.append(torch.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)]))

    def _tests_alone(self) -> bool:
        trainer = trainer_of(self)
        return trainer is not None and trainer.testing and trainer.world_size == 1

    def _score(self, split: str) -> None:
        totals, self._totals, self.labelled = self._totals, [], []
        self.image_counts = None
        if totals:
            self.image_counts = torch.stack(totals).diff(dim=0, prepend=torch.zeros_like(totals[0])[None]).cpu().numpy()
        matrix = self.confusion.compute().cpu().numpy()
        self.confusion.reset()
        # Counted, not taken from the split: a limited or interrupted evaluation must say so.
        self.scored_images = int(sum_across_ranks(torch.tensor(self._evaluated, device=self.device)))
        self._evaluated = 0
        self._refuse_unusable(split)
        self.scores = scores = Scores(matrix, self.label_space.classes, self.label_space.subsets)
        self.log(f"{split}/miou", scores.miou, prog_bar=split == "val", rank_zero_only=True)
        self.log(f"{split}/pixel_accuracy", scores.pixel_accuracy, rank_zero_only=True)
        by_class = {"iou": scores.iou, "precision": scores.precision, "recall": scores.recall}
        found = {
            f"{split}/{score}/{name}": float(value)
            for score, values in by_class.items()
            for name, value in zip(scores.classes, values, strict=True)
            if not math.isnan(value)
        }
        self.log_dict(found, rank_zero_only=True)

    def _refuse_unusable(self, split: str) -> None:
        """Logits that are not finite have no largest one: counted as predictions, they would be class 0 everywhere.

        Raises:
            NonFinitePredictionError: there were such.
        """
        unusable = int(sum_across_ranks(torch.as_tensor(self._unusable, device=self.device)))
        self._unusable = torch.zeros((), dtype=torch.long)
        if unusable:
            raise NonFinitePredictionError(
                f"the predictions of {unusable} of {self.scored_images} {split} images are not finite: nothing is scored; "
                "try `trainer.precision` 32, and look at the run's losses: its weights may have diverged"
            )
