"""Region selection against a naive implementation that updates segmenter and discriminators by gradients of their own."""

from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segzoo.bilevel import frozen_buffers
from segzoo.errors import ConfigError
from segzoo.methods import region_selection
from segzoo.methods.region_selection import RegionSelection
from segzoo.models.discriminators import combine_levels
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore")


class Catch(L.Callback):
    """The batch, with some pixels made void, and the gradients of the first step."""

    batch: dict[str, Any]
    gradients: dict[str, Tensor]

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        batch["source"]["label"][:, 20:24] = 255
        batch["target"]["label"][0, :, :11] = 255
        self.batch = batch

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        self.gradients = {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}


def caught(**options: Any) -> tuple[RegionSelection, Catch]:
    """An untrained method, and what its first step does; without ramp, or all weights would be one there."""
    catch, options = Catch(), {"ramp": 0.0} | options
    tiny.fit("region-selection", 1, trainer_options={"callbacks": [catch], "precision": "64-true"}, **options)
    fresh = tiny.method("region-selection", **options).double()
    assert isinstance(fresh, RegionSelection)
    return fresh.train(), catch


def naive(method: RegionSelection, batch: dict[str, Any], **options: Any) -> dict[str, Tensor]:
    """The step as the specification writes it: first the segmenter with D held, then D with the segmenter held."""
    net, discriminators = method.segmenter, method.weighting.levels
    smoothing = options.get("label_smoothing", 0.1)
    label = {domain: b["label"] for domain, b in batch.items()}
    valid = {domain: y != 255 for domain, y in label.items()}

    def levels(p: Tensor, domain: str) -> list[Tensor]:
        y, ok = label[domain].clamp_max(8), valid[domain]
        found = []
        for level, d in discriminators.items():
            z = d(p)
            if level == "image":
                if options.get("outputs") != "shared":
                    rows = [z[b, y[b][ok[b]].unique()].mean() for b in range(len(z))]
                    z = torch.stack(rows)[:, None]
                found.append(z.view(-1, 1, 1).expand(y.shape))
                continue
            z = z.gather(1, y[:, None])[:, 0] if options.get("outputs") != "shared" else z[:, 0]
            found.append(z)
        return found

    def bce(zs: list[Tensor], domain: str, wanted: float) -> Tensor:
        means = [F.binary_cross_entropy_with_logits(z, torch.full_like(z, wanted), reduction="none") for z in zs]
        return torch.stack([one[valid[domain]].mean() for one in means]).sum()

    with frozen_buffers(net):
        z_source, z_target = (net(batch[domain]["image"].double()) for domain in ("source", "target"))
        z_real = net(batch["held_out"]["image"].double()) if "held_out" in batch else z_target
    real = "held_out" if "held_out" in batch else "target"
    t = options.get("temperature", 1.0)
    p_source, p_real = ((z / t).softmax(1) for z in (z_source, z_real))

    s = torch.stack([z.sigmoid() for z in levels(p_source.detach(), "source")]).detach()
    w = {"mean": s.mean(0), "prod": s.prod(0)}[options.get("combination", "mean")]
    ce_source = F.cross_entropy(z_source, label["source"], ignore_index=255, reduction="none")
    loss = F.cross_entropy(z_target, label["target"], ignore_index=255)
    w = w.clamp_min(options.get("floor", 0.1) ** (len(s) if options.get("combination") == "prod" else 1))
    w = w / w[valid["source"]].mean()
    loss = loss + (w * ce_source)[valid["source"]].mean()
    if options.get("adversarial_weight", 1e-3):
        loss = loss + options.get("adversarial_weight", 1e-3) * bce(levels(p_source, "source"), "source", 1)
    theta, phi = dict(net.named_parameters()), dict(method.weighting.named_parameters())
    gradients = torch.autograd.grad(loss, list(theta.values()), retain_graph=True)
    result = {f"segmenter.{name}": g for name, g in zip(theta, gradients, strict=True)}

    loss = bce(levels(p_source.detach(), "source"), "source", smoothing)
    loss = loss + bce(levels(p_real.detach(), real), real, 1 - smoothing)
    gradients = torch.autograd.grad(loss, list(phi.values()))
    return result | {f"weighting.{name}": g for name, g in zip(phi, gradients, strict=True)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"adversarial_weight": 1.0, "temperature": 1.5},
        {"adversarial_weight": 0.0, "floor": 0.0, "label_smoothing": 0.0},
        {"outputs": "shared", "adversarial_weight": 1.0},
        {"region_cell": 8, "adversarial_weight": 1.0},
        {"outputs": "shared", "region_cell": 8, "combination": "prod"},
        {"levels": ("region", "image")},
        {"held_out": 0.5},
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "default",
)
def test_one_backward_is_the_two_updates_of_the_paper(options: dict[str, Any]) -> None:
    method, catch = caught(**options)
    expected = naive(method, catch.batch, **options)
    assert expected.keys() == catch.gradients.keys()
    for name, gradient in catch.gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-7, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


