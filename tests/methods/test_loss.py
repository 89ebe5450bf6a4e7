"""The section ``loss``: which terms of which method take what of it, and where the class weights come from."""

import inspect
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from segzoo.adaptation import frequency_weights
from segzoo.data.label_spaces import IGNORE_INDEX
from segzoo.data.streams import EvaluationDataset, collate
from segzoo.data.transforms import evaluation_transform
from segzoo.errors import ConfigError
from segzoo.methods import Loss, SegmentationMethod, SePiCo
from segzoo.methods.registry import load_method
from tests import tiny
from tests.methods.catching import caught

pytestmark = pytest.mark.filterwarnings("ignore")
SEGMENTING = [slug for slug in tiny.METHODS if issubclass(load_method(slug), SegmentationMethod)]
EVERYTHING: dict[str, Any] = {"class_balance": 1.0, "focal": 2.0, "overlap": "dice", "overlap_weight": 0.5}
PIXELS: dict[str, Any] = {"class_balance": 1.0, "focal": 2.0}
AREAS = {
    "source-only": ["source"],
    "target-only": ["target"],
    "joint": ["source", "target"],
    "metapix": ["target"],
    "reweight": ["target"],
    "region-selection": ["target"],
    "maxsquare": ["source"],
    "minent": ["source"],
    "self-training": ["source"],
    "sepico": ["source"],
    "semi-supervised": ["target"],
    "ssda": ["source", "target"],
}
"""The images of whose areas every method learns: neither those whose pixels have weights of their own, nor mixtures."""


def counted(domain: str) -> Tensor:
    """The classes' shares in the labels of the tiny data, pixel by pixel."""
    data = tiny.data()
    images = data.images(domain, "train")
    indices = data._labelled_target() if domain == "target" else range(len(images))
    labels = np.concatenate([np.asarray(images.label(i)).ravel() for i in indices])
    found = torch.tensor([(labels == c).sum() for c in range(data.label_space.num_classes)], dtype=torch.float64)
    return found / found.sum()


def weight_of(*domains: str) -> Tensor:
    """Median frequency balancing as it is written, with e = 1."""
    f = torch.stack([counted(domain) for domain in domains]).mean(0)
    w = f[f > 0].quantile(0.5) / f
    assert (f > 0).all() and w.max() < 100 and w.min() > 0.01, "the test is of no clamped weights"
    return w / (f * w).sum()


