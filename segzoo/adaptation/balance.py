"""Weights of classes by how rare they are: of DANNet (Wu et al., CVPR 2021), and by powers of their frequencies."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from segzoo.errors import ConfigError

FAR = 100.0
"""How many times the median class's weight, or which part of it, a weight may be: some mislabelled pixels are no class."""


def class_balance(frequencies: Mapping[str, float], classes: Sequence[str], strength: float) -> Tensor:
    """w_c = 1 + s (mean(log f) - log f_c) / std(log f): mean 1 and standard deviation s, large for rare classes.

    Args:
        frequencies: f, the share of the pixels of every class; only ratios matter.
        classes: the names of the C classes, in order.
        strength: s; 0 gives ones.

    Returns:
        (C,) float64.

    Raises:
        ConfigError: a class without a frequency above 0, a frequency of no class, fewer than two classes, or so large an s that
            a weight is not positive.
    """
    missing = [name for name in classes if not frequencies.get(name, 0.0) > 0]
    unknown = [name for name in frequencies if name not in classes]
    if missing or unknown or len(classes) < 2:
        wrong = f"no frequency above 0 for {', '.join(missing)}" if missing else f"no class {', '.join(unknown)}"
        raise ConfigError(f"class_frequencies: {wrong}; give the share of the pixels of each of {', '.join(classes)}")
    log = torch.tensor([frequencies[name] for name in classes], dtype=torch.float64).log()
    # Without spread all classes are as frequent: there is nothing to balance.
    weights = 1 + strength * (log.mean() - log) / log.std().clamp_min(1e-12)
    if float(weights.min()) <= 0:
        name = classes[int(weights.argmin())]
        raise ConfigError(f"a class balance of {strength} gives {name} the weight {float(weights.min()):.2f}; lower it")
    return weights


def frequency_weights(frequencies: Tensor, exponent: float) -> Tensor:
    """w_c = s (median f / f_c)^e, with s such that the mean weight of all pixels, sum_c f_c w_c / sum_c f_c, is 1.

    With e = 1 that is median frequency balancing (Eigen & Fergus, ICCV 2015). The median is that of the classes that occur;
    those that do not weigh 1. Before the scaling weights are clamped to `FAR`.

    Args:
        frequencies: f (C,), the share of the pixels of every class; only ratios matter.
        exponent: e; 0 gives ones.

    Returns:
        (C,), of the dtype of ``frequencies``.
    """
    occurs = frequencies > 0
    if not occurs.any():
        return torch.ones_like(frequencies)
    found = frequencies[occurs]
    weights = (found.quantile(0.5) / found).pow(exponent).clamp(1 / FAR, FAR)
    return torch.ones_like(frequencies).masked_scatter(occurs, weights * found.sum() / (found * weights).sum())