def terms_of(method: RegionSelection, batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The terms of a step's loss with their graphs."""
    found: dict[str, Tensor] = {}
    monkeypatch.setattr(method, "total", lambda terms: found.update(terms))
    monkeypatch.setattr(method, "log_weights", lambda *_: None)
    monkeypatch.setattr(method, "_log_discriminators", lambda *_: None)
    method.training_step(batch, 0)
    return found


def reached(term: Tensor, method: RegionSelection) -> set[str]:
    """The networks that a term has a gradient for."""
    named = dict(method.named_parameters())
    gradients = torch.autograd.grad(term, list(named.values()), allow_unused=True, retain_graph=True)
    return {name.partition(".")[0] for name, g in zip(named, gradients, strict=True) if g is not None and g.any()}


def test_every_term_reaches_its_own_networks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    method = tiny.method("region-selection")
    assert isinstance(method, RegionSelection)
    # without normalisation, which detaches by itself
    monkeypatch.setattr(method, "_weigh", lambda logits, label: method.raw_weights(logits))
    batch = {
        domain: {"image": torch.rand(2, 3, 50, 70), "label": torch.randint(9, (2, 50, 70))}
        for domain in ("source", "target")
    }
    batch["source"]["label"][:, 9:] = 255
    terms = terms_of(method, batch, monkeypatch)
    assert {name: reached(term, method) for name, term in terms.items()} == {
        "source": {"segmenter"},
        "target": {"segmenter"},
        "discriminators": {"weighting"},
        "adversarial": {"segmenter"},
    }
    # Of all of them only the source loss depends on the weights, and the adversarial terms on the source alone.
    batch["target"]["image"] = torch.rand(2, 3, 50, 70)
    again = terms_of(method, batch, monkeypatch)
    same = {name for name, term in terms.items() if torch.equal(term, again[name])}
    assert same == {"source", "adversarial"}


@pytest.mark.parametrize(
    "options",
    [
        {"judge": "images", "adversarial_weight": 0.0},
        {"outputs": "shared", "region_cell": 8},
        {"held_out": 0.25, "levels": ("region",)},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_every_option_trains_every_parameter(options: dict[str, Any]) -> None:
    before = tiny.method("region-selection", **options).state_dict()
    trained = tiny.fit("region-selection", **options)
    still = [n for n, p in trained.named_parameters() if torch.equal(p, before[n])]
    assert not still


def test_the_discriminators_see_images_of_their_own() -> None:
    streams = tiny.method("region-selection", held_out=0.25).streams
    assert list(streams) == ["source", "target", "held_out"]
    images = [set(streams[name].select(range(16))) for name in ("target", "held_out")]
    assert [len(some) for some in images] == [12, 4] and not images[0] & images[1]
    assert list(tiny.method("region-selection").streams) == ["source", "target"]


def source_batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(9, (2, *tiny.SIZE), generator=generator)
    label[0, :3] = 255
    return {"image": torch.rand(2, 3, *tiny.SIZE, generator=generator), "label": label}


def raw(method: RegionSelection, batch: dict[str, Any]) -> Tensor:
    """The weights (B, H, W) of a source batch before normalisation."""
    return method.raw_weights(method._judge_source(batch))


@pytest.mark.parametrize("combination", ["mean", "prod"])
@pytest.mark.parametrize("outputs", ["shared", "per_class"])
def test_weights_are_one_per_pixel_and_detached(combination: str, outputs: str) -> None:
    options = {"combination": combination, "outputs": outputs, "floor": 0.0}
    batch = source_batch()
    valid = batch["label"] != 255
    method = tiny.method("region-selection", **options).eval()
    assert isinstance(method, RegionSelection)
    for w in (plain := raw(method, batch), normal := method.weights(batch)):
        assert w.shape == batch["label"].shape and not w.requires_grad
    assert bool((plain > 0).all()) and bool((plain < 1).all())
    assert float(normal[valid].mean()) == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(normal, plain / plain[valid].mean())


@pytest.mark.parametrize("norm", ["batch", "sync", "frozen", "group"])
def test_pictures_show_the_weights_of_training(norm: str) -> None:
    """The running statistics are the target's: with them a source batch would get other weights than it trained with."""
    method = tiny.method("region-selection", norm=norm)
    assert isinstance(method, RegionSelection)
    batch, before = source_batch(), {name: b.clone() for name, b in method.named_buffers()}
    shown = raw(method.eval(), batch)
    assert not any(m.training for m in method.modules())
    assert all(torch.equal(b, before[name]) for name, b in method.named_buffers())
    with frozen_buffers(method.segmenter):
        logits = method.train()(batch["image"])
    torch.testing.assert_close(shown, method.raw_weights(method._judge(batch, logits)))
    if norm in ("batch", "sync"):
        other = method.eval()(batch["image"])
        assert not torch.allclose(shown, method.raw_weights(method._judge(batch, other)), atol=1e-5)


def test_a_source_that_looks_synthetic_keeps_the_floor() -> None:
    method = tiny.method("region-selection", floor=0.2, levels=("image",)).eval()
    assert isinstance(method, RegionSelection)
    head = method.weighting.levels["image"].head
    with torch.no_grad():
        head.bias.fill_(-30)  # type: ignore[union-attr, operator]
    torch.testing.assert_close(raw(method, source_batch()), torch.full((2, *tiny.SIZE), 0.2))


def test_a_product_of_small_scores_still_tells_pixels_apart() -> None:
    """Three levels of about 0.2 multiply to 0.01: under a floor of 0.1 all weights would be one."""
    method = tiny.method("region-selection", combination="prod").eval()
    assert isinstance(method, RegionSelection)
    label = source_batch()["label"]
    logits = torch.randn(3, *label.shape, generator=torch.Generator().manual_seed(0)) * 0.3 - 1.4
    weights = method._weigh(logits, label)
    expected = logits.sigmoid().prod(0)
    torch.testing.assert_close(weights, expected / expected[label != 255].mean())


def test_constant_weights_are_said_once(recwarn: pytest.WarningsRecorder) -> None:
    tiny.fit("region-selection", 3, floor=1.0)
    said = [str(w.message) for w in recwarn if "at `method.floor`" in str(w.message)]
    assert len(said) == 1
    recwarn.clear()
    tiny.fit("region-selection", 3)
    assert not [w for w in recwarn if "at `method.floor`" in str(w.message)]


def test_weights_grow_out_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    means: list[float] = []
    compute = RegionSelection.raw_weights

    def watch(self: RegionSelection, logits: Tensor) -> Tensor:
        means.append(float((found := compute(self, logits)).mean()))
        return found

    monkeypatch.setattr(RegionSelection, "raw_weights", watch)
    tiny.fit("region-selection", 8, ramp=0.5, discriminator_lr=0.0)
    assert means[0] == 1
    # untrained discriminators answer 0.5, so that the weight goes down by an eighth at each of four steps
    assert means == pytest.approx([1, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5, 0.5], abs=0.04)


def test_what_the_discriminators_do_is_logged() -> None:
    trained = tiny.fit("region-selection")
    logged = {name: float(value) for name, value in trained.trainer.callback_metrics.items()}
    for level in ("pixel", "region", "image"):
        assert 0 <= logged[f"auc/{level}"] <= 1 and 0.3 < logged[f"score/{level}"] < 0.7
    assert 0 < logged["weight/raw_min"] <= logged["weight/raw"] <= logged["weight/raw_max"] < 1
    assert logged["weight/mean"] == pytest.approx(1, abs=1e-5) and any(n.startswith("weight/class/") for n in logged)


@pytest.mark.parametrize(("auc", "smoothing", "warns"), [(0.999, 0.49, True), (0.9, 0.49, False), (0.999, 0.1, False)])
def test_saturation_is_said_once(
    auc: float, smoothing: float, warns: bool, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    # Untrained discriminators answer about 0.5, which is sure with a smoothing of 0.49 and unsure with 0.1.
    monkeypatch.setattr(region_selection, "domain_auc", lambda real, synthetic: torch.tensor(auc))
    tiny.fit("region-selection", 3, label_smoothing=smoothing, levels=("pixel", "image"))
    said = [str(w.message) for w in recwarn if "saturated" in str(w.message)]
    assert len(said) == (2 if warns else 0)
    if warns:
        assert "pixel discriminator" in said[0] and "0.999" in said[0] and "`method.discriminator_lr`" in said[0]


def test_panels_show_the_levels_of_the_source() -> None:
    method = tiny.method("region-selection", levels=("region", "image")).eval()
    assert isinstance(method, RegionSelection)
    maps = method.panel_maps(source_batch())
    assert list(maps) == ["weight", "region score", "image score"]
    assert all(one.shape == (2, *tiny.SIZE) for one in maps.values())
    assert torch.equal(maps["weight"], method.weights(source_batch()))
    scores = torch.stack([maps["region score"], maps["image score"]])
    torch.testing.assert_close(combine_levels(scores.logit(), "mean").clamp_min(0.1), raw(method, source_batch()))
    assert method.panel_maps({"image": torch.rand(2, 3, *tiny.SIZE)}) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": ()}, "levels"),
        ({"levels": ("pixel", "pixel")}, "each once"),
        ({"region_cell": 24}, "power of two"),
        ({"region_cell": 2}, "from 4 on"),
        ({"judge": "images"}, "`method.adversarial_weight` 0"),
        ({"floor": 1.5}, "floor"),
        ({"temperature": 0.0}, "temperature"),
        ({"held_out": 1.0}, "held_out"),
        ({"label_smoothing": 0.6}, "label_smoothing"),
        ({"adversarial_weight": -1.0}, "adversarial_weight"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.method("region-selection", **options)
