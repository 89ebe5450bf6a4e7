"""How good a mean teacher is: its labels are what the segmenter learns from."""

import math

from torch import nn

from segzoo.adaptation import EmaTeacher
from segzoo.data.streams import Batch
from segzoo.evaluation import Scores, confusion_metric
from segzoo.evaluation.history import PRECISION
from segzoo.methods.segmentation import SegmentationMethod
from segzoo.models.segmenter import Segmenter


class ScoredTeacher(SegmentationMethod):
    """Also scores ``teacher``, an average of modules by name, among them the ``segmenter``."""

    teacher: EmaTeacher[nn.ModuleDict]

    def prepare_scoring(self, num_classes: int) -> None:
        """Starts with nothing counted."""
        super().prepare_scoring(num_classes)
        self.teacher_confusion = confusion_metric(num_classes)

    @property
    def teacher_segmenter(self) -> Segmenter:
        """The teacher's, in the mode that it predicts in."""
        segmenter = self.teacher.network["segmenter"]
        assert isinstance(segmenter, Segmenter)
        return segmenter

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Scores segmenter and teacher."""
        super().validation_step(batch, batch_idx)
        if self.network_options.norm == "sync" and not self.teacher.average_buffers:
            return  # its batch norms would also count the images that only keep the ranks in step
        self.count_batch(self.teacher_segmenter, batch, self.teacher_confusion)

    def on_validation_epoch_end(self) -> None:
        """Also logs ``val/teacher_miou`` and ``pseudo/precision/<class>``: how much of what it calls so is so."""
        super().on_validation_epoch_end()
        matrix = self.teacher_confusion.compute().cpu().numpy()
        self.teacher_confusion.reset()
        if not matrix.any():
            return
        scores = Scores(matrix, self.label_space.classes)
        self.log("val/teacher_miou", scores.miou, rank_zero_only=True)
        precision = zip(scores.classes, scores.precision, strict=True)
        called = {f"{PRECISION}{name}": float(value) for name, value in precision if not math.isnan(value)}
        self.log_dict(called, rank_zero_only=True)
