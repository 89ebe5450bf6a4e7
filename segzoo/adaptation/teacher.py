"""The mean teacher: an exponential moving average of the student's parameters."""

import copy
from itertools import chain
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from segzoo.compat.tensors import BatchNorm, change_count, lerp_all_

Network = TypeVar("Network", bound=nn.Module)


def ema_decay(step: int, decay: float) -> float:
    """alpha_t = min(1 - 1 / (t + 1), decay): a copy at t = 0, a plain mean for a while, then the moving average."""
    return min(1 - 1 / (step + 1), decay)


class EmaTeacher(nn.Module, Generic[Network]):
    """A frozen copy of the student whose parameters follow it: theta' <- alpha_t theta' + (1 - alpha_t) theta.

    Dropout and drop path are off in whatever mode the teacher is put. As published (``buffers=False``) its batch norms always
    use the statistics of the batch: it has no running statistics, neither in memory nor in its state. Norms that the student
    keeps frozen are frozen here too. Ranks with equal students keep equal teachers.

    Args:
        student: the network, in any mode; a ``student.compile()`` is not taken over.
        decay: the largest alpha_t.
        buffers: average the buffers as well (integers are copied) and let the batch norms use these running statistics.
    """

    # `torch.optim.swa_utils.AveragedModel` pairs tensors by position, so that it demands the running statistics we drop, would
    # put integer buffers through our average, and leaves modes and gradients to us: with it the class would be no shorter.

    step: Tensor

    def __init__(self, student: Network, decay: float = 0.999, buffers: bool = False) -> None:
        super().__init__()
        self.network: Network = copy.deepcopy(student).requires_grad_(False)
        self.decay, self.average_buffers = decay, buffers
        self.register_buffer("step", torch.tensor(0))
        self._known = 0, self.step, change_count(self.step)
        if not buffers:
            self.network.train()
            for module in self.network.modules():
                # A norm that `train` leaves in evaluation is frozen.
                if isinstance(module, BatchNorm) and module.training:
                    module.track_running_stats = False
                    module.running_mean = module.running_var = module.num_batches_tracked = None
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Evaluation whatever ``mode``, but for the batch norms without running statistics."""
        super().train(False)
        for module in self.network.modules():
            if isinstance(module, BatchNorm) and module.running_mean is None:
                # Not by `train`: timm's norms hold a dropout. Needed: only in training are statistics those of all ranks.
                module.training = True
        return self

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """One step of the average. The first copies, buffers included; later ones leave buffers alone unless asked for them.

        Raises:
            KeyError: the student lacks a parameter of the network that the teacher was made of.
        """
        t = self._steps()
        theirs = dict(chain(student.named_parameters(), student.named_buffers()))
        own: dict[str, Tensor] = dict(self.network.named_parameters())
        if t == 0 or self.average_buffers:
            own |= dict(self.network.named_buffers())
        # At first a copy, not an average with weight 1: that is exact for finite values only, and masks may hold -inf.
        averaged = {name: x for name, x in own.items() if t > 0 and x.is_floating_point()}
        if averaged:
            weight = 1 - ema_decay(t, self.decay)
            lerp_all_(list(averaged.values()), [theirs[name] for name in averaged], weight)
        for name in own.keys() - averaged.keys():
            own[name].copy_(theirs[name])
        self.step += 1
        self._known = t + 1, self.step, change_count(self.step)

    def _steps(self) -> int:
        # Read from a device only where somebody else, such as a checkpoint, has set it: the host would wait for it.
        count, step, version = self._known
        return count if step is self.step and version == change_count(step) else int(self.step)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's output, without graph."""
        return self.network(*args, **kwargs)
