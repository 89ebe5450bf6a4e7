"""MetaPix in stages: equal to its commands one by one, resumed anywhere, and no work for what rests."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from segzoo.errors import CheckpointError, ConfigError
from segzoo.methods.metapix import MetaPix
from segzoo.methods.stages import Stages
from tests import tiny
from tests.methods.test_contract import StopAt

pytestmark = pytest.mark.filterwarnings("ignore")

NORMS = {"network": {"options": {"decoder_channels": [16, 16, 8, 8, 8], "decoder_use_norm": "batchnorm"}}}
SHARED: dict[str, Any] = {"loss": {"overlap": "dice"}, "optimizer": {"name": "adam"}}
TWICE = {"joint": 3, "weights": 2, "segmenter": 2, "generations": 2, "lr_factor": 0.5}
RESUMED = SHARED | NORMS | {"stages": TWICE, "warmup_steps": 1}


class After(L.Callback):
    """Images go on behind those of so many steps."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.fit_loop.epoch_loop.batch_progress.total.processed = self.batches


class States(L.Callback):
    """A method's state after every step."""

    def __init__(self) -> None:
        self.found: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if not self.found:
            self.found.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.found.append({name: value.clone() for name, value in pl_module.state_dict().items()})


def run(slug: str, steps: int, *callbacks: L.Callback, save: Path | None = None, **options: Any) -> Any:
    """A method that was trained, and its checkpoint."""
    L.seed_everything(0, verbose=False)
    method, trainer = tiny.method(slug, **(SHARED | options)), tiny.trainer(steps, callbacks=list(callbacks))
    trainer.fit(method, datamodule=tiny.data())
    if save:
        trainer.save_checkpoint(save)
    return method


def weights_of(method: Any, part: str) -> dict[str, Tensor]:
    return {name: value for name, value in method.state_dict().items() if name.startswith(f"{part}.")}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys() and a
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def initial(path: Path) -> dict[str, Any]:
    return {"network": {"initial_checkpoint": str(path)}}


@pytest.mark.parametrize("lr_factor", [1.0, 0.5])
def test_the_stages_are_three_commands(lr_factor: float, tmp_path: Path) -> None:
    """`joint`, the weights of its network, and the network with these weights: each a training of its own."""
    joint, weights, segmenter = (tmp_path / f"{name}.ckpt" for name in ("joint", "weights", "segmenter"))
    lr = 2.0**-8
    run("joint", 3, save=joint, lr=lr)
    second = run("metapix", 2, After(3), save=weights, stages={"weights": 2}, lr=lr, **initial(joint))
    options: dict[str, Any] = {"stages": {"segmenter": 3}, "lr": lr * lr_factor, "virtual_lr": lr}
    third = run("metapix", 3, After(5), save=segmenter, **options, **initial(weights))
    stages = {"joint": 3, "weights": 2, "segmenter": 3, "lr_factor": lr_factor}
    staged = run("metapix", 8, stages=stages, lr=lr)
    assert_equal(staged.state_dict(), third.state_dict())
    assert_equal(weights_of(second, "weighting"), weights_of(third, "weighting"))
    first = torch.load(joint, weights_only=True)["state_dict"]
    assert_equal({n: v for n, v in first.items() if n.startswith("segmenter.")}, weights_of(second, "segmenter"))


def test_what_rests_stays_to_the_last_bit_and_a_generation_begins_from_scratch() -> None:
    states = States()
    run("metapix", 11, states, stages=TWICE, **NORMS)
    plan = Stages(**TWICE).plan(None)
    assert [(s.name, s.start, s.length, s.generation) for s in plan] == [
        ("joint", 0, 3, 0),
        ("weights", 3, 2, 0),
        ("segmenter", 5, 2, 0),
        ("weights", 7, 2, 1),
        ("segmenter", 9, 2, 1),
    ]
    moves = []
    for before, after in pairwise(states.found):
        changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
        moves.append(changed)
    segmenter, weighting = {"segmenter"}, {"weighting"}
    assert moves == [segmenter] * 3 + [weighting] * 2 + [segmenter] * 2 + [weighting] * 2 + [segmenter] * 2
    # The second generation's first step starts at initial weights: at 0.01 per entry, with a head bias of 1.
    redrawn = {n: v for n, v in states.found[8].items() if n.startswith("weighting.") and v.ndim == 4}
    lr = 1e-4
    for name, value in redrawn.items():
        assert float((value - states.found[7][name]).abs().max()) > 10 * lr


@pytest.fixture(scope="module")
def whole() -> dict[str, Tensor]:
    """The state of a method that was never stopped."""
    state: dict[str, Tensor] = run("metapix", 11, **RESUMED).state_dict()
    return state


