"""Options that change how long a step takes and how much memory it needs."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from segzoo.errors import ConfigError
from segzoo.options import check_values


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How the same step is computed. Not every method can use each of them; one that cannot refuses it.

    Args:
        compile: Runs the network's ordinary passes through torch.compile, which needs a C++ compiler or Triton.
        channels_last: Keeps the networks in channels-last memory, which tensor cores prefer, and CPUs where there are few
            channels.
        cuda_graph: Captures the meta update as a CUDA graph in the third step and launches it as a whole from then on, which
            saves the time that Python needs to launch kernels, in 32 or bf16-mixed precision; auto does so on a single GPU
            where it can, and true demands it, of several processes too (with NCCL).
        keep_outputs: Keeps what large layers of the network returned, for the derivative that metapix and reweight take after
            the source pass; switch it off to save this memory, for half a pass more per step.
        micro_batches: Passes a batch through the network in so many parts, which needs the memory of one part; batch norms then
            normalise each part by itself.
    """

    compile: bool = False
    channels_last: bool = False
    cuda_graph: bool | Literal["auto"] = False
    keep_outputs: bool = True
    micro_batches: int = 1

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: a value of another type, a choice that there is not.
        """
        check_values(type(self).__init__, vars(self), "speed")

    def refuse_others(self, usable: Sequence[str], method: str) -> None:
        """Refuses what a method has no use for.

        Args:
            usable: the options that it can use.
            method: its name.

        Raises:
            ConfigError: another one is set.
        """
        for field in fields(self):
            if field.name not in usable and getattr(self, field.name) != field.default:
                raise ConfigError(f"`speed.{field.name}` is nothing that the method '{method}' can use; leave it out")
