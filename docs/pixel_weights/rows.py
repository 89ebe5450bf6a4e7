"""The rows of the study: joint training with weights that are given, and MetaPix under observation."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from scipy.stats import rankdata
from torch import Tensor

from segzoo.bilevel.passes import frozen_buffers
from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.data.streams import Batch
from segzoo.methods.joint import WeightedJointTraining
from segzoo.methods.metapix import MetaPix
from segzoo.methods.segmentation import valid_pixels
from segzoo.models.stems import as_source
from segzoo.models.weighting import PixelWeightNet

Rule = Callable[[Batch], Tensor]
"""The weights (B, H, W) of a source batch, before they are divided by their mean."""
EVERY = 10
"""Steps between two looks at the weights."""
WARM_UP = 60
"""Steps without weights that come from the network itself."""


def area(values: Tensor, source: Batch) -> float:
    """Area under the ROC curve of "a right pixel has a higher value than a wrong one"; NaN where all are alike."""
    valid = valid_pixels(source["label"])
    right = (~source["wrong"][valid]).numpy()
    n, m = int(right.sum()), int((~right).sum())
    # By ranks, as slopes may be as small as 1e-9: a function that takes them for logits sees ties.
    ranks = rankdata(values[valid].double().numpy())
    return float("nan") if not n or not m else float((ranks[right].sum() - n * (n + 1) / 2) / (n * m))


def area_within(values: Tensor, source: Batch, num_classes: int) -> float:
    """`area` among the pixels of one label, averaged over the labels by how many wrong pixels they have."""
    total = torch.zeros(2, dtype=torch.float64)
    for k in range(num_classes):
        of_class = source["label"] == k
        wrong = int((of_class & source["wrong"]).sum())
        if 0 < wrong < int(of_class.sum()):
            label = source["label"].masked_fill(~of_class, IGNORE_INDEX)
            total += wrong * torch.tensor([area(values, {"label": label, "wrong": source["wrong"]}), 1])
    return float(total[0] / total[1])


def seen(weights: Tensor, source: Batch, classes: tuple[str, ...]) -> dict[str, Any]:
    """What weights (B, H, W) of a source batch know: their means on wrong and right pixels, by class, and `area`."""
    valid = valid_pixels(source["label"])
    values, wrong, label = weights[valid], source["wrong"][valid], source["label"][valid]
    means = {name: round(float(values[label == k].mean()), 3) for k, name in enumerate(classes) if (label == k).any()}
    return {
        "auc": round(area(weights, source), 4),
        "auc_class": round(area_within(weights, source, len(classes)), 4),
        "wrong": round(float(values[wrong].mean()), 4),
        "right": round(float(values[~wrong].mean()), 4),
        "spread": round(float(values.std()), 4),
        "classes": means,
    }


class FixedWeights(WeightedJointTraining):
    """Joint training with weights of mean one that a rule gives from the first step on.

    Attributes:
        rule: what they are.
        found: what was seen of them, by step.
    """

    slug = "joint"
    rule: Rule
    found: dict[int, dict[str, Any]]

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """L_S with the rule's weights, plus L_T."""
        source = batch["source"]
        with torch.no_grad():
            weights = self.to_mean_one(self.rule(source), source["label"])[0]
        if self.global_step % EVERY == 0:
            self.found[self.global_step] = seen(weights, source, self.label_space.classes)
        return self.total(self.weighted_terms(weights, source, batch["target"]))


class ConfidentWeights(FixedWeights):
    """Joint training whose source weights are the network's own probability of the label, to the power 0.7.

    With them the cross-entropy has the gradient of the generalised one (Zhang & Sabuncu, 2018, arXiv 1805.07836). Their mean
    over the pixels of each label is one, so that classes that are hard to learn keep their share. The first `WARM_UP` steps
    have no weights: an untrained network believes no label.
    """

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """L_S with these weights, plus L_T."""
        source, label = batch["source"], batch["source"]["label"]
        with frozen_buffers(self.segmenter), as_source(self.segmenter):
            logits = self(source["image"])
        own = logits.detach().softmax(dim=1).gather(1, label.clamp_max(self.num_classes - 1)[:, None])[:, 0]
        weights = mean_one_by_class(own**0.7, label) if self.global_step >= WARM_UP else torch.ones_like(own)
        if self.global_step % EVERY == 0:
            self.found[self.global_step] = seen(weights, source, self.label_space.classes)
        target = batch["target"]
        return self.total(self.joint_terms(weights, logits, label, self(target["image"]), target["label"]))


