"""The loss of labelled pixels: what every method learns by from labels, whatever else it learns by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from segzoo.adaptation.balance import frequency_weights
from segzoo.checks import check_range
from segzoo.data.datamodule import DomainDataModule
from segzoo.errors import ConfigError, SegzooError
from segzoo.options import check_values

DOMAINS: dict[str, Literal["source", "target"]] = {"source": "source", "labels": "target"}
"""The labelled domain behind a resource."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The loss of labelled pixels: a loss per pixel and, optionally, a loss of the overlap of areas.

    Args:
        class_balance: Sets how strongly rare classes are favoured: 0 weighs all pixels alike, 1 weighs all classes alike. It is
            the exponent e of the class weights (median f / f_c)^e, where f_c is the share of the class in the labelled pixels
            that the method learns from. The weights stay within a hundredth and a hundred times that of the median class, and
            their mean over the pixels is 1.
        focal: Sets gamma of the focal loss (1 - p)^gamma (-log p), which lowers the weight of pixels that are already predicted
            well; 0 is cross-entropy, 2 is usual.
        overlap: Adds a loss of the overlap of predicted and labelled areas, in which thin and rare classes count as much as
            large ones: dice, or lovasz, which approximates the IoU. It is computed over the images of one process in a step.
        overlap_weight: Sets the weight of the overlap loss relative to the loss per pixel.
    """

    class_balance: float = 0.0
    focal: float = 0.0
    overlap: Literal["none", "dice", "lovasz"] = "none"
    overlap_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: a number outside its range, a choice that there is not.
        """
        check_values(type(self).__init__, vars(self), "loss")
        check_range("`loss.class_balance`", self.class_balance, 0)
        check_range("`loss.focal`", self.focal, 0)
        check_range("`loss.overlap_weight`", self.overlap_weight, 0)


def count_class_weight(trainer: Any, resources: Sequence[str], exponent: float) -> Tensor:
    """The weights (C,) of the classes, float32 and the same on all processes.

    Args:
        trainer: has the data.
        resources: what the method learns from; the shares of the classes are means over its labelled domains.
        exponent: see `Loss.class_balance`.

    Raises:
        ConfigError: the trainer has no DataModule that could count.
        DataError: a label cannot be read.
    """
    shares = counted_shares(trainer, resources)
    if shares is None:
        raise ConfigError(
            "`loss.class_balance` counts the labels of a DomainDataModule, and this trainer has other data; pass "
            "`datamodule=`, or set it to 0"
        )
    # In double precision on the host: a device may have none.
    return frequency_weights(torch.tensor(shares, dtype=torch.float64), exponent).float()


def counted_shares(trainer: Any, resources: Sequence[str]) -> list[float] | None:
    """The shares of the C classes in true labels; the first process counts. None without a DataModule of ours.

    Args:
        trainer: has the data.
        resources: the mean is one over the labelled domains behind these; zeros where none of them has labels.

    Raises:
        DataError: a label cannot be read.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, DomainDataModule):
        return None
    shares: list[list[float]] = []
    error: SegzooError | None = None
    if trainer.is_global_zero:
        domains = [DOMAINS[resource] for resource in resources if resource in DOMAINS]
        try:  # what has no labels is an error of the streams
            if data.target_labels == 0:
                domains = [domain for domain in domains if domain != "target"]
            labelled = [domain for domain in domains if data.images(domain, "train").has_labels]
            shares = [data.class_shares(domain).tolist() for domain in labelled]
        except SegzooError as problem:
            error = problem
    shares, error = trainer.strategy.broadcast((shares, error))
    if error is not None:
        raise error
    if not shares:
        return [0.0] * data.label_space.num_classes
    return [sum(column) / len(column) for column in zip(*shares, strict=True)]
