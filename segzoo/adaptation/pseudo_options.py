"""The options of a mean teacher that labels unlabelled images."""

from dataclasses import dataclass
from typing import Literal

from segzoo.checks import check_range
from segzoo.options import check_values


@dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """How the teacher follows the network, and what is learned from its labels.

    Args:
        ema_decay: Sets how slowly the teacher follows the network, from 0 (at once) to 1 (never); runs of some hundred steps
            need a short memory, 0.99.
        ema_buffers: Averages the batch norms' statistics too and lets the teacher predict with them; otherwise, as published,
            it normalises by the batch.
        start: Says when pseudo labels begin to count, as a step or as a share of the training below 1; before it the network
            learns from true labels alone, so that the teacher knows something when it begins to teach.
        threshold: Sets the probability from which a pixel of the teacher's prediction counts as sure; above 1 none is.
        weight: Chooses how much the teacher's labels count: share weighs all pixels alike, by the share of the batch's pixels
            that it is sure of; pixel counts sure pixels fully and others not at all.
        alignment: Sets how strongly the teacher's probabilities are brought near the class shares of the true labels, from 0
            (as they are) to 1 (on average about these shares at least, and twice them at most).
    """

    ema_decay: float = 0.999
    ema_buffers: bool = False
    start: float = 0
    threshold: float = 0.968
    weight: Literal["share", "pixel"] = "share"
    alignment: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: a number outside its range, a choice that there is not.
        """
        check_values(type(self).__init__, vars(self), "method.pseudo")
        check_range("`method.pseudo.ema_decay`", self.ema_decay, 0, 1)
        check_range("`method.pseudo.start`", self.start, 0)
        check_range("`method.pseudo.threshold`", self.threshold, 0)
        check_range("`method.pseudo.alignment`", self.alignment, 0, 1)
