"""Labelling images with a trained network; ``segzoo predict`` and ``segzoo.load`` are made of it."""

from typing import TYPE_CHECKING

from segzoo.lazy_names import lazy

if TYPE_CHECKING:
    from segzoo.inference.checkpoints import load_checkpoint as load_checkpoint
    from segzoo.inference.checkpoints import read_checkpoint as read_checkpoint
    from segzoo.inference.prediction import Prediction as Prediction
    from segzoo.inference.predictor import Predictor as Predictor
    from segzoo.inference.predictor import load as load

__getattr__, __dir__ = lazy(
    __name__,
    lambda: {
        "Prediction": "segzoo.inference.prediction",
        "Predictor": "segzoo.inference.predictor",
        "load": "segzoo.inference.predictor",
        "load_checkpoint": "segzoo.inference.checkpoints",
        "read_checkpoint": "segzoo.inference.checkpoints",
    },
)
