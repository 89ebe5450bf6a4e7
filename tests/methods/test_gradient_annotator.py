"""Gradient matching, recomputed with a second-order graph and the paper's sums."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.cli.expand import expand
from segzoo.data.sampling import derived_seed
from segzoo.errors import CheckpointError, ConfigError
from segzoo.methods import gradient_annotator
from segzoo.methods.gradient_annotator import GradientAnnotator
from segzoo.models.generators import DCGAN, StyleGAN2
from segzoo.models.generators.load import load_generator, save_generator
from segzoo.models.segmenter import Segmenter
from tests import tiny
from tests.methods.catching import Catch, caught

pytestmark = pytest.mark.filterwarnings("ignore")

METRICS = ("cosine", "global_cosine", "l2", "dotprod", "relative")
HEAD = "head"


def first_step(**options: Any) -> tuple[GradientAnnotator, Catch]:
    method, catch = caught("gradient-annotator", **options)
    assert isinstance(method, GradientAnnotator)
    return method, catch


def paint(method: GradientAnnotator, purpose: str, count: int = 2) -> tuple[Tensor, list[Tensor]]:
    """Images (B, 3, H, W) in [0, 1] and feature maps, one image after the other, of the step with number 0."""
    images, features = [], []
    for i in range(count):
        draws = torch.Generator().manual_seed(derived_seed(0, purpose, i, 0))
        z = torch.randn(1, method.gan.latent_dim, generator=draws).double()
        sample = method.gan(z, method.gan.truncation, method.gan.cutoff, "random", draws)
        images.append(
            F.interpolate(((sample.image + 1) / 2).clamp(0, 1), size=tiny.SIZE, mode="bilinear", antialias=True)
        )
        features.append(sample.features)
    return torch.cat(images), [torch.cat(maps) for maps in zip(*features, strict=True)]


def annotate(method: GradientAnnotator, features: list[Tensor]) -> Tensor:
    return F.interpolate(method.annotator(features), size=tiny.SIZE, mode="bilinear", antialias=True).softmax(1)


def soft_loss(logits: Tensor, y: Tensor) -> Tensor:
    losses = [-(y[b] * logits[b].log_softmax(0)).sum(0) for b in range(len(y))]
    return torch.stack(losses).mean()


def distance(g: list[Tensor], h: list[Tensor], metric: str) -> Tensor:
    """The published sums, row by row."""
    if metric == "global_cosine":
        return 1 - F.cosine_similarity(torch.cat([t.flatten() for t in g]), torch.cat([t.flatten() for t in h]), dim=0)
    total = g[0].new_zeros(())
    for a, b in zip(g, h, strict=True):
        if a.dim() < 2:
            continue
        for x, y in zip(a.flatten(1), b.flatten(1), strict=True):
            value = {"l2": (x - y).norm(), "dotprod": -(x @ y), "relative": (x - y).square().sum() / 2 / (y @ y)}.get(
                metric, x.new_zeros(())
            )
            if metric == "cosine":
                sure = x.norm() > 1e-6 and y.norm() > 1e-6
                value = 1 - x @ y / (x.norm() * y.norm()) if sure else x.new_ones(())
            total = total + value / len(a)
    return total / len(g)


class Inputs:
    """What the matched convolutions see, one position after the other, and their rows in its eyes."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        self.seen: dict[str, list[Tensor]] = {}
        self.names = names
        layers = {name: module.get_submodule(name.rpartition(".")[0]) for name in names}
        self.handles = [
            layer.register_forward_pre_hook(
                lambda m, args, n=name: self.seen.setdefault(n, []).append(args[0].detach())
            )
            for name, layer in layers.items()
            if isinstance(layer, nn.Conv2d) and name.endswith("weight")
        ]

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def whiten(self, gradients: Any) -> list[Tensor]:
        return [
            g if g.dim() < 2 else g.flatten(1) @ self.root(name, g)
            for name, g in zip(self.names, gradients, strict=True)
        ]

    def root(self, name: str, g: Tensor) -> Tensor:
        """The symmetric root of the inverse: another factor than the method's, of the same distance."""
        pad = g.shape[-1] // 2
        h = torch.cat([F.unfold(x, g.shape[-2:], padding=pad).transpose(1, 2).flatten(0, 1) for x in self.seen[name]])
        a = torch.einsum("ni,nj->ij", h, h) / len(h)
        values, vectors = torch.linalg.eigh(a + 1e-3 * a.diagonal().mean() * torch.eye(len(a), dtype=a.dtype))
        return vectors @ torch.diag(values.rsqrt()) @ vectors.T


