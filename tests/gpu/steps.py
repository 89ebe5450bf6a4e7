"""Training steps on CUDA in processes of their own: those whose failure would spoil the device for the tests that follow.

python -m tests.gpu.steps failing   a capture that fails, after which training goes on
python -m tests.gpu.steps nccl      captured collectives, under torchrun with one process
"""

import sys
import warnings
from typing import Any

import torch

import segzoo.distributed
import segzoo.methods.meta_update
from segzoo.methods.metapix import MetaPix
from tests import tiny

ON_CUDA: dict[str, Any] = {"accelerator": "cuda", "devices": 1, "precision": "64-true"}
GROUP_NORM = {"network": tiny.NETWORK | {"norm": "group"}}


class Ranks(int):
    """A number of ranks that is not taken for a single one, so that collectives are not left out."""

    def __eq__(self, other: object) -> bool:
        return False

    def __gt__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


def compare(captured: Any, usual: Any) -> None:
    """Raises where two trained methods differ."""
    for name, expected in usual.state_dict().items():
        torch.testing.assert_close(
            captured.state_dict()[name], expected, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )


def failing() -> None:
    """A step that reads a value cannot be captured: with auto it is computed as usual, dropout included."""
    usual = tiny.fit("metapix", 6, cuda_graph=False, trainer_options=ON_CUDA, **GROUP_NORM)
    normalise, reads = MetaPix._normalise, []

    def reading(self: MetaPix, raw: torch.Tensor, label: torch.Tensor) -> Any:
        reads.append(raw.detach().sum().item())
        return normalise(self, raw, label)

    MetaPix._normalise = reading  # type: ignore[method-assign]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tried = tiny.fit("metapix", 6, cuda_graph="auto", trainer_options=ON_CUDA, **GROUP_NORM)
    assert any("goes on without a CUDA graph" in str(w.message) for w in caught), [str(w.message) for w in caught]
    assert len(reads) == 6
    compare(tried, usual)
    torch.rand(3, device="cuda")
    MetaPix._normalise = normalise  # type: ignore[method-assign]
    compare(tiny.fit("metapix", 6, cuda_graph=True, trainer_options=ON_CUDA, **GROUP_NORM), usual)


def nccl() -> None:
    """Trains with captured collectives and without, under DDP on NCCL."""
    options = ON_CUDA | {"strategy": "ddp"}
    for module in (segzoo.distributed, segzoo.methods.meta_update):
        module.world_size = lambda: Ranks(1)  # type: ignore[attr-defined]
    for more in ({}, {"update": "paper"}, {"normalize": "softmax"}):
        settings = GROUP_NORM | more | {"virtual_lr": 0.5, "trainer_options": options}
        usual = tiny.fit("metapix", 6, cuda_graph=False, **settings)
        graphs: list[bool] = []
        end = MetaPix.on_train_end

        def ended(self: MetaPix, end: Any = end, graphs: list[bool] = graphs) -> None:
            graphs.append(self._captured is not None and self._captured.graph is not None)
            end(self)

        MetaPix.on_train_end = ended  # type: ignore[method-assign]
        captured = tiny.fit("metapix", 6, cuda_graph=True, **settings)
        MetaPix.on_train_end = end  # type: ignore[method-assign]
        assert graphs == [True]
        compare(captured, usual)
    assert torch.distributed.get_backend() == "nccl"


if __name__ == "__main__":
    {"failing": failing, "nccl": nccl}[sys.argv[1]]()
    print("done")
