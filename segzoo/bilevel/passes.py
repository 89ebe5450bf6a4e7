"""A module call that is a function of its parameters alone: the same dropout each time, no buffer changed."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from segzoo.compat.tensors import BatchNorm, compiled_call, cuda_generator, set_compiled_call

Params = dict[str, Tensor]


@contextlib.contextmanager
def frozen_buffers(module: nn.Module) -> Iterator[None]:
    """Batch norms in training mode normalise by the batch as usual, but leave their running statistics as they are.

    With ``track_running_stats`` off, batch norm neither reads nor writes its buffers; unlike copied buffers this also works
    with forward-mode derivatives.
    """
    norms = [m for m in module.modules() if isinstance(m, BatchNorm) and m.training and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


class CapturedSeeds:
    """Inside, `seeded` blocks can be captured in a CUDA graph, which no seed can be set for; `renew` sets those of a launch.

    A graph advances the random-number states that it has used with every launch. A pass and its derivative, which have one
    seed, get a state each: so both draw the same numbers in every launch.

    Args:
        graph: not captured yet.
        device: of all draws.
        count: of seeds; each can be used twice.
    """

    active: ClassVar["CapturedSeeds | None"] = None

    def __init__(self, graph: torch.cuda.CUDAGraph, device: torch.device, count: int) -> None:
        self.generator = cuda_generator(device)
        self.states = [[self.generator.clone_state() for _ in range(2)] for _ in range(count)]
        for state in [state for pair in self.states for state in pair]:
            graph.register_generator_state(state)
        self._unused = iter(self.states)
        self._of: dict[int, Iterator[torch.Generator]] = {}

    def renew(self, draw: Callable[[], int]) -> None:
        """New seeds, in the order in which the blocks were captured."""
        for pair in self.states:
            seed = draw()
            for state in pair:
                state.manual_seed(seed)

    @contextlib.contextmanager
    def of(self, seed: int) -> Iterator[None]:
        """A block of this seed."""
        if seed not in self._of:
            self._of[seed] = iter(next(self._unused))
        before = self.generator.graphsafe_get_state()
        self.generator.graphsafe_set_state(next(self._of[seed]))
        try:
            yield
        finally:
            self.generator.graphsafe_set_state(before)

    def __enter__(self) -> Self:
        CapturedSeeds.active = self
        return self

    def __exit__(self, *_: object) -> None:
        CapturedSeeds.active = None


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draws inside depend on ``seed`` alone; draws outside are as if the block were not there."""
    if CapturedSeeds.active is not None:
        with CapturedSeeds.active.of(seed):
            yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _forked_mps(device):
        # torch.manual_seed notes a stack trace for every kind of accelerator that was not used yet.
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        yield


@contextlib.contextmanager
def _forked_mps(device: torch.device) -> Iterator[None]:
    # `fork_rng` asks each device by its number, which Apple's module does not know.
    state = device_random_state(device) if device.type == "mps" else None
    try:
        yield
    finally:
        if state is not None:
            set_device_random_state(state, device)


def device_random_state(device: torch.device) -> Tensor:
    """Where the random numbers of an accelerator are."""
    return torch.mps.get_rng_state() if device.type == "mps" else torch.cuda.get_rng_state(device)


def set_device_random_state(state: Tensor, device: torch.device) -> None:
    """Goes on from there."""
    if device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.cuda.set_rng_state(state, device)


@contextlib.contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """Calls inside run eagerly even where ``module.compile()`` was called: compiled code drops tangents without an error."""
    compiled = [(m, call) for m in module.modules() if (call := compiled_call(m)) is not None]
    for m, _ in compiled:
        set_compiled_call(m, None)
    try:
        yield
    finally:
        for m, call in compiled:
            set_compiled_call(m, call)


@contextlib.contextmanager
def moved(params: Mapping[str, Tensor], values: dict[str, Tensor]) -> Iterator[None]:
    """The parameters hold ``values`` inside, and their own values, to the last bit, afterwards.

    The parameters themselves are moved, so that hooks and compiled code see it. The two change places, which copies nothing and
    computes nothing back; ``values`` is used up.
    """
    _exchange(params, values)
    try:
        yield
    finally:
        _exchange(params, values)


@torch.no_grad()
def _exchange(params: Mapping[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        p = params[name]
        if is_sharded(p):  # FSDP2 gathers from a storage of its own, which has to hold the values
            before = p.detach().clone()
            p.copy_(value)
            value.copy_(before)
        else:
            p.data, values[name] = value, p.data


def check_weights(weights: Tensor, losses: Tensor) -> None:
    """Refuses weights that would be spread over the losses of pixels that they were not made for.

    Raises:
        ValueError: the shapes differ.
    """
    if weights.shape != losses.shape:
        raise ValueError(
            f"weights of shape {tuple(weights.shape)} for per-pixel losses of shape {tuple(losses.shape)}; "
            "expected one per loss"
        )


def is_sharded(tensor: Any) -> bool:
    """Whether a tensor is spread over the ranks: a DTensor, whose module is slow to import."""
    return hasattr(tensor, "placements")


def any_seed() -> int:
    """Of dropout, one for a pass and its derivative: both drop the same units."""
    return int(torch.randint(2**31, ()))


class Replayed:
    """``loss(module(inputs))`` with the dropout masks of one seed, however often it is called.

    Called without an argument it is an ordinary (compiled, if the module is) call at the module's present parameters; called
    with parameters by name it uses those instead, eagerly, and leaves the module alone.

    Args:
        module: what is called.
        inputs: its input.
        loss: maps its output to the result.
        seed: of dropout and drop path. Two calls that should share masks (a pass and its derivative) share the seed.
        track: whether batch norms update their running statistics; for at most one pass of a step.
        around: makes the context of every call from the module.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Tensor,
        loss: Callable[[Any], Tensor],
        seed: int,
        track: bool = False,
        around: Callable[[nn.Module], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        self.module, self.inputs, self.loss, self.seed, self.track = module, inputs, loss, seed, track
        self.around = around

    def __call__(self, params: Mapping[str, Tensor] | None = None) -> Tensor:
        keep = contextlib.nullcontext() if self.track else frozen_buffers(self.module)
        with seeded(self.seed, self.inputs.device), keep, self.around(self.module):
            if params is None:
                reshard: Any = getattr(self.module, "reshard", None)
                if reshard is not None:  # FSDP2's root keeps what it gathered, moved parameters or not
                    reshard()
                return self.loss(self.module(self.inputs))
            with uncompiled(self.module):
                return self.loss(functional_call(self.module, dict(params), (self.inputs,)))
