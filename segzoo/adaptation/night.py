"""What SePiCo adds for night images (Cityscapes to Dark Zurich): day images of the same places, and weights of rare classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segzoo.adaptation.balance import class_balance
from segzoo.adaptation.feature_distance import class_mask
from segzoo.adaptation.pseudo_labelling import fuse_reference
from segzoo.checks import check_range
from segzoo.options import check_values


@dataclass(frozen=True, kw_only=True)
class Night:
    """Help for target images in bad light.

    Args:
        classes: Lists the classes that do not move, whose pseudo labels also follow the teacher's prediction for the reference
            image of the same place; null means that there are no reference images.
        weight: Sets how much that prediction counts where it is surer than the threshold; elsewhere the rest to 1 counts.
        threshold: Sets the probability from which the prediction for the reference image counts as sure.
        class_balance: Sets how strongly rare classes are favoured in cross-entropy and pseudo labels: s of the weights 1 + s
            (mean(log f) - log f_c) / std(log f); 0 weighs all classes alike, SePiCo has 0.05.
        test_class_balance: Sets s of the class weights that multiply the probabilities of images outside training; 0 leaves
            the prediction as it is.
        frequencies: Gives f, the share of pixels of every class by its name, which the class weights need.
    """

    classes: list[str] | None = None
    weight: float = 0.8
    threshold: float = 0.4
    class_balance: float = 0.0
    test_class_balance: float = 0.0
    frequencies: dict[str, float] | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: a number outside its range, a choice that there is not.
        """
        check_values(type(self).__init__, vars(self), "method.night")
        check_range("`method.night.weight`", self.weight, 0, 1)
        check_range("`method.night.threshold`", self.threshold, 0, 1)


class NightGuidance(nn.Module):
    """The options as tensors, none of which is part of the state dict.

    Args:
        options: what is asked for.
        classes: names of all classes, in order.

    Raises:
        ConfigError: a class that does not exist, or frequencies that are not one per class.
    """

    class_weight: Tensor | None
    """Of cross-entropy and pseudo labels, (C,)."""
    test_class_weight: Tensor | None
    chosen: Tensor

    def __init__(self, options: Night, classes: Sequence[str]) -> None:
        super().__init__()
        self.options, self.uses_references = options, options.classes is not None
        strengths = {"class_weight": options.class_balance, "test_class_weight": options.test_class_balance}
        for name, strength in strengths.items():
            weight = class_balance(options.frequencies or {}, classes, strength).float() if strength else None
            self.register_buffer(name, weight, persistent=False)
        still = class_mask("`method.night.classes`", classes, options.classes)
        self.register_buffer("chosen", still, persistent=False)

    def scores(self, probs: Tensor, reference: Tensor | None) -> Tensor:
        """Scores (B, C, H, W) of the classes, which need not sum to one.

        Args:
            probs: the teacher's probabilities (B, C, H, W).
            reference: those for the reference images, where there are some.
        """
        if reference is not None:
            probs = fuse_reference(probs, reference, self.chosen, self.options.weight, self.options.threshold)
        return probs if self.class_weight is None else probs * self.class_weight[:, None, None]

    def test_logits(self, logits: Tensor) -> Tensor:
        """Logits (B, C, H, W) of the balanced probabilities."""
        if self.test_class_weight is None:
            return logits
        return logits + torch.log(self.test_class_weight).to(logits.dtype)[:, None, None]