class WatchedMetaPix(MetaPix):
    """MetaPix that notes what its weights and the slopes of its pixels know.

    Attributes:
        found: what was seen, by step.
    """

    found: dict[int, dict[str, Any]]

    def meta_update(self, source: Batch, target: Batch) -> Any:
        """See `MetaPix`; notes the area under the curve of the slopes of one batch, which is what the weights learn from."""
        done = super().meta_update(source, target)
        if self.global_step % EVERY == 0:
            slopes = -done[1].weights
            self.found[self.global_step] = {
                **seen(done[2], source, self.label_space.classes),
                "slope_auc": round(area(slopes, source), 4),
                "slope_auc_class": round(area_within(slopes, source, self.num_classes), 4),
            }
        return done


class ClassMetaPix(WatchedMetaPix):
    """MetaPix whose weights have mean one over the pixels of each label: it cannot choose between classes."""

    def to_mean_one(self, raw: Tensor, label: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """See `WeightedJointTraining.to_mean_one`, label by label."""
        labels = label.flatten()

        def mean(values: Tensor) -> Tensor:
            sums = values.new_zeros(256).index_add_(0, labels, values.flatten())
            counts = values.new_zeros(256).index_add_(0, labels, torch.ones_like(values).flatten())
            return (sums / counts.clamp_min(1))[label]

        scale = mean(raw.detach()).clamp_min(1e-12)
        weights, valid = raw.detach() / scale, valid_pixels(label)
        return weights, lambda gradient: (gradient - mean(weights * gradient)) * valid / scale


def no_weights(source: Batch) -> Tensor:
    """One for every pixel: joint training."""
    return torch.ones_like(source["label"], dtype=torch.float32)


def oracle(low: float, high: float, classes: Mapping[int, float] | None = None) -> Rule:
    """Weights of one who knows which pixels are wrong.

    Args:
        low: the weight of a wrong pixel.
        high: of a right one.
        classes: factors by the class that a pixel claims to be.
    """

    def rule(source: Batch) -> Tensor:
        factors = torch.ones(256)
        for k, factor in (classes or {}).items():
            factors[k] = factor
        return torch.where(source["wrong"], low, high) * factors[source["label"]]

    return rule


def mistaken(low: float, high: float, share: float) -> Rule:
    """An oracle that takes a share of the segments, all pixels of one label in one image, for the opposite of what they are.

    Args:
        low: the weight of a pixel that it holds to be wrong.
        high: of one that it holds to be right.
        share: of the segments; they are drawn anew in every batch.
    """

    def rule(source: Batch) -> Tensor:
        label = source["label"]
        flips = (torch.rand(len(label), 256) < share).gather(1, label.flatten(1)).view_as(label)
        return torch.where(source["wrong"] ^ flips, low, high)

    return rule


def learned(
    weighting: PixelWeightNet, change: Callable[[Tensor, Tensor], Tensor] = lambda weights, label: weights
) -> Rule:
    """The weights of a finished MetaPix.

    Args:
        weighting: its weight network.
        change: from its weights (B, H, W), of mean one, and the labels to those that are used.
    """
    weighting.eval()

    def rule(source: Batch) -> Tensor:
        raw, valid = weighting(source["image"], source["label"]), valid_pixels(source["label"])
        return change(raw / raw[valid].mean(), source["label"])

    return rule


def threshold(limit: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Leaves out what weighs less."""
    return lambda weights, label: (weights >= limit).float()


def mean_one_by_class(weights: Tensor, label: Tensor) -> Tensor:
    """Divides the weights by their mean over the pixels of the same label in the batch."""
    sums, counts = weights.new_zeros(256), weights.new_zeros(256)
    sums.index_add_(0, label.flatten(), weights.flatten())
    counts.index_add_(0, label.flatten(), torch.ones_like(weights).flatten())
    return weights / (sums / counts.clamp_min(1))[label]
