"""Self-training and SePiCo, recomputed with the draws of a step replaced by fixed ones."""

import copy
import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.adaptation import LabelledCells, View, cell_labels, class_balance
from segzoo.bilevel import frozen_buffers
from segzoo.data import MiniCity, minicity
from segzoo.data.domains import ImageSet
from segzoo.errors import ConfigError
from segzoo.methods import mean_teacher, self_training, sepico
from segzoo.methods.self_training import SelfTraining
from segzoo.methods.sepico import SePiCo
from tests import tiny
from tests.methods.catching import Catch, caught

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = {"projection_dim": 6, "contrast_start": 0, "temperature": 0.5, "pseudo": {"threshold": 0.12}}


@pytest.fixture(autouse=True)
def _no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Augmentation that is recognisable, the left half of the source in the mixture, and the crop in the corner."""
    monkeypatch.setattr(mean_teacher, "strong_augment", lambda image, generator: 0.9 * image)

    def left_half(labels: Tensor, *_: Any) -> Tensor:
        mask = torch.zeros_like(labels, dtype=torch.bool)
        mask[..., : labels.shape[-1] // 2] = True
        return mask

    monkeypatch.setattr(self_training, "class_mix", left_half)
    corner = lambda labels, *_: torch.zeros(len(labels), 2, dtype=torch.long)  # noqa: E731
    monkeypatch.setattr(sepico, "class_balanced_crop", corner)


def pixel_ce(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, ignore_index=255, reduction="none")


def teacher_labels(method: SelfTraining, image: Tensor) -> tuple[Tensor, Tensor]:
    """By the student itself, which the teacher is a copy of in the first step; its batch norms see the batch."""
    with torch.no_grad(), frozen_buffers(method.segmenter):
        confidence, labels = method(image).softmax(1).max(1)
    return labels, confidence


def mixture(source: dict[str, Any], image: Tensor, labels: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    left = torch.zeros_like(labels, dtype=torch.bool)
    left[..., : labels.shape[-1] // 2] = True
    mixed = torch.where(left[:, None], source["image"].double(), image)
    return mixed, torch.where(left, source["label"], labels), torch.where(left, torch.ones_like(q), q)


def assert_gradients(method: nn.Module, loss: Tensor, catch: Catch) -> None:
    loss.backward()
    for name, p in method.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(catch.gradients[name], p.grad, rtol=1e-7, atol=1e-11, msg=name)


@pytest.mark.parametrize("scheme", ["share", "pixel"])
@pytest.mark.parametrize("mean", ["valid", "all"])
@pytest.mark.parametrize("augmentation", ["weak", "strong"])
def test_the_first_step_of_self_training(scheme: str, mean: str, augmentation: str) -> None:
    options: dict[str, Any] = {"pixel_mean": mean, "source_augmentation": augmentation}
    options |= {"pseudo": {"threshold": 0.24, "weight": scheme}}
    rows = {"ignore_top": 3, "ignore_bottom": 5}
    method, catch = caught("self-training", void=True, data_options=rows, **options)
    assert isinstance(method, SelfTraining)
    source, target = catch.batch["source"], catch.batch["target"]["image"].double()
    labels, confidence = teacher_labels(method, target)
    sure = (confidence >= 0.24).double()
    assert 0 < float(sure.mean()) < 1, "the test needs a threshold that parts the pixels"
    q = sure if scheme == "pixel" else torch.full_like(sure, float(sure.mean()))
    q[:, :3] = 0
    q[:, -5:] = 0
    mixed, mixed_labels, weights = mixture(source, target, labels, q)
    factor = 0.9 if augmentation == "strong" else 1.0
    with frozen_buffers(method.segmenter):
        losses = pixel_ce(method(factor * source["image"].double()), source["label"])
    count = (lambda y: y.numel()) if mean == "all" else (lambda y: (y != 255).sum())
    mixed_losses = weights * pixel_ce(method(0.9 * mixed), mixed_labels)
    assert (source["label"] == 255).any(), "void pixels tell the two means apart"
    total = losses.sum() / count(source["label"]) + mixed_losses.sum() / count(mixed_labels)
    assert_gradients(method, total, catch)


def test_the_teacher_follows_and_is_scored() -> None:
    validate = {"limit_val_batches": 1, "val_check_interval": 3, "check_val_every_n_epoch": None}
    trained = tiny.fit("self-training", 3, pseudo={"ema_decay": 0.5}, trainer_options=validate)
    assert isinstance(trained, SelfTraining)
    teacher, student = trained.teacher_segmenter, trained.segmenter
    assert int(trained.teacher.step) == 3
    assert any(not torch.equal(a, b) for a, b in zip(teacher.parameters(), student.parameters(), strict=True))
    logged = trained.trainer.callback_metrics
    assert 0 <= float(logged["val/teacher_miou"]) <= 1
    assert any(name.startswith("pseudo/precision/") for name in logged)
    assert set(trained.step_pictures) >= {"source", "target", "mixed", "pseudo label", "confidence", "prediction"}
    assert [len(trained.step_names[title]) for title in ("source", "target")] == [
        len(trained.step_pictures["target"])
    ] * 2


def test_donors_of_both_domains_are_called_so_and_by_their_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    method = tiny.method("ssda")
    coins = lambda _, count: [torch.Generator().manual_seed(i) for i in range(count)]  # noqa: E731
    monkeypatch.setattr(method, "image_generators", coins)
    batches = [
        {
            "image": torch.rand(6, 3, 4, 4),
            "label": torch.zeros(6, 4, 4).long(),
            "name": [f"{part}{i}" for i in range(6)],
        }
        for part in ("synthetic", "labelled", "photograph")
    ]
    own = {name: image for batch in batches for name, image in zip(batch["name"], batch["image"], strict=True)}
    ones = torch.ones(6, 4, 4)
    view = View(batches[2]["image"], ones.long(), ones, ones, names=batches[2]["name"])
    mixture = method.mix(method.donors(*batches[:2]), view)
    method._seen = (view, mixture, torch.rand(6, 9, 4, 4))
    pictures, names = method.step_pictures, method.step_names
    assert list(pictures)[:2] == list(names) == ["donor", "target"]
    assert {name.rstrip("0123456789") for name in names["donor"]} == {"synthetic", "labelled"}
    for title in names:
        assert all(torch.equal(own[name], one) for name, one in zip(names[title], pictures[title], strict=True))


def test_the_feature_distance_is_that_of_the_chosen_classes() -> None:
    options: dict[str, Any] = {"feature_distance": 0.5, "feature_classes": ["road"]}
    method, catch = caught("self-training", data_options={"size": (128, 256)}, **options)
    assert isinstance(method, SelfTraining)
    source = catch.batch["source"]
    with torch.no_grad():  # as if one step had been taken
        moved = copy.deepcopy(method)
        for p in moved.segmenter.network.encoder.parameters():
            p.add_(0.01 * torch.randn_like(p))
    image, label = source["image"].double(), source["label"]
    moved.train()
    features = moved.segmenter.features(image)
    first = method.segmenter.eval().features(image)[-1]
    road = list(method.label_space.classes).index("road")
    share = F.adaptive_avg_pool2d((label == road).double()[:, None], tuple(features[-1].shape[-2:]))[:, 0]
    rivals = [
        F.adaptive_avg_pool2d((label == c).double()[:, None], tuple(features[-1].shape[-2:]))[:, 0] for c in range(9)
    ]
    chosen = (share >= 0.75) & (share >= torch.stack(rivals).amax(0))
    assert chosen.any() and not chosen.all()
    expected = (features[-1] - first).norm(dim=1)[chosen].mean()
    cells = cell_labels(moved.segmenter, label, features[-1].shape[-2:], 9)
    distance, counted = moved.feature_distance(image, features[-1], cells)
    torch.testing.assert_close(distance[counted].mean(), expected, rtol=1e-9, atol=1e-9)
    assert catch.logged["train/feature distance"] >= 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"feature_distance": 0.1, "feature_classes": ["raod"]}, "method.feature_classes"),
        ({"night": {"classes": ["raod"]}}, "method.night.classes"),
    ],
)
def test_a_class_that_is_not_there(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"`{named}`: there is no class 'raod'.*road"):
        tiny.method("self-training", **options)


@pytest.mark.parametrize("option", ["weight", "threshold"])
def test_shares_outside_their_range(option: str) -> None:
    with pytest.raises(ConfigError, match=f"`method.night.{option}` 1.5"):
        tiny.method("self-training", night={option: 1.5})


class ByDay(MiniCity):
    """Every image has another one of the same set as its reference."""

    def images(self, split: Any, root: Path) -> ImageSet:
        images = super().images(split, root)
        images.has_references = True
        images.reference = lambda index: images.image((index + 1) % len(images))  # type: ignore[method-assign]
        return images


BALANCED = {
    "class_balance": 0.3,
    "frequencies": dict.fromkeys(minicity.CLASSES, 0.1) | {"road": 0.4, "sky": 0.01},
}


@pytest.mark.parametrize("slug", ["self-training", "sepico"])
@pytest.mark.parametrize("references", [False, True])
def test_a_first_step_with_references_and_class_weights(slug: str, references: bool) -> None:
    still = ["road", "sky"] if references else None
    night = BALANCED | {"classes": still, "weight": 0.7, "threshold": 0.11}
    options: dict[str, Any] = {"pseudo": {"threshold": 0.2}, "night": night}
    if slug == "sepico":  # without its contrast, and with a crop of the source's size
        options |= {"contrast_start": 5, "crop_share": None, "projection_dim": 6}
    target = {"target": ByDay("target", train=8, val=2, test=3, size=tiny.SIZE)}
    method, catch = caught(slug, data_options=target, **options)
    assert isinstance(method, SelfTraining)
    source, batch = catch.batch["source"], catch.batch["target"]
    assert ("reference" in batch) == references
    height, width = source["image"].shape[-2:]
    image, w = (
        batch["image"].double()[..., :height, :width],
        class_balance(BALANCED["frequencies"], minicity.CLASSES, 0.3).float().double(),
    )
    with torch.no_grad(), frozen_buffers(method.segmenter):
        scores = method(image).softmax(1)
        if references:
            day = method(batch["reference"].double()[..., :height, :width]).softmax(1)
            for c in (list(minicity.CLASSES).index(name) for name in ("road", "sky")):
                trust = 0.3 + 0.4 * (day[:, c] > 0.11)
                scores[:, c] = trust * day[:, c] + (1 - trust) * scores[:, c]
            assert 0 < (day > 0.11).double().mean() < 1, "the test needs a threshold that parts the pixels"
    confidence, labels = (scores * w[:, None, None]).max(1)
    share = float((confidence >= 0.2).double().mean())
    assert 0 < share < 1
    mixed, mixed_labels, weights = mixture(source, image, labels, torch.full_like(confidence, share))
    ce = lambda z, y: F.cross_entropy(z, y, w, ignore_index=255, reduction="none")  # noqa: E731
    with frozen_buffers(method.segmenter):
        loss = ce(method(source["image"].double()), source["label"]).sum() / (source["label"] != 255).sum()
    loss = loss + (weights * ce(method(0.9 * mixed), mixed_labels)).sum() / (mixed_labels != 255).sum()
    loss.backward()
    for name, p in method.segmenter.named_parameters():
        torch.testing.assert_close(catch.gradients[f"segmenter.{name}"], p.grad, rtol=1e-6, atol=1e-9, msg=name)


def test_source_images_are_drawn_by_class() -> None:
    for slug in ("self-training", "sepico"):
        streams = tiny.method(slug).streams
        assert streams["source"].by_class and not streams["target"].by_class and not streams["target"].labelled
    assert tiny.method("sepico").streams["target"].whole
    assert not tiny.method("sepico", balanced_crop=False).streams["target"].whole


# SePiCo


def vectors(method: SePiCo, image: Tensor) -> Tensor:
    """Unit vectors (B, A, h, w) of all maps from stride 4 on."""
    maps = method.segmenter.features(image)[2:]
    maps = [F.interpolate(m, maps[0].shape[-2:], mode="bilinear", align_corners=False) for m in maps]
    return method.projection(torch.cat(maps, 1))


def cells(labels: Tensor, size: tuple[int, ...]) -> Tensor:
    """The label that three quarters of a cell share."""
    step = labels.shape[-1] // size[-1]
    found = torch.full((len(labels), *size), 255)
    for b, y, x in torch.cartesian_prod(*(torch.arange(n) for n in found.shape)).tolist():
        cell = labels[b, y * step : (y + 1) * step, x * step : (x + 1) * step]
        values, counts = cell.unique(return_counts=True)
        if counts.max() >= 0.75 * step * step:
            found[b, y, x] = values[counts.argmax()]
    return found


def contrast(q: Tensor, y: Tensor, kind: str, mean: Tensor, variance: Tensor, seen: list[int], t: float) -> Tensor:
    """The contrast of vectors (P, A) pixel by pixel; with one entry per class a bank is its prototypes."""
    total = q.new_zeros(())
    for vector, label in zip(q, y.tolist(), strict=True):
        logits = torch.stack(
            [vector @ mean[c] / t + ((vector**2) @ variance[c] / (2 * t * t) if kind == "dist" else 0.0) for c in seen]
        )
        total = total + logits.logsumexp(0) - vector @ mean[label] / t
    return total / len(q)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("kind", ["proto", "dist", "bank"])
def test_the_first_step_of_sepico(kind: str, fast: bool) -> None:
    options: dict[str, Any] = SMALL | {
        "contrast": kind,
        "fast": fast,
        "crop_share": None,
        "source_augmentation": "strong",
    }
    if kind == "bank":
        options["bank_length"] = 1
    method, catch = caught("sepico", contrast_weight=0.7, regularizer_weight=-0.3, **options)
    assert isinstance(method, SePiCo)
    source, whole = catch.batch["source"], catch.batch["target"]["image"].double()
    image, label = source["image"].double(), source["label"]
    height, width = image.shape[-2:]
    target = whole[..., :height, :width]
    labels, confidence = teacher_labels(method, whole if fast else target)
    labels, confidence = labels[..., :height, :width], confidence[..., :height, :width]
    q = torch.full_like(confidence, float((confidence >= 0.12).double().mean()))
    assert float(q[0, 0, 0]) > 0

    with torch.no_grad(), frozen_buffers(method):
        known = vectors(method, image)
    y = cells(label, known.shape[-2:])
    rows = known.movedim(1, -1)
    seen = sorted(set(y[y != 255].tolist()))
    mean, variance = torch.zeros(9, 6).double(), torch.zeros(9, 6).double()
    for c in seen:
        mean[c], variance[c] = rows[y == c].mean(0), rows[y == c].var(0, unbiased=False)

    def terms(x: Tensor, pixel_labels: Tensor) -> Tensor:
        v = vectors(method, x)
        y = cells(pixel_labels, v.shape[-2:])
        kept = torch.isin(y, torch.tensor(seen))
        mass = (y != 255).sum() / kept.sum().clamp_min(1)  # unseen classes count in the mean and contribute nothing
        loss = contrast(v.movedim(1, -1)[kept], y[kept], kind, mean, variance, seen, 0.5) / mass
        even = torch.stack([v.movedim(1, -1)[y != 255].mean(0) @ mean[c] / 0.5 for c in seen]).log_softmax(0)
        return 0.7 * loss + 0.3 * -even.sum() / (len(seen) * math.log(len(seen)))

    with frozen_buffers(method):
        losses = pixel_ce(method(0.9 * image), label)
        total = losses.sum() / (label != 255).sum() + terms(0.9 * image, label)
    mixed, mixed_labels, weights = mixture(source, target, labels, q)
    total = total + (weights * pixel_ce(method(0.9 * mixed), mixed_labels)).sum() / (mixed_labels != 255).sum()
    if fast:
        right = labels.clone()
        right[..., : width // 2] = 255
        total = total + terms(0.9 * mixed, right)
    else:
        total = total + terms(0.9 * target, labels)
    assert_gradients(method, total, catch)


@pytest.mark.parametrize(("fast", "student", "teacher"), [(False, 3, 3), (True, 2, 2)])
def test_passes_of_a_step(fast: bool, student: int, teacher: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"student": 0, "teacher": 0}
    init = SePiCo.__init__

    @functools.wraps(init)
    def counting(self: SePiCo, **kwargs: Any) -> None:
        init(self, **kwargs)
        for who, segmenter in (("student", self.segmenter), ("teacher", self.teacher_segmenter)):
            # On the meta device nothing is computed: the sizes are tried there before the first step.
            hook = lambda _, given, __, who=who: counts.update({who: counts[who] + (not given[0].is_meta)})  # noqa: E731
            segmenter.network.encoder.register_forward_hook(hook)

    monkeypatch.setattr(SePiCo, "__init__", counting)
    tiny.fit("sepico", 1, fast=fast)
    assert counts == {"student": student, "teacher": teacher}


def test_before_the_contrast_begins_the_concepts_are_gathered() -> None:
    trained = tiny.fit("sepico", 2, contrast_start=2)
    assert isinstance(trained, SePiCo)
    assert int(trained.statistics.count.sum()) > 0
    _, catch = caught("sepico", 2, contrast_start=2)
    assert catch.logged["train/source contrast"] == 0 and "train/target contrast" not in catch.logged
    assert catch.gradients["projection.layers.0.0.weight"].abs().sum() == 0
    _, catch = caught("sepico", 2, contrast_start=1)
    assert catch.logged["train/source contrast"] > 0 and "train/target contrast" in catch.logged


@pytest.mark.parametrize("fast", [False, True])
def test_target_pixels_of_the_contrast(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose pseudo labels count, however unsure, of which ``fast`` leaves out what shows the source."""
    asked: dict[str, Tensor] = {}
    cells, labels = SePiCo.cells, torch.arange(32 * 64).view(1, 32, 64).expand(2, 32, 64) % 9
    weights = torch.full((2, 32, 64), 0.5)
    weights[:, :4] = 0
    image, unsure = torch.rand(2, 3, 32, 64), torch.full((2, 32, 64), 0.2)
    monkeypatch.setattr(SePiCo, "cropped_view", lambda *_: View(image, labels, unsure, weights))

    def watch(self: SePiCo, vectors: Tensor, found: Tensor) -> LabelledCells:
        asked["target"] = found.clone()  # after the source's
        return cells(self, vectors, found)

    monkeypatch.setattr(SePiCo, "cells", watch)
    tiny.fit("sepico", 1, fast=fast)
    expected = labels.masked_fill(weights == 0, 255)
    if fast:
        expected[..., :32] = 255
    assert torch.equal(asked["target"], expected)


