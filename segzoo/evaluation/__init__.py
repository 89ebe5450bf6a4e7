"""What every result is measured with: one confusion matrix, one protocol, tables and figures."""

from segzoo.evaluation.confusion import (
    ConfusionMatrix,
    confusion_metric,
    count_unusable,
    predict_labels,
    resize_logits,
    update_confusion,
)
from segzoo.evaluation.protocol import Protocol
from segzoo.evaluation.scores import Scores
from segzoo.evaluation.tables import Paired, comparison_table, paired, print_scores

__all__ = [
    "ConfusionMatrix",
    "Paired",
    "Protocol",
    "Scores",
    "comparison_table",
    "confusion_metric",
    "count_unusable",
    "paired",
    "predict_labels",
    "print_scores",
    "resize_logits",
    "update_confusion",
]
