"""MetaPix against a naive implementation written with second-order autograd."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from segzoo.bilevel import CaptureError, attach_gradient, frozen_buffers
from segzoo.bilevel.normalize import mean_one
from segzoo.errors import ConfigError, NonFiniteLossError
from segzoo.methods.metapix import MetaPix
from segzoo.models.weighting import PixelWeightNet
from tests import tiny
from tests.methods import catching, test_loss
from tests.methods.catching import Catch

pytestmark = pytest.mark.filterwarnings("ignore")


def caught(**options: Any) -> tuple[MetaPix, Catch]:
    fresh, catch = catching.caught("metapix", **options)
    assert isinstance(fresh, MetaPix)
    return fresh, catch


def pixel_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(logits, label, reduction="none")


def mean_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(logits, label)


def naive(
    method: MetaPix,
    batch: dict[str, Any],
    alpha: float,
    update: str,
    mean1: bool,
    pixels: Callable[[Tensor, Tensor], Tensor] = pixel_cross_entropy,
    whole: Callable[[Tensor, Tensor], Tensor] = mean_cross_entropy,
) -> dict[str, Tensor]:
    """One step as the paper writes it: everything is differentiated through.

    Args:
        method: in float64.
        batch: of the step.
        alpha: step size of the virtual step.
        update: order of the updates.
        mean1: whether weights are divided by their mean.
        pixels: l_i of logits and labels.
        whole: L_T of logits and labels.
    """
    net, theta = method.segmenter, dict(method.segmenter.named_parameters())

    def logits(params: dict[str, Tensor], b: dict[str, Any]) -> Tensor:
        with frozen_buffers(net):
            found: Tensor = functional_call(net, params, (b["image"].double(),))
        return found

    def ce(params: dict[str, Tensor], b: dict[str, Any]) -> Tensor:
        return pixels(logits(params, b), b["label"])

    def goal(params: dict[str, Tensor], b: dict[str, Any]) -> Tensor:
        return whole(logits(params, b), b["label"])

    meta_source = batch.get("meta_source", batch["source"])
    meta_target = batch.get("meta_target", batch["target"])

    def weights(b: dict[str, Any]) -> Tensor:
        w = method.weighting(b["image"].double(), b["label"])
        return w / w.mean() if mean1 else w

    source_loss = (weights(meta_source) * ce(theta, meta_source)).mean()
    g = torch.autograd.grad(source_loss, list(theta.values()), create_graph=True)
    ahead = {name: p - alpha * d for (name, p), d in zip(theta.items(), g, strict=True)}
    target_loss = goal(ahead, meta_target)
    phi = dict(method.weighting.named_parameters())
    d_phi = torch.autograd.grad(target_loss, list(phi.values()), retain_graph=True)

    joint = (weights(batch["source"]).detach() * ce(theta, batch["source"])).mean()
    at = ahead if update == "sequential" else theta
    d_source = torch.autograd.grad(joint, list(theta.values()))
    point = {name: p.detach().requires_grad_() for name, p in at.items()}
    d_target = torch.autograd.grad(goal(point, batch["target"]), list(point.values()))
    result = {f"segmenter.{name}": a + b for name, a, b in zip(theta, d_source, d_target, strict=True)}
    return result | {f"weighting.{name}": d for name, d in zip(phi, d_phi, strict=True)}


@pytest.mark.parametrize("mean1", [False, True], ids=["none", "mean1"])
@pytest.mark.parametrize("update", ["sequential", "fused", "paper"])
def test_a_step_is_the_papers(update: str, mean1: bool) -> None:
    options = {"update": update, "normalize": "mean1" if mean1 else "none", "virtual_lr": 0.5, "pixel_mean": "all"}
    method, catch = caught(**options)
    # MiniCity has no void pixels here, so that means over all and over valid pixels agree.
    assert all(bool((b["label"] != 255).all()) for b in catch.batch.values())
    expected = naive(method, catch.batch, 0.5, update, mean1)
    assert expected.keys() == catch.gradients.keys()
    for name, gradient in catch.gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-7, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("engine", ["forward", "double_backward"])
@pytest.mark.parametrize("update", ["sequential", "fused", "paper"])
def test_a_step_looks_ahead_to_whatever_the_target_loss_is(update: str, engine: str) -> None:
    """Class weights, the focal factor and a loss of areas: l_i takes the first two, L_T all three, everywhere the same."""
    loss: dict[str, Any] = {"class_balance": 1.0, "focal": 2.0, "overlap": "dice", "overlap_weight": 0.5}
    method, catch = caught(
        update=update, engine=engine, virtual_lr=0.5, pixel_mean="all", norm="group", normalize="none", loss=loss
    )
    weight = test_loss.weight_of("source", "target").float()

    def pixels(z: Tensor, y: Tensor) -> Tensor:
        return test_loss.pixel_loss(z, y, weight)

    def whole(z: Tensor, y: Tensor) -> Tensor:
        return pixels(z, y).mean() + test_loss.area_loss(z, y)

    expected = naive(method, catch.batch, 0.5, update, False, pixels, whole)
    for name, gradient in catch.gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-7, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("update", ["sequential", "fused", "paper"])
def test_running_statistics_see_the_target_once(update: str) -> None:
    _, catch = caught(update=update)
    counts = [int(b) for name, b in catch.buffers.items() if name.endswith("num_batches_tracked")]
    assert counts and set(counts) == {1}


def test_the_weight_network_rests_between_meta_updates() -> None:
    class Moves(L.Callback):
        def __init__(self) -> None:
            self.last: Tensor | None = None
            self.moved: list[bool] = []

        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
            now = torch.cat([p.detach().flatten().clone() for p in pl_module.weighting.parameters()])
            if self.last is not None:
                self.moved.append(not torch.equal(now, self.last))
            self.last = now

    moves = Moves()
    tiny.fit("metapix", 7, trainer_options={"callbacks": [moves]}, meta_every=3, meta_start=1)
    assert moves.moved == [True, False, False, True, False, False]


@pytest.mark.parametrize("engine", ["double_backward", "finite_difference"])
def test_the_engine_is_an_option(engine: Any) -> None:
    options = {"virtual_lr": 0.5, "norm": "group"}
    (_, forward), (_, other) = caught(**options), caught(engine=engine, **options)
    a, b = (torch.cat([c.gradients[n].flatten() for n in c.gradients if n[0] == "w"]) for c in (forward, other))
    error = float((a - b).norm() / a.norm())
    assert error < 1e-9 if engine == "double_backward" else 1e-12 < error < 0.5


def test_a_held_out_split_shares_no_image() -> None:
    data = tiny.data(target_labels=8)
    tiny.trainer(1).fit(tiny.method("metapix", update="fused", held_out=0.25), datamodule=data)
    loaders = data.train_dataloader().iterables
    fit, held_out = (set(loaders[name].dataset.indices) for name in ("target", "meta_target"))
    assert len(fit) == 6 and len(held_out) == 2 and not fit & held_out


@pytest.mark.parametrize(
    "options",
    [
        {"held_out": 0.2},
        {"held_out": 1.5, "update": "fused"},
        {"meta_every": 0},
        {"micro_batches": 0},
        {"micro_batches": 2, "update": "fused"},
        {"micro_batches": 2, "meta_every": 2},
        {"virtual_lr": 0.0},
        {"virtual_lr": -1.0},
        {"weight_width": 0},
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        tiny.method("metapix", **options)


def test_a_part_of_more_images_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`speed\.micro_batches` 3: the batch has 2 images"):
        tiny.fit("metapix", 1, micro_batches=3)


def test_the_weight_of_a_single_image_cannot_be_learned() -> None:
    with pytest.raises(ConfigError, match=r"always 1; use `data\.batch_size` 2"):
        tiny.fit("metapix", 1, weights="image", data_options={"batch_size": 1})


def test_a_start_after_the_last_step_is_noticed() -> None:
    with pytest.warns(UserWarning, match=r"`method\.meta_start` 5 is not reached in 1 steps"):
        tiny.fit("metapix", 1, meta_start=5)
    with pytest.raises(ConfigError, match=r"`method\.meta_start` -3"):
        tiny.fit("metapix", 1, meta_start=-3)


@pytest.mark.parametrize("algorithm", [None, "norm"])
def test_the_virtual_optimizer_clips_as_the_trainer_does(algorithm: str | None) -> None:
    clips: dict[str, Any] = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": algorithm}
    norms = []
    for options in ({}, clips):
        catch = Catch()
        tiny.fit(
            "metapix",
            1,
            virtual="optimizer",
            optimizer={"name": "sgd"},
            trainer_options={"callbacks": [catch]} | options,
        )
        norms.append(catch.logged["meta/gradient_norm"])
    assert norms[1] < 0.9 * norms[0]


def test_clipping_by_value_before_the_virtual_optimizer_is_refused() -> None:
    clips: dict[str, Any] = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}
    with pytest.raises(ConfigError, match="by norm alone"):
        tiny.fit("metapix", 1, virtual="optimizer", trainer_options=clips)
    tiny.fit("metapix", 1, trainer_options=clips)


def test_second_order_graphs_in_float16_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MetaPix, "scaler", torch.amp.GradScaler("cpu"))
    with pytest.raises(ConfigError, match="not float16"):
        tiny.fit("metapix", 1, engine="double_backward")


def test_mean_one_and_its_gradient() -> None:
    torch.manual_seed(0)
    s = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    valid = torch.rand(2, 3, 4) < 0.7
    upstream = torch.randn(2, 3, 4, dtype=torch.float64) * valid
    w, pull_back = mean_one(s, valid, valid.sum(), lambda value: value)
    reference = s / s[valid].mean()
    torch.testing.assert_close(w, reference.detach())
    assert float(w[valid].mean()) == pytest.approx(1)
    (expected,) = torch.autograd.grad(reference, s, upstream)
    torch.testing.assert_close(pull_back(upstream), expected)


def test_an_attached_gradient_is_a_gradient() -> None:
    x = torch.randn(3, requires_grad=True)
    given = torch.tensor([1.0, 2.0, 3.0])
    loss = attach_gradient(torch.tensor(5.0), [x * 2], [given])
    (3 * loss).backward()
    assert loss.item() == 5 and x.grad is not None
    torch.testing.assert_close(x.grad, 6 * given)
    with pytest.raises(ValueError, match="shape"):
        attach_gradient(torch.tensor(0.0), [x], [torch.zeros(4)])


def test_softmax_weights_are_a_softmax() -> None:
    method = tiny.method("metapix", normalize="softmax").double().train()
    batch = tiny.data().panel_batch("source", 2)
    source = {"image": batch["image"].double(), "label": batch["label"]}
    weights = method.weights(source)  # type: ignore[attr-defined]
    logits = torch.logit(method.weighting(source["image"], source["label"]))
    torch.testing.assert_close(weights, logits.flatten().softmax(0).view_as(logits).detach() * logits.numel())


def test_micro_batches_change_memory_alone() -> None:
    options = {"norm": "group", "virtual_lr": 0.5}
    (_, whole), (_, parts) = caught(**options), caught(micro_batches=2, **options)
    assert whole.gradients.keys() == parts.gradients.keys()
    for name, gradient in whole.gradients.items():
        torch.testing.assert_close(
            parts.gradients[name], gradient, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("update", ["sequential", "paper"])
def test_the_weight_network_keeps_no_activations(update: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    forward = PixelWeightNet.forward
    monkeypatch.setattr(PixelWeightNet, "forward", lambda *a: calls.append(True) or forward(*a))
    checkpointed = caught(update=update, virtual_lr=0.5)[1].gradients
    count = len(calls)
    calls.clear()
    monkeypatch.setattr("segzoo.methods.meta_update.checkpoint", lambda net, *inputs, **options: net(*inputs))
    plain = caught(update=update, virtual_lr=0.5)[1].gradients
    assert count == len(calls) + 1
    torch.testing.assert_close(checkpointed, plain, rtol=1e-12, atol=1e-14)
    assert any(float(g.abs().max()) > 0 for name, g in plain.items() if name.startswith("weighting"))


def test_a_part_of_the_network_is_stepped_alone() -> None:
    (_, whole), (_, head) = caught(virtual_lr=0.5), caught(virtual_lr=0.5, scope="head")
    assert whole.gradients.keys() == head.gradients.keys()
    name = next(n for n in whole.gradients if "encoder" in n)
    assert not torch.equal(whole.gradients[name], head.gradients[name])


class Float16(MixedPrecision):
    """Lightning's float16, which it keeps for GPUs, on a CPU."""

    def __init__(self, scale: float) -> None:
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))


