"""How far the gradient of synthetic images is from that of real ones, and its derivative in closed form.

Gradient matching (Yang et al., "Learning to Annotate Part Segmentation with Gradient Matching", ICLR 2022) labels synthetic
images such that training on them moves a network as the real labels would. With a matched tensor p as O_p rows,

    cosine         D = 1/P Σ_{p: dim ≥ 2} 1/O_p Σ_o [1 − ⟨g_po, ĝ_po⟩ / (‖g_po‖ ‖ĝ_po‖)]     the published code
    l2             the same means of ‖g_po − ĝ_po‖
    dotprod        the same means of −⟨g_po, ĝ_po⟩
    relative       the same means of ‖g_po − ĝ_po‖² / 2‖ĝ_po‖²                                  ours
    global_cosine  D = 1 − ⟨g, ĝ⟩ / (‖g‖ ‖ĝ‖) over all entries at once                         the paper's figure

P counts *all* tensors, while biases and norm parameters (one dimension) add nothing to the rowwise ones. A row shorter than
1e-6 has no direction that could be trusted: its cosine is 0 and so is its derivative, which elsewhere grows as 1/‖g‖; as ĝ it
counts as matched in the relative distance.

Rows may be whitened, g_po W_p in the place of g_po, with W_p W_p^T = A_p^{-1} for the second moments A_p = E[h h^T] of the
layer's inputs h. A row is g_po = E[δ_o h] for errors δ_o, and A_p^{-1} g_po the linear regression of these errors on h. So

    ‖(g_po − ĝ_po) W_p‖² = E[(h · A_p^{-1} (g_po − ĝ_po))²]

compares what the gradients do, not their entries, of which the mean of h (never negative behind a ReLU) has nearly all. It is
the norm of the natural gradient with the input factor of K-FAC (Martens and Grosse, 2015).
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

GradientMetric = Literal["cosine", "l2", "dotprod", "relative", "global_cosine"]

EPS = 1e-6
"""Norm below which a gradient has no direction."""


def gradient_distance(
    synthetic: Sequence[Tensor],
    real: Sequence[Tensor],
    metric: GradientMetric = "cosine",
    whitening: Sequence[Tensor | None] | None = None,
) -> Tensor:
    """Distance between two gradients of the same parameters.

    Under DDP both must be the gradients of all ranks' images: the mean of the ranks' distances is another number.

    Args:
        synthetic: gradient of the loss on synthetic images, one tensor per parameter. Differentiable.
        real: gradient of the loss on real images, of the same shapes. Differentiable as well.
        metric: see the module.
        whitening: per parameter a constant W (n, n) for its rows of n entries, or None.

    Returns:
        A scalar.

    Raises:
        ValueError: the shapes differ, no tensor has rows to compare, or the metric is unknown.
    """
    value, _ = _check(synthetic, real, metric)
    synthetic, real = _whiten(synthetic, whitening), _whiten(real, whitening)
    if metric == "global_cosine":
        return value(_all_in_one_row(synthetic), _all_in_one_row(real))[0]
    means = [value(_rows(g), _rows(h)).mean() for g, h in zip(synthetic, real, strict=True) if g.dim() >= 2]
    return torch.stack(means).sum() / len(synthetic)


@torch.no_grad()
def gradient_distance_derivative(
    synthetic: Sequence[Tensor],
    real: Sequence[Tensor],
    metric: GradientMetric = "cosine",
    whitening: Sequence[Tensor | None] | None = None,
) -> list[Tensor]:
    """u = ∂D/∂g, in closed form: the tangent along which the annotator's labels are judged.

    For a row of the cosine distance u = −(ĝ/‖ĝ‖ − cos · g/‖g‖) / (P O ‖g‖): the part of the real gradient's direction that the
    synthetic gradient misses, orthogonal to the latter.

    Args:
        synthetic: g, one tensor per parameter.
        real: ĝ, of the same shapes.
        metric: see the module.
        whitening: as in `gradient_distance`.

    Returns:
        A tensor per parameter, of its shape; zeros where the metric does not look at it.

    Raises:
        ValueError: as `gradient_distance`.
    """
    _, derivative = _check(synthetic, real, metric)
    back = None if whitening is None else [None if w is None else w.T for w in whitening]
    synthetic, real = _whiten(synthetic, whitening), _whiten(real, whitening)
    if metric == "global_cosine":
        row = derivative(_all_in_one_row(synthetic), _all_in_one_row(real))[0]
        parts = row.split([g.numel() for g in synthetic])
        return _whiten([part.view(g.shape) for part, g in zip(parts, synthetic, strict=True)], back)
    found = [
        derivative(_rows(g), _rows(h)).view(g.shape) / (len(synthetic) * len(g))
        if g.dim() >= 2
        else torch.zeros_like(g)
        for g, h in zip(synthetic, real, strict=True)
    ]
    return _whiten(found, back)


def _cosine(g: Tensor, h: Tensor) -> Tensor:
    # The norms are replaced before the division, not after: a gradient through 0/0 is NaN even where it is not selected.
    return 1 - (g / _safe_norm(g) * (h / _safe_norm(h))).sum(dim=1)


def _cosine_derivative(g: Tensor, h: Tensor) -> Tensor:
    length = _safe_norm(g)
    g, h = g / length, h / _safe_norm(h)
    return ((g * h).sum(dim=1, keepdim=True) * g - h) / length


def _l2(g: Tensor, h: Tensor) -> Tensor:
    return torch.linalg.vector_norm(g - h, dim=1)


def _l2_derivative(g: Tensor, h: Tensor) -> Tensor:
    length = _l2(g, h)[:, None]
    return (g - h) / torch.where(length > 0, length, torch.inf)


def _dotprod(g: Tensor, h: Tensor) -> Tensor:
    return -(g * h).sum(dim=1)


def _dotprod_derivative(g: Tensor, h: Tensor) -> Tensor:
    return -h


def _relative(g: Tensor, h: Tensor) -> Tensor:
    return ((g - h) / _safe_norm(h)).square().sum(dim=1) / 2


def _relative_derivative(g: Tensor, h: Tensor) -> Tensor:
    return (g - h) / _safe_norm(h).square()


_Rowwise = Callable[[Tensor, Tensor], Tensor]
_METRICS: dict[str, tuple[_Rowwise, _Rowwise]] = {
    "cosine": (_cosine, _cosine_derivative),
    "l2": (_l2, _l2_derivative),
    "dotprod": (_dotprod, _dotprod_derivative),
    "relative": (_relative, _relative_derivative),
    "global_cosine": (_cosine, _cosine_derivative),
}
"""Distance of every row, and its derivative to the first argument."""


def _safe_norm(rows: Tensor) -> Tensor:
    """(O, n) to (O, 1); infinite for rows without a direction, which makes their unit vectors zero."""
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return torch.where(length > EPS, length, torch.inf)


def _whiten(tensors: Sequence[Tensor], whitening: Sequence[Tensor | None] | None) -> list[Tensor]:
    if whitening is None:
        return list(tensors)
    return [t if w is None else (_rows(t) @ w).view(t.shape) for t, w in zip(tensors, whitening, strict=True)]


def _rows(tensor: Tensor) -> Tensor:
    return tensor.flatten(1)


def _all_in_one_row(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])[None]


def _check(synthetic: Sequence[Tensor], real: Sequence[Tensor], metric: str) -> tuple[_Rowwise, _Rowwise]:
    if metric not in _METRICS:
        raise ValueError(f"unknown gradient metric '{metric}': expected one of {', '.join(_METRICS)}")
    shapes, expected = [tuple(g.shape) for g in synthetic], [tuple(h.shape) for h in real]
    if shapes != expected:
        raise ValueError(f"gradients of other parameters: shapes {shapes} against {expected}")
    if not any(g.dim() >= 2 or (metric == "global_cosine") for g in synthetic):
        raise ValueError(
            f"nothing to match: '{metric}' compares the rows of weights, and biases and norms alone have none"
        )
    return _METRICS[metric]