@pytest.mark.parametrize(
    ("metric", "options"),
    [(metric, {}) for metric in METRICS]
    + [
        ("cosine", {"engine": "double_backward"}),
        ("cosine", {"scope": "all", "labelling_mode": "train"}),
        ("cosine", {"scope": HEAD, "norm": "group"}),
        *((metric, {"scope": HEAD, "whiten": True}) for metric in ("cosine", "relative", "global_cosine")),
        ("relative", {"scope": HEAD, "whiten": True, "engine": "double_backward", "synthetic_batch": 3}),
        ("relative", {"whiten": True}),
    ],
    ids=str,
)
def test_the_first_step_is_the_papers(metric: str, options: dict[str, Any]) -> None:
    method, catch = first_step(metric=metric, **options)
    labelled = catch.batch["target"]
    matched = [p for name, p in method.segmenter.named_parameters() if name in method.matched]
    count, inputs = options.get("synthetic_batch", 2), Inputs(method.segmenter, method.matched)
    labelled_loss = F.cross_entropy(method(labelled["image"].double()), labelled["label"], ignore_index=255)
    h = torch.autograd.grad(labelled_loss, matched)

    # Phase A
    image, features = paint(method, "matching latent", count)
    y = annotate(method, features)
    g = torch.autograd.grad(soft_loss(method(image), y), matched, create_graph=True)
    if options.get("whiten"):
        g, h = inputs.whiten(g), inputs.whiten(h)
    inputs.remove()
    d = distance(list(g), list(h), metric)
    expected = dict(method.annotator.named_parameters(prefix="annotator"))
    gradients = dict(zip(expected, torch.autograd.grad(d, list(expected.values())), strict=True))
    assert catch.logged["match/distance"] == pytest.approx(float(d), rel=1e-10)

    # Phase S: the annotator's statistics have seen one batch
    image, features = paint(method, "student latent", count)
    method.annotator.train(options.get("labelling_mode") == "train")
    with torch.no_grad():
        y = annotate(method, features)
    soft_loss(method(image), y).backward()
    gradients |= {f"segmenter.{name}": p.grad for name, p in method.segmenter.named_parameters() if p.grad is not None}
    assert gradients.keys() == catch.gradients.keys()
    for name, gradient in gradients.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(catch.gradients[name], gradient, rtol=0, atol=1e-10 * scale + 1e-13, msg=name)


def test_both_engines_drop_the_same_units() -> None:
    """Dropout in the matched part: the derivative repeats the masks of the pass."""
    options: dict[str, Any] = {
        "architecture": "deeplabv3plus",
        "network": {"options": {"decoder_channels": 16, "decoder_aspp_dropout": 0.5}},
    }
    (_, forward), (_, reference) = first_step(**options), first_step(engine="double_backward", **options)
    moved = [name for name in reference.gradients if name.startswith("annotator")]
    for name in moved:
        scale = float(reference.gradients[name].abs().max())
        torch.testing.assert_close(forward.gradients[name], reference.gradients[name], rtol=0, atol=1e-10 * scale)


def test_the_derivative_does_not_run_the_encoder_again() -> None:
    runs: list[bool] = []

    def count(module: nn.Module, args: Any, output: Any) -> None:
        # On the meta device nothing is computed: the sizes are tried there before the first step.
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and not output.is_meta:
            runs.append(True)

    with torch.nn.modules.module.register_module_forward_hook(count):
        first_step()
    assert len(runs) == 3  # labelled, generated, and phase S