@pytest.mark.parametrize(
    ("slug", "options"),
    [("metapix", {}), ("metapix", {"update": "fused"}), ("metapix", {"update": "paper"}), ("reweight", {})],
)
def test_an_infinite_gradient_skips_the_step(slug: str, options: dict[str, Any]) -> None:
    def run(scale: float) -> tuple[dict[str, Tensor], float]:
        plugin = Float16(scale)
        trained = tiny.fit(slug, 1, trainer_options={"plugins": [plugin]}, **options)
        assert plugin.scaler is not None
        return {n: p.detach().clone() for n, p in trained.named_parameters()}, float(plugin.scaler.get_scale())

    start = dict(tiny.method(slug, **options).named_parameters())
    skipped, scale = run(2.0**40)
    assert scale == 2.0**39
    assert all(torch.equal(p, start[n]) for n, p in skipped.items())
    moved, scale = run(2.0**8)
    assert scale == 2.0**8
    assert all(bool(torch.isfinite(p).all()) for p in moved.values())
    assert any(not torch.equal(p, start[n]) for n, p in moved.items())


def test_without_a_scaler_an_infinite_gradient_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    infinite = lambda g: {n: t * float("inf") for n, t in g.items()}  # noqa: E731
    monkeypatch.setattr("segzoo.methods.meta_update.average_gradients", infinite)
    with pytest.raises(NonFiniteLossError, match="meta"):
        tiny.fit("metapix", 1)


