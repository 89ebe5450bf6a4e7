"""Losses as pure functions of tensors."""

from segzoo.losses.classification import (
    class_losses,
    cross_entropy,
    log_softmax,
    pixel_cross_entropy,
    soft_cross_entropy,
)
from segzoo.losses.confidence import (
    guidance_labels,
    image_class_weights,
    image_weighted_maximum_squares,
    image_weighted_minimum_entropy,
    maximum_squares,
    minimum_entropy,
    multi_level_guidance,
)
from segzoo.losses.contrast import bank_contrast, distribution_contrast, prototype_contrast, prototype_regularizer
from segzoo.losses.matching import gradient_distance, gradient_distance_derivative
from segzoo.losses.overlap import dice_loss, lovasz_loss

__all__ = [
    "bank_contrast",
    "class_losses",
    "cross_entropy",
    "dice_loss",
    "distribution_contrast",
    "gradient_distance",
    "gradient_distance_derivative",
    "guidance_labels",
    "image_class_weights",
    "image_weighted_maximum_squares",
    "image_weighted_minimum_entropy",
    "log_softmax",
    "lovasz_loss",
    "maximum_squares",
    "minimum_entropy",
    "multi_level_guidance",
    "pixel_cross_entropy",
    "prototype_contrast",
    "prototype_regularizer",
    "soft_cross_entropy",
]
