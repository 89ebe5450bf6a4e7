"""Dual numbers without the checks that torch's own functions make at each of some hundred calls of a pass.

`torch.autograd.forward_ad.make_dual` takes 16 microseconds where these take 2. They are for use inside `dual_level`.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor

from segzoo.compat import tensors

_LEVEL = 0  # levels cannot be nested


class Dual(NamedTuple):
    """A value and its tangent, None for a constant."""

    value: Tensor
    tangent: Tensor | None


@contextlib.contextmanager
def dual_level() -> Iterator[None]:
    """Dual numbers live inside; afterwards their tangents are gone."""
    with fwAD.dual_level():
        zero = torch.zeros(())
        fwAD.make_dual(zero, zero)  # the first call of a process loads derivatives that are written in Python
        yield


def make_dual(value: Tensor, tangent: Tensor) -> Tensor:
    """A view of ``value`` with a tangent of its shape and dtype."""
    return tensors.make_dual(value, tangent, level=_LEVEL)


def unpack_dual(tensor: Tensor) -> Dual:
    """The parts of a tensor, dual or not."""
    return Dual(*tensors.unpack_dual(tensor, level=_LEVEL))
