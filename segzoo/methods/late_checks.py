"""Checks of a step's losses that the host reads one step late, so that it need not wait for the device."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from segzoo.compat.tensors import skip_unless_zero
from segzoo.floats import widest
from segzoo.nonblocking import Fetched

NonFinite = tuple[int, dict[str, float]]
"""A step, and those of its values that are NaN or infinite."""


class LateChecks:
    """The values of a step on their way to the host. Where one is not finite, the device itself leaves that step out.

    A host that waits for every loss launches the backward pass and the optimiser while the device has nothing to do. A fused
    optimiser can be told on the device to change neither parameters nor its state: until the host has read what was wrong,
    nothing has come of it.
    """

    def __init__(self) -> None:
        self._step, self._names = 0, list[str]()
        self._sent: Fetched | None = None
        self._flag: Tensor | None = None

    def send(self, step: int, means: Mapping[str, Tensor]) -> None:
        """Sends values of a step to the host, after those before them were read.

        Args:
            step: its number.
            means: scalars of one device, the same on all ranks.
        """
        values = torch.stack([widest(mean.detach()) for mean in means.values()])
        bad = (~torch.isfinite(values)).any().float()
        self._flag = bad if self._flag is None else torch.maximum(self._flag, bad)  # of all accumulated batches
        self._step, self._names = step, list(means)
        self._sent = Fetched(values)

    def guard(self, optimizer: Optimizer) -> None:
        """Before a step of the optimiser: it changes nothing where a value that was sent is not finite."""
        if self._flag is not None:
            skip_unless_zero(optimizer, self._flag)
            self._flag = None

    def read(self) -> NonFinite | None:
        """What was wrong with the values that were sent last, once; None if nothing."""
        sent, self._sent = self._sent, None
        if sent is None:
            return None
        found = dict(zip(self._names, sent.read().tolist(), strict=True))
        bad = {name: value for name, value in found.items() if not math.isfinite(value)}
        return (self._step, bad) if bad else None


def skips_on_device(optimizer: Optimizer) -> bool:
    """Whether an optimiser can leave out a step by what the device finds: a fused one whose state is there.

    SGD makes its momenta in its first step, from gradients that must be good.
    """
    groups = optimizer.param_groups
    if not all(group.get("fused") for group in groups):
        return False
    if not isinstance(optimizer, SGD):
        return True
    states = [optimizer.state.get(p, {}) for group in groups for p in group["params"]]
    return all(state.get("momentum_buffer") is not None for state in states)