def pixel_loss(z: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """w_y (1 - p_y)^2 (-log p_y), of every pixel."""
    log_p = z.log_softmax(1).gather(1, y[:, None])[:, 0]
    return weight.to(z.dtype)[y] * (1 - log_p.exp()) ** 2 * -log_p


def area_loss(z: Tensor, y: Tensor) -> Tensor:
    p = z.softmax(1).movedim(1, -1)
    dice = [2 * p[..., c][y == c].sum() / (p[..., c].sum() + (y == c).sum()) for c in y.unique().tolist()]
    return 0.5 * (1 - torch.stack(dice).mean())


def test_every_method_that_segments_is_listed() -> None:
    assert {*AREAS, "gradient-annotator"} == set(SEGMENTING)
    assert ["loss" in inspect.signature(load_method(slug)).parameters for slug in tiny.METHODS] == [
        slug in SEGMENTING for slug in tiny.METHODS
    ]


@pytest.mark.parametrize("slug", SEGMENTING)
def test_class_weights_are_of_the_labels_that_the_method_learns_from(slug: str) -> None:
    resources = load_method(slug).resources
    domains = ["source"] * ("source" in resources) + ["target"] * ("labels" in resources)
    before = tiny.method(slug)
    trained = tiny.fit(slug, 1, loss={"class_balance": 1.0})
    assert before.class_weight is None
    torch.testing.assert_close(trained.class_weight, weight_of(*domains).float())
    assert trained.state_dict().keys() == before.state_dict().keys()


def test_the_exponent_is_the_options() -> None:
    trained = tiny.fit("joint", 1, loss={"class_balance": 0.3})
    f = (counted("source") + counted("target")) / 2
    torch.testing.assert_close(trained.class_weight, frequency_weights(f, 0.3).float())


def test_without_our_data_nobody_counts() -> None:
    data = tiny.data()
    images = EvaluationDataset(data.images("source", "train"), evaluation_transform(tiny.SIZE), [0, 1])
    batches: Any = [{"source": collate([images[0], images[1]])}]
    with pytest.raises(ConfigError, match=r"`loss\.class_balance` counts the labels of a DomainDataModule"):
        tiny.trainer(1).fit(
            tiny.method("source-only", loss={"class_balance": 1.0}), DataLoader(batches, batch_size=None)
        )
    tiny.trainer(1).fit(
        tiny.method("source-only", loss={"focal": 1.0, "overlap": "lovasz"}), DataLoader(batches, batch_size=None)
    )


@pytest.mark.parametrize("slug", ["source-only", "target-only", "joint"])
def test_a_step_is_the_sum_of_its_terms(slug: str) -> None:
    options: dict[str, Any] = {"weight": 0.7} if slug == "joint" else {}
    method, catch = caught(slug, loss=EVERYTHING, norm="frozen", **options)
    weight = weight_of(*AREAS[slug])
    total: Any = 0
    for domain in AREAS[slug]:
        z, y = method(catch.batch[domain]["image"].double()), catch.batch[domain]["label"]
        assert (y != IGNORE_INDEX).all()
        term = pixel_loss(z, y, weight.float()).mean() + area_loss(z, y)
        total = total + (0.7 if slug == "joint" and domain == "source" else 1.0) * term
    total.backward()
    for name, p in method.segmenter.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(catch.gradients[f"segmenter.{name}"], p.grad, rtol=1e-7, atol=1e-11, msg=name)


@pytest.mark.parametrize("slug", AREAS)
def test_whose_areas_count(slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    ours = SegmentationMethod.overlap_loss

    def remember(self: Any, logits: Tensor, label: Tensor) -> Tensor:
        seen.append(label)
        return ours(self, logits, label)

    monkeypatch.setattr(SegmentationMethod, "overlap_loss", remember)
    batch = caught(slug, loss={"overlap": "lovasz"})[1].batch
    found = [next(name for name in batch if torch.equal(batch[name].get("label", label + 1), label)) for label in seen]
    assert found == AREAS[slug]


@pytest.mark.parametrize("options", [{}, {"update": "fused"}, {"update": "paper"}], ids=str)
def test_learned_weights_are_of_losses_per_pixel(options: dict[str, Any]) -> None:
    """With an overlap loss the source term is what it is without one."""
    logged = [
        caught("metapix", loss=PIXELS | {"overlap": overlap}, **options)[1].logged for overlap in ("none", "dice")
    ]
    assert logged[0]["train/source"] == logged[1]["train/source"]
    assert logged[0]["train/target"] < logged[1]["train/target"]
    assert logged[0]["meta/target_loss"] < logged[1]["meta/target_loss"]


@pytest.mark.parametrize("overlap", ["none", "dice", "lovasz"])
@pytest.mark.parametrize("slug", AREAS)
def test_half_precision_stays_finite(slug: str, overlap: str) -> None:
    trained = tiny.fit(slug, 2, loss=PIXELS | {"overlap": overlap}, trainer_options={"precision": "bf16-mixed"})
    assert all(p.isfinite().all() for p in trained.parameters())


@pytest.mark.parametrize("overlap", ["none", "dice", "lovasz"])
@pytest.mark.parametrize("slug", ["joint", "self-training"])
def test_without_a_labelled_pixel_there_is_nothing_to_learn(slug: str, overlap: str) -> None:
    method = tiny.method(slug, loss={"focal": 0.5, "overlap": overlap})
    method.class_weight = torch.rand(method.num_classes)
    logits = torch.randn(2, method.num_classes, 4, 4, requires_grad=True)
    loss = method.supervised(logits, torch.full((2, 4, 4), IGNORE_INDEX))
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_the_annotators_derivative_is_exact_with_it() -> None:
    """Both engines, and a slope that the factors change."""
    plain = caught("gradient-annotator")[1].gradients
    forward, reference = (
        caught("gradient-annotator", loss=PIXELS, engine=engine)[1].gradients
        for engine in ("forward", "double_backward")
    )
    names = [name for name in plain if name.startswith("annotator.")]
    a, b, other = (torch.cat([g[name].flatten() for name in names]) for g in (forward, reference, plain))
    assert float((a - b).norm() / a.norm()) < 1e-9
    assert float((a - other).norm() / a.norm()) > 1e-2


NIGHT = {"class_balance": 0.1, "frequencies": dict.fromkeys(tiny.data().label_space.classes, 0.1) | {"sky": 0.3}}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("joint", {"loss": {"focal": -1.0}}, r"`loss\.focal` -1\.0: expected 0 or more"),
    ("joint", {"loss": {"class_balance": -0.5}}, r"`loss\.class_balance` -0\.5"),
    ("joint", {"loss": {"overlap_weight": -1}}, r"`loss\.overlap_weight` -1"),
    ("joint", {"loss": {"overlap": "lovas"}}, r"`loss\.overlap` 'lovas': expected one of none, dice, lovasz"),
    ("joint", {"loss": "dice"}, r"`loss` 'dice': expected Loss\(\.\.\.\) or a dictionary"),
    ("gradient-annotator", {"loss": {"overlap": "dice"}}, "soft labels"),
    ("metapix", {"loss": {"overlap": "dice"}, "micro_batches": 2}, "needs the whole batch"),
    ("self-training", {"loss": {"class_balance": 0.5}, "night": NIGHT}, "both weigh classes"),
    ("sepico", {"loss": {"class_balance": 0.5}, "night": NIGHT}, "both weigh classes"),
]


@pytest.mark.parametrize(("slug", "options", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_does_not_go_together_is_refused(slug: str, options: dict[str, Any], message: str) -> None:
    settings = {key: value for key, value in options.items() if key != "loss"}
    cls, space = load_method(slug), tiny.data().label_space
    sections = tiny.sectioned(settings)
    own = tiny.OPTIONS.get(slug, {}) | sections["method"]
    with pytest.raises(ConfigError, match=message):
        cls(label_space=space, network=tiny.NETWORK, speed=sections["speed"], loss=options["loss"], **own)


def test_night_weights_stay_those_of_night() -> None:
    method = tiny.method("self-training", night=NIGHT, loss={"focal": 1.0})
    assert method.night is not None and torch.equal(method.class_weight, method.night.class_weight)
    L.seed_everything(0, verbose=False)
    tiny.trainer(1).fit(method, datamodule=tiny.data())
    assert torch.equal(method.class_weight, method.night.class_weight)


def test_plain_python() -> None:
    space = tiny.data().label_space
    method = SePiCo(label_space=space, network=tiny.NETWORK, projection_dim=4, loss={"overlap": "lovasz"})
    assert method.loss == Loss(overlap="lovasz") and method.hparams["loss"]["overlap"] == "lovasz"
    assert SePiCo(**dict(method.hparams)).loss == method.loss