@pytest.mark.parametrize("strategy", [ModelParallelStrategy, FSDPStrategy])
def test_sharded_parameters_are_refused(strategy: Any) -> None:
    method = tiny.method("metapix")
    method._trainer = SimpleNamespace(strategy=strategy.__new__(strategy))  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="finite_difference"):
        method.setup("fit")


@pytest.mark.parametrize("option", ["channels_last", pytest.param("compile", marks=pytest.mark.slow)])
def test_faster_settings_change_rounding_alone(option: str) -> None:
    plain, fast = (tiny.fit("metapix", 2, optimizer={"name": "sgd"}, **extra) for extra in ({}, {option: True}))
    assert plain.state_dict().keys() == fast.state_dict().keys()
    for (name, a), b in zip(plain.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_wrong_pixels_lose_weight() -> None:
    wrongs, rights = [], []
    for seed in (0, 1):  # one alone is a matter of rounding: 300 steps on eight images
        options = {"batch_size": 4, "seed": seed}
        trained = tiny.fit("metapix", 300, lr=3e-3, weight_lr=1e-2, weight_width=8, data_options=options)
        assert isinstance(trained, MetaPix)
        data = tiny.data()
        images, batch = data.images("source", "train"), data.panel_batch("source", 8)
        wrong = torch.stack([torch.from_numpy(images.wrong(i)) for i in range(8)])  # type: ignore[attr-defined]
        with torch.no_grad():
            weights = trained.eval().weights(batch)
        wrongs.append(float(weights[wrong].mean()))
        rights.append(float(weights[~wrong].mean()))
    assert sum(wrongs) < sum(rights)


class NoReads(TorchDispatchMode):
    """Refuses what a CUDA graph cannot capture: reading values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func._schema.name not in (
            "aten::_local_scalar_dense",
            "aten::nonzero",
            "aten::is_nonzero",
            "aten::equal",
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"update": "fused"}, {"update": "paper"}, {"micro_batches": 2}])
def test_the_meta_update_reads_no_values(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    compute, seeds, calls = MetaPix._meta_gradient, iter(range(100)), []

    def watched(self: MetaPix, *tensors: torch.Tensor) -> Any:
        calls.append(len(tensors))
        with NoReads():
            return compute(self, *tensors)

    monkeypatch.setattr(MetaPix, "_meta_gradient", watched)
    monkeypatch.setattr("segzoo.methods.lookahead.any_seed", lambda: next(seeds))  # drawn anew for every launch
    tiny.fit("metapix", 2, **options)
    assert calls == [4, 4]
    assert next(seeds) == 2 * 2 * options.get("micro_batches", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs a GPU for every process"),
        ({"scope": "decoder"}, "needs a GPU for every process"),
        ({"virtual": "optimizer"}, "`method.virtual` sgd"),
        ({"engine": "double_backward"}, "`method.engine` forward"),
        ({"compile": True}, "leave out `speed.compile`"),
    ],
)
def test_what_cannot_be_captured_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.fit("metapix", 1, cuda_graph=True, **options)


@pytest.mark.parametrize("options", [{}, {"virtual": "optimizer"}, {"engine": "double_backward"}])
def test_what_cannot_be_captured_goes_the_ordinary_way_with_auto(options: dict[str, Any]) -> None:
    trained = tiny.fit("metapix", 1, cuda_graph="auto", **options)
    assert trained._captured is None


def test_a_capture_that_fails_is_given_up_with_auto_and_an_error_where_it_was_demanded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing:
        failed, tries = False, 0

        def __init__(self, run: Any, *_: Any) -> None:
            self.run = run

        def __call__(self, *tensors: torch.Tensor) -> Any:
            Failing.tries += 1
            if Failing.tries < 3:
                return self.run(*tensors)
            self.failed = True
            raise CaptureError("this step cannot be captured")

    monkeypatch.setattr("segzoo.methods.meta_update.Graphed", Failing)
    monkeypatch.setattr(MetaPix, "on_train_start", lambda self: setattr(self, "_captures", True))
    monkeypatch.setattr(MetaPix, "on_train_end", lambda self: None)
    Failing.tries = -100
    usual = tiny.fit("metapix", 5, cuda_graph="auto")
    Failing.tries = 0
    with pytest.warns(UserWarning, match="auto: goes on without a CUDA graph. this step cannot"):
        tried = tiny.fit("metapix", 5, cuda_graph="auto")
    assert Failing.tries == 3
    for name, value in usual.state_dict().items():
        torch.testing.assert_close(tried.state_dict()[name], value, rtol=0, atol=0)
    Failing.tries = 0
    with pytest.raises(CaptureError):
        tiny.fit("metapix", 5, cuda_graph=True)
