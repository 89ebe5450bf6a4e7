"""Training steps on a GPU that is not there.

Torch's fake tensors have shape, dtype and device, but no values. With them a step finds out, without any GPU, whether two
tensors of an operation lie on different devices, and what would make the host wait for the device. Not seen are the optimiser,
and what happens within backward passes: a gradient is an empty tensor like its variable.
"""

import contextlib
import traceback
from collections.abc import Callable, Iterator, Mapping
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
from tests import tiny

aten = torch.ops.aten
ROOT = Path(segzoo.__file__).parent
LOOKS_AT_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
DRAWN = 0.3
"""What is read of numbers that were drawn on the host: small enough for every augmentation to take place."""


class Waits(TorchDispatchMode):
    """Notes what makes the host wait for the device, and answers what fake tensors cannot.

    Attributes:
        found: the functions of segzoo in which it waited, each with the operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        devices = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        if func in (aten._to_copy.default, aten.copy_.default):
            copied = devices | {torch.device(kwargs.get("device") or args[0].device).type}
            if len(copied) == 2 and not (kwargs.get("non_blocking") or (len(args) > 2 and args[2])):
                self._note(f"copies {tuple(args[0].shape)}")
        if func is aten._local_scalar_dense.default:
            if "cuda" in devices:
                self._note("reads a number")
            dtype = args[0].dtype
            return False if dtype == torch.bool else DRAWN if dtype.is_floating_point else 1
        if func is aten._pin_memory.default:
            return args[0]
        if func is aten.index.Tensor:
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            if masks and "cuda" in devices:
                self._note("indexes by a mask")
            return func(args[0], [i for mask in args[1] for i in _integers(mask)])
        if "cuda" in devices and LOOKS_AT_VALUES & set(func.tags):
            self._note(func.name())
        if func is aten.nonzero.default:
            return args[0].new_empty((_some(args[0]), args[0].dim()), dtype=torch.int64)
        if func is aten.bincount.default:
            return args[0].new_empty(args[2] if len(args) > 2 else kwargs["minlength"], dtype=torch.int64)
        return func(*args, **kwargs)

    def _note(self, what: str) -> None:
        own = [f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(ROOT)]
        self.found.add(f"{own[-1].name if own else '?'} {what}")


def _some(mask: Tensor) -> int:
    return max(mask.numel() // 2, 1)


def _integers(index: Tensor | None) -> list[Tensor | None]:
    if index is None or index.dtype not in (torch.bool, torch.uint8):
        return [index]
    return [index.new_zeros(_some(index), dtype=torch.int64)] * index.dim()


class Event:
    """One of CUDA, after which nothing has to be waited for: that something was sent before is what is noted."""

    def record(self) -> None:
        """Nothing."""

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
        stack.enter_context(patch("torch.cuda.Event", Event))
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
    """Takes steps on a fake GPU before the second step of a training, whose state they need, and ends the training.

    The first of them may read what was put there without its doing; from the second one on waits count.

    Args:
        half: whether in bfloat16.
        ranks: as one of how many processes, of which the others are not there, either.
        steps: how many.

    Attributes:
        waits: see `Waits`.
    """

    def __init__(self, half: bool, ranks: int = 1, steps: int = 3) -> None:
        self.half, self.ranks, self.steps = half, ranks, steps
        self.waits: set[str] = set()

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
            for _ in range(self.steps):
                with Waits() as waits:
                    loss = pl_module.training_step(fake(batch), batch_idx)
                    assert loss.device.type == "cuda" and loss.requires_grad
            self.waits = waits.found
            pl_module._late.__init__()
        trainer.should_stop = True


def waits_of_a_step(slug: str, half: bool = True, ranks: int = 1, **options: Any) -> set[str]:
    """In which functions a step of a tiny method would wait for a GPU, as one of so many processes.

    Raises:
        RuntimeError: it mixes devices.
    """
    steps = FakeSteps(half, ranks)
    settings = {"log_every_n_steps": 1000} | options.pop("trainer_options", {})
    tiny.fit(slug, 3, trainer_options=settings | {"callbacks": [steps]}, **options)
    return steps.waits
