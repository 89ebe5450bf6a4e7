"""A function of tensors as a CUDA graph: captured once, and then launched as a whole.

A bilevel step consists of thousands of small kernels. A GPU computes them faster than Python launches them, and spends
most of the time waiting. A captured graph is launched by one call.
"""

import atexit
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from segzoo.bilevel.errors import CaptureError
from segzoo.bilevel.passes import CapturedSeeds
from segzoo.compat.tensors import abandon_capture, own_stream

Result = TypeVar("Result")
WARMUP = 2
"""Ordinary calls before the one that is captured: libraries choose their kernels and reserve their memory in them."""


class Graphed(Generic[Result]):
    """``run``, from its third call on as a CUDA graph. The numbers are the same, dropout masks included.

    Every call has to launch the same kernels on the same memory. So ``run`` must not read values of tensors (``item``, masks as
    indices) nor copy from the CPU; tensors that it uses besides its inputs must stay where they are, and numbers must stay the
    same. What it changes in place, such as running statistics, every call changes. Inputs of another shape than the captured
    ones are computed as usual. Collectives of NCCL are launched with the rest; then all ranks have to call alike, with inputs
    of the same shapes.

    Args:
        run: computes with tensors of one CUDA device; with `Replayed` for what draws random numbers.
        draw_seed: what ``run`` takes the seeds of its passes from, one after the other.
        seeds: how many of them it takes. Each may be used twice, by a pass and by its derivative.
    """

    def __init__(self, run: Callable[..., Result], draw_seed: Callable[[], int], seeds: int) -> None:
        self.run, self.draw_seed, self.count = run, draw_seed, seeds
        self.calls = 0
        self.inputs: list[Tensor] = []
        self.graph: torch.cuda.CUDAGraph | None = None
        self.failed = False

    def __call__(self, *inputs: Tensor) -> Result:
        """The result, whose tensors the next call overwrites.

        Raises:
            CaptureError: ``run`` does what cannot be captured; it can still be computed as usual.
            OutOfMemoryError: the graph needs more memory than there is.
        """
        self.calls += 1
        if self.calls <= WARMUP:
            return self.run(*inputs)
        if self.graph is None:
            self._capture(inputs)
        assert self.graph is not None
        if any(x.shape != own.shape for x, own in zip(inputs, self.inputs, strict=True)):
            return self.run(*inputs)
        for x, own in zip(inputs, self.inputs, strict=True):
            own.copy_(x)
        self.seeds.renew(self.draw_seed)
        self.graph.replay()
        return self.result

    def release(self) -> None:
        """Gives the memory of the graph back."""
        if self.graph is not None:
            self.graph.reset()
            self.graph = None
            del self.result, self.seeds

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        device, graph, pool = inputs[0].device, torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        self.inputs = [x.clone() for x in inputs]
        self.seeds = CapturedSeeds(graph, device, self.count)
        # Nothing is computed yet; so the seeds that are drawn here will be drawn again. Other threads may pin memory meanwhile,
        # and NCCL's may look after collectives.
        try:
            with own_stream(device), torch.random.fork_rng(devices=[]):
                drawn = self._state_after_seeds()
                with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"), self.seeds:
                    self.result = self.run(*self.inputs)
                if not torch.equal(torch.get_rng_state(), drawn):
                    raise RuntimeError("a layer draws random numbers on the host, which every launch would repeat")
        except RuntimeError as error:
            self.failed = True
            abandon_capture(device, pool)
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = " ".join(str(error.__context__ or error).split())[:160]
            raise CaptureError(
                f"this step cannot be captured as a CUDA graph ({reason}); compute it as usual (cuda_graph false)"
            ) from error
        self.graph = graph
        # NCCL does not end before the graphs that launch its collectives, and an error leaves this object alive.
        atexit.register(_release, weakref.ref(self))

    def _state_after_seeds(self) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            for _ in range(self.count):
                self.draw_seed()
            return torch.get_rng_state()


def _release(graphed: Callable[[], Graphed[Any] | None]) -> None:
    found = graphed()
    if found is not None:
        found.release()