@pytest.mark.parametrize("unseen", ["drop", "keep"])
def test_unseen_classes(unseen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = tiny.method("sepico", unseen=unseen, contrast="proto", temperature=1.0)
    assert isinstance(method, SePiCo)
    monkeypatch.setattr(SePiCo, "contrasting", True)
    method.statistics.mean[3, 0] = 1.0
    method.statistics.count[3] = 5
    image, label = torch.rand(2, 3, *tiny.SIZE), torch.full((2, *tiny.SIZE), 3)
    with torch.no_grad():
        maps = method.projected(method.segmenter.features(image))
        loss = method.contrast_terms("source", maps, method.cells(maps, label))["source contrast"]
        likeness = vectors(method, image)[:, 0]
    others = torch.log1p(8 * (-likeness).exp()).mean()  # eight classes whose similarity is 0
    assert float(loss) == pytest.approx(0.0 if unseen == "drop" else float(others), abs=1e-5)


@pytest.mark.parametrize(("unseen", "entries"), [("drop", 0), ("keep", 1)])
def test_a_bank_begins_with_a_zero_vector_where_unseen_classes_are_kept(unseen: str, entries: int) -> None:
    method = tiny.method("sepico", unseen=unseen, contrast="bank")
    assert isinstance(method, SePiCo) and method.bank.filled.tolist() == [entries] * 9


@pytest.mark.parametrize("fast", [False, True])
def test_the_targets_crop_is_resized_with_its_labels(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    method = tiny.method("sepico", crop_share=0.5625, fast=fast)
    assert isinstance(method, SePiCo)
    corners = [(3, 5), (8, 16)]
    monkeypatch.setattr(sepico, "class_balanced_crop", lambda labels, *_: torch.tensor(corners))
    monkeypatch.setattr(SePiCo, "image_generators", lambda *_: [])
    monkeypatch.setattr(SePiCo, "pseudo_weights", lambda self, confidence: confidence)
    # As a teacher whose label of a pixel is the whole part of its red.
    monkeypatch.setattr(SePiCo, "label", lambda self, image: (image[:, 0].long(), image[:, 1]))
    image = 9 * torch.rand(2, 3, 32, 64)
    view = method.cropped_view({"image": image}, (16, 32))
    # 0.5625 of 32 x 64 is a box of 24 x 48, in the shape of the source's 16 x 32.
    boxes = torch.stack([x[:, top : top + 24, left : left + 48] for x, (top, left) in zip(image, corners, strict=True)])
    small = F.interpolate(boxes, (16, 32), mode="bilinear")
    torch.testing.assert_close(view.image, small)
    nearest = F.interpolate(boxes, (16, 32), mode="nearest-exact")
    assert torch.equal(view.labels, (nearest if fast else small)[:, 0].long())
    torch.testing.assert_close(view.confidence, (nearest if fast else small)[:, 1])


@pytest.mark.parametrize("scope", ["image", "batch"])
def test_whose_classes_are_mixed(scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    mask = self_training.class_mix

    def watch(labels: Tensor, *arguments: Any) -> Tensor:
        asked.append(arguments[1])
        return mask(labels)

    monkeypatch.setattr(self_training, "class_mix", watch)
    tiny.fit("self-training", 1, mix_scope=scope)
    assert asked == [scope]


@pytest.mark.parametrize("statistics", ["target", "both"])
def test_whose_statistics_are_kept(statistics: str) -> None:
    method, catch = caught("self-training", running_statistics=statistics)
    assert isinstance(method, SelfTraining)
    image = catch.batch["source"]["image"].double()
    labels, confidence = teacher_labels(method, catch.batch["target"]["image"].double())
    mixed, _, _ = mixture(catch.batch["source"], catch.batch["target"]["image"].double(), labels, confidence)
    if statistics == "both":
        method(image)
    method(0.9 * mixed)
    for name, buffer in method.segmenter.named_buffers():
        torch.testing.assert_close(buffer, catch.buffers[name], msg=name)


def test_images_of_different_sizes_are_not_mixed() -> None:
    with pytest.raises(ConfigError, match=r"target images of 32x64 pixels .* source images of 32x32: give both one"):
        tiny.fit("self-training", 1, data_options={"source_size": (32, 32)})


def test_the_regularizers_sign() -> None:
    published, ours = (caught("sepico", regularizer_weight=w, **SMALL)[1].logged for w in (1.0, -1.0))
    assert published["train/source regularizer"] == pytest.approx(-ours["train/source regularizer"])
    assert published["train/source regularizer"] <= -1


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"crop_share": 0.0}, {"crop_share": 1.5}])
def test_numbers_outside_their_range(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"`method.{next(iter(options))}`"):
        tiny.method("sepico", **options)


@pytest.mark.parametrize(
    ("slug", "option", "value"),
    [
        ("sepico", "bank_length", 0),
        ("sepico", "projection_dim", 0),
        ("self-training", "pseudo.ema_decay", 1.5),
        ("self-training", "feature_distance", -1.0),
        ("maxsquare", "hard_threshold", 2.0),
        ("joint", "poly_power", -1.0),
        ("joint", "schedule_steps", -5),
    ],
)
def test_a_number_outside_its_range_is_named(slug: str, option: str, value: float) -> None:
    section = "optimizer" if slug == "joint" else "method"
    name, _, inner = option.partition(".")
    with pytest.raises(ConfigError, match=f"`{section}.{option}` {value}: expected"):
        tiny.method(slug, **{name: {inner: value} if inner else value})