@pytest.mark.parametrize("steps", [2, 3, 4, 6, 7, 8])
def test_resumed_in_any_stage_equals_uninterrupted(steps: int, whole: dict[str, Tensor], tmp_path: Path) -> None:
    L.seed_everything(0, verbose=False)
    stop = tiny.trainer(11, callbacks=[StopAt(steps)])
    stop.fit(tiny.method("metapix", **RESUMED), datamodule=tiny.data())
    assert stop.global_step == steps
    stop.save_checkpoint(tmp_path / "half.ckpt")
    torch.rand(5)
    resumed = tiny.method("metapix", **RESUMED)
    tiny.trainer(11).fit(resumed, datamodule=tiny.data(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert_equal(whole, resumed.state_dict())


class Passes(L.Callback):
    """How often the segmenter and the weight network are called in every step, and which of them has a gradient."""

    def __init__(self) -> None:
        self.calls: list[dict[str, int]] = []
        self.learning: list[set[str]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for part in ("segmenter", "weighting"):
            pl_module.get_submodule(part).register_forward_pre_hook(lambda *_, p=part: self.count(p))

    def count(self, part: str) -> None:
        self.calls[-1][part] += 1

    def on_train_batch_start(self, *_: Any) -> None:
        self.calls.append({"segmenter": 0, "weighting": 0})

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        # A network that rests may have zeros, which the optimiser does not see: see the states above.
        learning = [name for name, p in pl_module.named_parameters() if p.grad is not None and p.grad.any()]
        parts = {name.partition(".")[0] for name in learning}
        self.learning.append(parts)


def test_a_step_computes_nothing_for_what_rests() -> None:
    joint, staged = Passes(), Passes()
    run("joint", 1, _of_one(joint))
    run("metapix", 3, staged, stages={"joint": 1, "weights": 1, "segmenter": 1})
    assert staged.learning == [{"segmenter"}, {"weighting"}, {"segmenter"}]
    # Source, target at theta', and the forward-mode pass; no pass of the segmenter for an update of its own.
    assert [c["segmenter"] for c in staged.calls] == [joint.calls[0]["segmenter"], 3, joint.calls[0]["segmenter"]]
    assert staged.calls[0]["weighting"] == 0 and staged.calls[2]["weighting"] == 1


def _of_one(passes: Passes) -> Passes:
    passes.on_fit_start = lambda trainer, module: module.segmenter.register_forward_pre_hook(  # type: ignore[method-assign]
        lambda *_: passes.count("segmenter")
    )
    return passes


def test_the_schedule_begins_anew_with_every_stage() -> None:
    rates = []

    class Rates(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
            rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    run("metapix", 11, Rates(), stages=TWICE, lr=1.0, poly_power=1.0, weight_lr=0.25)
    later = [0.5, 0.25]
    assert [rate[0] for rate in rates] == pytest.approx([1, 2 / 3, 1 / 3, *later * 4])
    assert {rate[1] for rate in rates} == {0.25}


def test_shares_fill_the_training() -> None:
    plan = Stages(joint=0.4, weights=0.1, segmenter=0.2, generations=2).plan(104)
    assert [s.start for s in plan] == [0, 42, 52, 73, 83] and plan[-1].start + plan[-1].length == 104
    with pytest.raises(ConfigError, match=r"`method.stages` are shares of the training and nobody knows"):
        Stages(weights=0.5, segmenter=0.5).plan(None)


@pytest.mark.parametrize(
    ("stages", "options", "message"),
    [
        ({"joint": 3}, {}, "neither weights nor segmenter"),
        ({"weights": -1}, {}, "weights"),
        ({"weights": 1.5}, {}, "weights 1.5: expected a number of steps, or a share"),
        ({"weights": 100, "segmenter": 0.5}, {}, "in steps, or of all in shares"),
        ({"weights": 1, "generations": 1.5}, {}, "generations 1.5: expected a whole number"),
        ({"wights": 1}, {}, "did you mean 'weights'"),
        ({"weights": 1}, {"update": "fused"}, "`method.update` fused says how both networks learn"),
        ({"weights": 1}, {"meta_every": 2}, "`method.meta_every` 2"),
        ({"weights": 1}, {"virtual": "optimizer"}, "`method.virtual` optimizer"),
        ({"weights": 1}, {"speed": {"micro_batches": 2}}, "`speed.micro_batches`"),
    ],
)
def test_what_is_no_schedule_is_refused(stages: dict[str, float], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.method("metapix", stages=stages, **options)


def test_stages_that_end_before_the_training_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"end after 3 steps, and the training after 4; set `trainer.max_steps` to 3"):
        run("metapix", 4, stages={"weights": 2, "segmenter": 1})


def test_the_segmenters_stage_alone_needs_trained_weights(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"name its checkpoint as `network.initial_checkpoint`"):
        run("metapix", 1, stages={"segmenter": 1})
    run("joint", 1, save=tmp_path / "joint.ckpt")
    with pytest.raises(CheckpointError, match=r"the weighting of .* does not fit"):
        run("metapix", 1, stages={"segmenter": 1}, **initial(tmp_path / "joint.ckpt"))


def test_held_out_images_judge_the_weights_of_a_stage() -> None:
    method = tiny.method("metapix", stages={"weights": 1}, held_out=0.5)
    assert isinstance(method, MetaPix)
    assert method.streams["target"].part == (0.0, 0.5) and method.streams["meta_target"].part == (0.5, 1.0)
    run("metapix", 1, stages={"weights": 1}, held_out=0.5)
