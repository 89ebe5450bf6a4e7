"""The hypergradient of per-pixel weights through one step of training.

With per-pixel losses l_i(theta), weights w_i and a step theta' = theta - S(g) along g = grad (1/N) sum_i w_i l_i(theta),

    dL_T(theta') / dw_i = -(1/N) <grad l_i(theta), u>,        u = S'(g)^T grad L_T(theta').

The inner products of *all* pixels are one forward-mode derivative of the loss map along u: no second-order graph, the memory
of a plain step. This package knows tensors and modules only, neither segmentation nor Lightning.
"""

from segzoo.bilevel.attach import attach_gradient
from segzoo.bilevel.engines import Engine, Hypergradient, Pass, hypergradient
from segzoo.bilevel.errors import (
    CaptureError,
    DerivativeError,
    LostTangentError,
    MissingDerivativeError,
    ShardedParametersError,
)
from segzoo.bilevel.graphed import Graphed
from segzoo.bilevel.jvp import pixel_jvp
from segzoo.bilevel.kept import Kept, keeping, reusing
from segzoo.bilevel.passes import Replayed, any_seed, frozen_buffers
from segzoo.bilevel.virtual import ClippedStep, OptimizerStep, SGDStep, VirtualStep

__all__ = [
    "CaptureError",
    "ClippedStep",
    "DerivativeError",
    "Engine",
    "Graphed",
    "Hypergradient",
    "Kept",
    "LostTangentError",
    "MissingDerivativeError",
    "OptimizerStep",
    "Pass",
    "Replayed",
    "SGDStep",
    "ShardedParametersError",
    "VirtualStep",
    "any_seed",
    "attach_gradient",
    "frozen_buffers",
    "hypergradient",
    "keeping",
    "pixel_jvp",
    "reusing",
]