def test_the_memory_format_changes_rounding_alone() -> None:
    (_, plain), (method, last) = first_step(), first_step(channels_last=True)
    for network in (method.segmenter, method.annotator, method.gan):
        convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.weight.shape[2:] == (3, 3)]
        weights = [m.weight for m in convolutions] or [p for p in network.parameters() if p.shape[2:] == (3, 3)]
        assert weights and all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    assert plain.gradients.keys() == last.gradients.keys()
    for name, gradient in plain.gradients.items():
        torch.testing.assert_close(
            last.gradients[name], gradient, rtol=1e-8, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


def slopes(monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Tensor, Tensor, Catch]:
    """y and dD/dy of the first step."""
    seen: list[Tensor] = []

    def remember(value: Tensor, tensors: list[Tensor], gradients: list[Tensor]) -> Tensor:
        seen.extend([tensors[0].detach(), gradients[0].detach()])
        return value

    with monkeypatch.context() as patch:
        patch.setattr(gradient_annotator, "attach_gradient", remember)
        catch = first_step(**options)[1]
    return seen[0], seen[1], catch


def test_invariants_of_the_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    y, slope, catch = slopes(monkeypatch)
    assert float((slope * y).abs().sum()) > 0
    assert abs(float((slope * y).sum())) < 1e-12 * float((slope * y).abs().sum())  # <u, g> = 0
    logits = y.log().requires_grad_()
    (through,) = torch.autograd.grad((slope * logits.softmax(1)).sum(), logits)
    assert float(through.sum(1).abs().max()) < 1e-14 * float(through.abs().max()) + 1e-18

    ours = GradientAnnotator.pixel_losses
    monkeypatch.setattr(GradientAnnotator, "pixel_losses", lambda *args: 7 * ours(*args))
    _, louder, again = slopes(monkeypatch)
    torch.testing.assert_close(louder, slope, rtol=1e-9, atol=1e-16)
    soft = gradient_annotator.soft_cross_entropy
    monkeypatch.setattr(gradient_annotator, "soft_cross_entropy", lambda *args: 7 * soft(*args))
    _, _, both = slopes(monkeypatch)
    for other in (again, both):
        assert other.logged["match/distance"] == pytest.approx(catch.logged["match/distance"], rel=1e-9)


def test_the_derivative_is_that_of_the_distance() -> None:
    """Central differences in one weight of the annotator."""

    def run(shift: float) -> Catch:
        L.seed_everything(0, verbose=False)
        method, catch = tiny.method("gradient-annotator"), Catch()
        assert isinstance(method, GradientAnnotator)
        with torch.no_grad():
            method.double().annotator.laterals[1].weight[3, 5] += shift
        tiny.trainer(1, callbacks=[catch], precision="64-true").fit(method, datamodule=tiny.data())
        return catch

    step = 1e-5
    difference = (run(step).logged["match/distance"] - run(-step).logged["match/distance"]) / (2 * step)
    expected = float(run(0.0).gradients["annotator.laterals.1.weight"][3, 5])
    assert abs(expected) > 1e-9 and difference == pytest.approx(expected, rel=1e-4)


def test_without_a_gradient_the_annotator_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_annotator, "soft_cross_entropy", lambda logits, *_: (0 * logits).sum())
    _, slope, catch = slopes(monkeypatch)
    assert float(slope.abs().max()) == 0 and catch.logged["match/synthetic_norm"] < 1e-20


