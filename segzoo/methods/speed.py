"""Options that change how long a step takes and how much memory it needs."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from segzoo.errors import ConfigError
from segzoo.options import check_values


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How a step is computed. A method refuses the options that it cannot use.

    Args:
        compile: Runs the network's normal passes through torch.compile, which needs a C++ compiler or Triton.
        channels_last: Keeps the networks in channels-last memory, which is faster on tensor cores, and on CPUs for networks
            with few channels.
        cuda_graph: Captures the meta update as a CUDA graph in the third step and replays it from then on, which saves the time
            that Python needs to launch kernels; it needs 32 or bf16-mixed precision. With auto, this happens on a single GPU if
            possible; true demands it, also with several processes (NCCL).
        keep_outputs: Keeps the outputs of large layers of the network, for the derivative that metapix and reweight compute
            after the source pass; false saves this memory and costs half a pass more per step.
        micro_batches: Divides a batch into this number of parts, so that it needs the memory of one part; batch norms then
            normalise each part separately.
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
