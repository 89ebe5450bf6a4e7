"""A module call that is a function of its parameters alone: the same dropout each time, no buffer changed."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

Params = dict[str, Tensor]


@contextlib.contextmanager
def frozen_buffers(module: nn.Module) -> Iterator[None]:
    """Batch norms in training mode normalise by the batch as usual, but leave their running statistics as they are.

    With ``track_running_stats`` off, batch norm neither reads nor writes its buffers; unlike copied buffers this also works
    with forward-mode derivatives.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draws inside depend on ``seed`` alone; draws outside are as if the block were not there."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class Replayed:
    """``params -> loss(module(inputs))`` with the dropout masks of one seed, however often it is called.

    Args:
        module: called with ``params`` in place of its own parameters.
        inputs: its input.
        loss: maps its output to the result.
        seed: of dropout and drop path. Two calls that should share masks (a pass and its derivative) share the seed.
        track: whether batch norms update their running statistics; for at most one pass of a step.
    """

    def __init__(
        self, module: nn.Module, inputs: Tensor, loss: Callable[[Any], Tensor], seed: int, track: bool = False
    ) -> None:
        self.module, self.inputs, self.loss, self.seed, self.track = module, inputs, loss, seed, track

    def __call__(self, params: Params) -> Tensor:
        keep = contextlib.nullcontext() if self.track else frozen_buffers(self.module)
        with seeded(self.seed, self.inputs.device), keep:
            return self.loss(functional_call(self.module, params, (self.inputs,)))