def test_the_annotator_moves_every_k_steps() -> None:
    def annotator(steps: int) -> list[Tensor]:
        trained = tiny.fit("gradient-annotator", steps, student_steps=2)
        assert isinstance(trained, GradientAnnotator)
        return list(trained.annotator.parameters()) + list(trained.segmenter.parameters())

    one, two, three = (annotator(steps) for steps in (1, 2, 3))
    first = len(list(tiny.method("gradient-annotator").get_submodule("annotator").parameters()))
    assert all(torch.equal(a, b) for a, b in zip(one[:first], two[:first], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(two[:first], three[:first], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one[first:], two[first:], strict=True))


@pytest.mark.parametrize("which", ["both", "labelled"])
def test_running_statistics(which: str) -> None:
    method, catch = first_step(running_statistics=which)
    assert isinstance(method.segmenter, Segmenter)
    with torch.no_grad():
        method(catch.batch["target"]["image"].double())
        if which == "both":
            for purpose in ("matching latent", "student latent"):
                method(paint(method, purpose)[0])
    found = {name: b for name, b in method.segmenter.named_buffers() if "running" in name}
    assert found
    for name, expected in found.items():
        torch.testing.assert_close(catch.buffers[name], expected, rtol=1e-9, atol=1e-12)


def test_the_generator_is_never_trained_nor_put_in_training_mode() -> None:
    before = load_generator("packaged").state_dict()
    trained = tiny.fit("gradient-annotator", 2)
    assert isinstance(trained, GradientAnnotator)
    assert all(torch.equal(before[name], value) for name, value in trained.gan.state_dict().items())
    assert not trained.train().gan.training and trained.annotator.training


def test_an_image_is_the_same_in_any_batch() -> None:
    method = tiny.method("gradient-annotator").eval()
    assert isinstance(method, GradientAnnotator)

    def make(*seeds: int) -> tuple[Tensor, Tensor]:
        return method.labelled_images([torch.Generator().manual_seed(s) for s in seeds], (32, 48))

    images, y = make(1, 2, 3)
    assert images.shape == (3, 3, 32, 48) and y.shape == (3, 9, 32, 48)
    torch.testing.assert_close(y.sum(1), torch.ones(3, 32, 48))
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    torch.testing.assert_close(make(2)[0], images[1:2])
    torch.testing.assert_close(make(2)[1], y[1:2])


def test_square_images_are_stretched_or_cropped() -> None:
    ramp = torch.linspace(-1, 1, 64).view(1, 1, 64, 1).expand(1, 3, 64, 64)
    for fit, top in (("stretch", 0.0), ("crop", 0.25)):
        method = tiny.method("gradient-annotator", fit=fit)
        assert isinstance(method, GradientAnnotator)
        image = method.to_input(ramp, (16, 32))
        assert image.shape == (1, 3, 16, 32)
        assert float(image[0, 0, 0, 0]) == pytest.approx(top, abs=0.04)


def test_a_teacher_labels_instead(tmp_path: Path) -> None:
    supervised = tiny.fit("target-only", 2)
    supervised.trainer.save_checkpoint(tmp_path / "teacher.ckpt")
    options = {"labels": "teacher", "teacher_checkpoint": str(tmp_path / "teacher.ckpt")}
    method, catch = first_step(**options)
    image, _ = paint(method, "student latent")
    teacher = supervised.double().eval()
    with torch.no_grad():
        y = teacher(image).softmax(1)
    soft_loss(method(image), y).backward()
    for name, p in method.segmenter.named_parameters():
        torch.testing.assert_close(catch.gradients[f"segmenter.{name}"], p.grad, rtol=1e-8, atol=1e-12)
    assert not any(name.startswith(("teacher", "annotator")) for name in catch.gradients)
    with pytest.raises(ConfigError, match="teacher_checkpoint"):
        tiny.fit("gradient-annotator", 1, labels="teacher")


def test_the_generator_comes_with_the_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = StyleGAN2(z_dim=8, w_dim=8, resolution=16, channel_base=128, mapping_layers=1)
    save_generator(network, tmp_path / "mine.pt")
    trained = tiny.fit("gradient-annotator", 1, generator=str(tmp_path / "mine.pt"), truncation=0.5)
    assert isinstance(trained, GradientAnnotator)
    trained.trainer.save_checkpoint(tmp_path / "x.ckpt")
    (tmp_path / "mine.pt").unlink()
    again = GradientAnnotator.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert isinstance(again.gan, StyleGAN2) and again.gan.truncation == 0.5
    draws = [torch.Generator().manual_seed(i) for i in range(2)]
    more = [torch.Generator().manual_seed(i) for i in range(2)]
    torch.testing.assert_close(again.eval().labelled_images(draws), trained.eval().labelled_images(more))


def test_generators_of_all_kinds(tmp_path: Path) -> None:
    network = DCGAN(latent_dim=6, channels=4)
    torch.save(network.state_dict(), tmp_path / "plain.pt")
    plain = load_generator(str(tmp_path / "plain.pt"))
    assert not plain.training and not any(p.requires_grad for p in plain.parameters())
    gan = tiny.fit("gan", 3)
    gan.trainer.save_checkpoint(tmp_path / "gan.ckpt")
    average = gan.get_submodule("average.network").state_dict()
    loaded = load_generator(str(tmp_path / "gan.ckpt")).state_dict()
    assert average.keys() == loaded.keys() and all(torch.equal(average[name], loaded[name]) for name in loaded)
    assert load_generator("packaged").resolution == 64

    tiny.fit("target-only", 1).trainer.save_checkpoint(tmp_path / "other.ckpt")
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    torch.save({"state_dict": {}}, tmp_path / "strange.pt")
    for name, message in (
        ("absent.pt", "no generator weights"),
        ("other.ckpt", "of 'target-only'"),
        ("broken.pt", "not a readable file"),
        ("strange.pt", "neither a generator"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_generator(str(tmp_path / name))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": r".*\.bias"}, "matches no weight"),
        ({"scope": "("}, "not a regular expression"),
        ({"student_steps": 0}, "student_steps"),
        ({"whiten": True, "scope": ".*", "encoder": "mobilenet_v2"}, "without groups"),
        ({"labels": "teacher", "running_statistics": "labelled"}, "no labelled image"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.method("gradient-annotator", **options)


def test_the_default_scope_is_all_behind_the_encoder() -> None:
    method = tiny.method("gradient-annotator")
    assert isinstance(method, GradientAnnotator) and isinstance(method.segmenter, nn.Module)
    assert method.matched == list(method.segmenter.parameters_of("decoder"))


@pytest.mark.parametrize(
    ("slug", "data"), [("gradient-annotator", "minifaces"), ("gan", "minifaces"), ("joint", "minicity")]
)
def test_a_method_names_the_data_it_runs_on_by_default(slug: str, data: str) -> None:
    invocation = expand("fit", ["--method", slug], lambda _: {})
    assert invocation is not None
    names = [layer.content["data"]["name"] for layer in invocation.layers if "name" in layer.content.get("data", {})]
    assert names == [data]
    assert not any("default_data" in layer.content for layer in invocation.layers)
    chosen = expand("fit", ["--method", slug, "--data", "folders"], lambda _: {})
    assert chosen is not None and any(layer.content.get("data", {}).get("name") == "my_data" for layer in chosen.layers)
