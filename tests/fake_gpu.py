"""Training steps on a GPU that is not there.

Torch's fake tensors have shape, dtype and device, but no values. With them a step finds out, without any GPU, whether two
tensors of an operation lie on different devices, and what would make the host wait for the device. Not seen are the optimiser,
the callbacks, functions of linear algebra that check their results, and what happens within backward passes: a gradient is an
empty tensor like its variable.
"""

import contextlib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import segzoo
from segzoo.methods.late_checks import LateChecks
from tests import tiny

aten = torch.ops.aten
ROOT = Path(segzoo.__file__).parent
LOOKS_AT_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
DRAWN = 0.3
"""What is read of numbers that were drawn on the host: small enough for every augmentation to take place."""


class Waits(TorchDispatchMode):
    """Notes what makes the host wait for the device, and answers what fake tensors cannot.

    Attributes:
        found: how often the host waited, by the function of segzoo and the operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self._pinned: list[Tensor] = []
        self._arriving: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        devices = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        if func in (aten._to_copy.default, aten.copy_.default):
            return self._copy(func, args, kwargs)
        if func is aten._pin_memory.default:
            if "cuda" in devices:
                raise RuntimeError("cannot pin what is on a GPU")
            self._pinned.append(args[0].clone())
            return self._pinned[-1]
        if func is aten._local_scalar_dense.default:
            if "cuda" in devices or any(args[0] is x for x in self._arriving):
                self._note("reads a number")
            dtype = args[0].dtype
            return False if dtype == torch.bool else DRAWN if dtype.is_floating_point else 1
        if func in (aten.stack.default, aten.cat.default) and len(devices) > 1:
            raise RuntimeError("tensors of the host and of cuda are put together")
        if func.namespace == "c10d" and "cpu" in devices:
            raise RuntimeError("NCCL takes tensors of cuda alone")
        if func in INDEXED:
            return func(args[0], self._places(args[0], args[1]), *args[2:], **kwargs)
        if "cuda" in devices and LOOKS_AT_VALUES & set(func.tags):
            self._note(func.name())
        if func is aten.nonzero.default:
            return args[0].new_empty((_some(args[0]), args[0].dim()), dtype=torch.int64)
        if func is aten.bincount.default:
            return args[0].new_empty(args[2] if len(args) > 2 else kwargs["minlength"], dtype=torch.int64)
        return func(*args, **kwargs)

    def _copy(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Between host and device only pinned memory is sent without a wait, and what arrives is there after an event."""
        own = args[0] if func is aten._to_copy.default else args[1]
        onto = torch.device(kwargs.get("device") or args[0].device).type
        follows = kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2])
        if own.device.type != onto and not (follows and (onto == "cpu" or any(own is x for x in self._pinned))):
            self._note(f"copies {tuple(own.shape)}")
        found = func(*args, **kwargs)
        if own.device.type == "cuda" and onto == "cpu":
            self._arriving.append(found)
        return found

    def _places(self, x: Tensor, indices: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Indices that fake tensors take: numbers instead of a mask."""
        places: list[Tensor | None] = []
        for index in indices:
            if index is not None and x.is_cuda and not index.is_cuda:
                self._note("indexes by what is on the host")
            if index is None or index.dtype not in (torch.bool, torch.uint8):
                places.append(index)
                continue
            if x.is_cuda:
                self._note("indexes by a mask")
            places += [index.new_zeros(_some(index), dtype=torch.int64)] * index.dim()
        return places

    def _note(self, what: str) -> None:
        own = [f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(ROOT)]
        self.found[f"{own[-1].name if own else '?'} {what}"] += 1


INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


def _some(mask: Tensor) -> int:
    return max(mask.numel() // 2, 1)


class Stream:
    """One of CUDA, with events: that something was sent before is what is noted."""

    def record_event(self) -> "Stream":
        """An event."""
        return self

    def synchronize(self) -> None:
        """Nothing."""


@contextlib.contextmanager
def no_driver() -> Iterator[None]:
    """Replaces what asks the driver."""
    real = torch.autograd.grad

    def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(x, FakeTensor) for x in tree_leaves((outputs, inputs))):
            return real(outputs, inputs, *args, **kwargs)
        return tuple(torch.empty_like(x) for x in ([inputs] if isinstance(inputs, Tensor) else inputs))

    def nothing(*_: Any, **__: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch("torch.autograd.grad", grad))
        stack.enter_context(patch("torch.cuda.current_stream", lambda *_: Stream()))
        stack.enter_context(patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False))
        stack.enter_context(patch("torch.cuda.is_bf16_supported", lambda *_: True))
        for name in ("random.fork_rng", "cuda.device", "cuda.manual_seed", "cuda.get_rng_state", "cuda.set_rng_state"):
            stack.enter_context(patch(f"torch.{name}", nothing))
        yield


@contextlib.contextmanager
def on_fake_gpu(module: Any) -> Iterator[Callable[[Any], Any]]:
    """Parameters and buffers of a module as fake tensors of a GPU; gives a function that makes such tensors of a batch."""
    held: list[tuple[dict[str, Any], str, Tensor]] = []
    device = module._device

    def fake(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")

    with no_driver(), FakeTensorMode():
        try:
            for part in module.modules():
                for tensors in (part._parameters, part._buffers):
                    for name, x in [*tensors.items()]:
                        if x is not None:
                            held.append((tensors, name, x))
                            tensors[name] = (
                                nn.Parameter(fake(x), x.requires_grad) if isinstance(x, nn.Parameter) else fake(x)
                            )
            module._device = torch.device("cuda", 0)
            yield lambda batch: tree_map(fake, batch)
        finally:
            for tensors, name, x in held:
                tensors[name] = x
            module._device = device


@contextlib.contextmanager
def among_ranks(ranks: int) -> Iterator[None]:
    """The first of several processes. The others are not there: what they send is taken for what this one has."""
    if ranks > 1:
        dist.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())
    try:
        yield
    finally:
        if ranks > 1:
            dist.destroy_process_group()


class FakeSteps(L.Callback):
    """Takes two steps on a fake GPU before the second step of a training, whose state they need, and ends the training.

    The first one may read what was put there without its doing; the waits of the second one count. A third one is logged.

    Args:
        half: whether in bfloat16.
        ranks: as one of how many processes, of which the others are not there, either.

    Attributes:
        waits: see `Waits`.
    """

    def __init__(self, half: bool, ranks: int = 1) -> None:
        self.half, self.ranks = half, ranks
        self.waits: Counter[str] = Counter()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Before the second one."""
        if batch_idx != 1:
            return
        own = {
            "log": lambda *_, **__: None,
            "log_dict": lambda *_, **__: None,
            "_checks_late": lambda: True,  # as with fused optimisers
        }
        with (
            among_ranks(self.ranks),
            on_fake_gpu(pl_module) as fake,
            patch.multiple(pl_module, **own),
            torch.autocast("cuda", torch.bfloat16, self.half),
        ):
            for _ in range(2):
                with Waits() as waits:
                    loss = pl_module.training_step(fake(batch), batch_idx)
                    assert loss.device.type == "cuda" and loss.requires_grad
            self.waits = waits.found
            with Waits(), patch.object(trainer, "log_every_n_steps", 1):  # which may wait, but mixes no devices, either
                pl_module.training_step(fake(batch), batch_idx)
            pl_module._late = LateChecks()
        trainer.should_stop = True


def waits_of_a_step(slug: str, half: bool = True, ranks: int = 1, **options: Any) -> Counter[str]:
    """How often, and in which functions, a step of a tiny method would wait for a GPU, as one of so many processes.

    Raises:
        RuntimeError: it mixes devices.
    """
    steps = FakeSteps(half, ranks)
    tiny.fit(slug, 3, trainer_options={"log_every_n_steps": 1000, "callbacks": [steps]}, **options)
    return steps.waits
