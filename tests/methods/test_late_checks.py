"""Checks that the host reads one step late: the step that they find is not made, and the error says which it was."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from segzoo.callbacks import LastCheckpoint
from segzoo.compat.tensors import leave_scaling_to_scaler, skip_unless_zero
from segzoo.errors import NonFiniteLossError
from segzoo.methods.base import Method
from segzoo.methods.joint import JointTraining
from segzoo.methods.late_checks import LateChecks, skips_on_device
from segzoo.methods.optimizer import Optimizer as OptimizerOptions
from segzoo.methods.registry import load_method
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore")
FUSED: list[tuple[type[Optimizer], dict[str, Any]]] = [(AdamW, {}), (Adam, {}), (SGD, {"momentum": 0.9})]


def stepped(cls: type[Optimizer], options: dict[str, Any], flags: list[float | None]) -> tuple[list[Tensor], Optimizer]:
    torch.manual_seed(0)
    net = nn.Linear(3, 4)
    optimizer = cls(net.parameters(), lr=0.1, fused=True, **options)  # type: ignore[call-arg]
    for flag in flags:
        for p in net.parameters():
            p.grad = torch.full_like(p, math.nan if flag else 1.0)
        if flag is not None:
            skip_unless_zero(optimizer, torch.tensor(flag))
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()], optimizer


@pytest.mark.parametrize(("cls", "options"), FUSED)
def test_a_step_that_is_left_out_changes_nothing(cls: type[Optimizer], options: dict[str, Any]) -> None:
    usual, expected = stepped(cls, options, [None, None])
    others, optimizer = stepped(cls, options, [0.0, 1.0, 0.0, 1.0])
    assert all(torch.equal(a, b) for a, b in zip(usual, others, strict=True))
    states = (list(o.state.values()) for o in (expected, optimizer))
    for one, other in zip(*states, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(torch.as_tensor(one[k]), torch.as_tensor(other[k])) for k in one)


def test_an_optimizer_can_leave_out_a_step_once_its_state_is_there() -> None:
    assert skips_on_device(stepped(AdamW, {}, [])[1])
    assert not skips_on_device(stepped(SGD, {"momentum": 0.9}, [])[1])
    assert skips_on_device(stepped(SGD, {"momentum": 0.9}, [None])[1])
    assert not skips_on_device(AdamW(nn.Linear(2, 2).parameters()))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_fused_optimizers_leave_unscaling_to_the_scaler(name: Any) -> None:
    """Lightning clips no gradients of one that does not, and a scaler lets it step without looking."""
    groups = [{"name": "a", "params": list(nn.Linear(2, 2).parameters()), "lr": 0.1, "weight_decay": 0.0}]
    optimizer = OptimizerOptions(name=name).create(groups, fused=True)
    assert optimizer.param_groups[0]["fused"] and not optimizer._step_supports_amp_scaling  # type: ignore[attr-defined]
    untouched = AdamW(nn.Linear(2, 2).parameters(), fused=True)
    assert untouched._step_supports_amp_scaling  # type: ignore[attr-defined]
    leave_scaling_to_scaler(untouched)
    assert not untouched._step_supports_amp_scaling  # type: ignore[attr-defined]


def test_what_was_sent_is_read_once() -> None:
    late = LateChecks()
    assert late.read() is None
    late.send(3, {"a": torch.tensor(1.0), "b": torch.tensor(math.inf)})
    assert late.read() == (3, {"b": math.inf}) and late.read() is None
    late.send(4, {"a": torch.tensor(1.0)})
    assert late.read() is None


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that computes as CUDA does: fused, and checked late."""
    create = OptimizerOptions.create
    monkeypatch.setattr(OptimizerOptions, "create", lambda self, groups, fused=False: create(self, groups, True))
    monkeypatch.setattr(Method, "_checks_late", lambda self: skips_on_device(self.optimizers(use_pl_optimizer=False)))


def spoil_step(monkeypatch: pytest.MonkeyPatch, step: int, seen: dict[str, Any]) -> None:
    """Makes the loss of one step a NaN, after noting the parameters that it began with."""
    terms = JointTraining.weighted_terms

    def spoiled(self: Any, *args: Any) -> dict[str, Tensor]:
        found = terms(self, *args)
        if self.global_step == step:
            seen["before"] = {n: p.detach().clone() for n, p in self.named_parameters()}
            found["source"] = found["source"] * math.nan
        return found

    monkeypatch.setattr(JointTraining, "weighted_terms", spoiled)


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("steps", [3, 6])  # the bad step is the last one, or others follow
def test_a_bad_step_is_not_made_and_is_an_error_with_its_number(
    name: str, steps: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}
    spoil_step(monkeypatch, 2, seen)
    options = {"callbacks": [LastCheckpoint(tmp_path, every_n_steps=100)], "enable_checkpointing": True}
    with pytest.raises(
        NonFiniteLossError, match=r"non-finite loss at step 2: source = nan; the parameters before this step"
    ):
        tiny.fit("joint", steps, optimizer={"name": name}, trainer_options=options)
    saved = torch.load(tmp_path / "checkpoints" / "last-good.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(saved[n], p) for n, p in seen["before"].items())


@pytest.mark.usefixtures("fused")
def test_no_checkpoint_and_no_validation_pass_over_a_bad_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spoil_step(monkeypatch, 1, {})
    options = {"callbacks": [LastCheckpoint(tmp_path, every_n_steps=1)], "enable_checkpointing": True}
    with pytest.raises(NonFiniteLossError, match="at step 1: source"):
        tiny.fit("joint", 6, trainer_options=options)
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 1


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("slug", ["joint", "metapix", "self-training"])
def test_late_checks_change_no_training(slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    late = tiny.fit(slug, 3).state_dict()
    monkeypatch.setattr(Method, "_checks_late", lambda self: False)
    at_once = tiny.fit(slug, 3).state_dict()
    assert all(torch.equal(late[name], value) for name, value in at_once.items())


class Reads(TorchDispatchMode):
    """Notes the operations for which a host would wait for its device: values that are read, sizes that follow from values."""

    NAMES = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "bincount", "masked_select", "_unique2")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        masked = name in ("index", "index_put_") and any(t is not None and t.dtype == torch.bool for t in args[1])
        if name in self.NAMES or masked:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("slug", "reads"),
    # Two seeds of dropout, which the host draws itself.
    [("joint", 0), ("source-only", 0), ("metapix", 2), ("self-training", 0), ("maxsquare", 0), ("reweight", 2)],
)
def test_a_step_that_is_not_logged_reads_no_values(slug: str, reads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cls, found = load_method(slug), []
    step = cls.training_step

    def watched(self: Any, *args: Any) -> Tensor:
        with Reads() as mode:
            loss: Tensor = step(self, *args)
        found.append(mode.found)
        return loss

    monkeypatch.setattr(cls, "training_step", watched)
    tiny.fit(slug, 2, trainer_options={"log_every_n_steps": 1000})
    assert found == [["_local_scalar_dense"] * reads] * 2
