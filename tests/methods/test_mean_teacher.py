"""Methods that learn from the labels of their own average: the first step recomputed, late starts, aligned labels."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.bilevel import frozen_buffers
from segzoo.data import MiniCity
from segzoo.errors import ConfigError
from segzoo.methods import mean_teacher, self_training, semi_supervised
from segzoo.methods.mean_teacher import MeanTeacher
from segzoo.methods.registry import load_method
from segzoo.methods.ssda import SSDA
from tests import tiny
from tests.methods.catching import Catch, caught

pytestmark = pytest.mark.filterwarnings("ignore")
DONORS = SSDA.donors
TEACHERS = ("self-training", "semi-supervised", "ssda", "sepico")


@pytest.fixture(autouse=True)
def _no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Augmentation that is recognisable, the left half pasted, and source and labelled target as donors in turn."""
    monkeypatch.setattr(mean_teacher, "strong_augment", lambda image, generator: 0.9 * image)
    monkeypatch.setattr(self_training, "class_mix", lambda labels, *_: left(labels))
    monkeypatch.setattr(semi_supervised, "cut_mix", lambda size, draws: left(torch.zeros(len(draws), *size)))
    monkeypatch.setattr(
        SSDA,
        "donors",
        lambda self, source, labelled: {
            key: torch.stack([source[key][0], labelled[key][1]]) for key in ("image", "label")
        },
    )


def left(labels: Tensor) -> Tensor:
    mask = torch.zeros(labels.shape, dtype=torch.bool)
    mask[..., : mask.shape[-1] // 2] = True
    return mask


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, ignore_index=255, reduction="none")


def mean(values: Tensor, labels: Tensor) -> Tensor:
    return values.sum() / (labels != 255).sum()


def teacher(method: MeanTeacher, image: Tensor) -> Tensor:
    """Probabilities of the student itself, which the teacher is a copy of in the first step."""
    with torch.no_grad(), frozen_buffers(method.segmenter):
        return method(image).softmax(1)


def assert_gradients(method: nn.Module, loss: Tensor, catch: Catch) -> None:
    loss.backward()
    for name, p in method.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(catch.gradients[name], p.grad, rtol=1e-7, atol=1e-11, msg=name)


@pytest.mark.parametrize("scheme", ["share", "pixel"])
def test_the_first_step_of_semi_supervised(scheme: str) -> None:
    method, catch = caught("semi-supervised", pseudo={"threshold": 0.24, "weight": scheme})
    assert isinstance(method, MeanTeacher) and catch.batch.keys() == {"target", "unlabelled"}
    labelled, image = catch.batch["target"], catch.batch["unlabelled"]["image"].double()
    confidence, labels = teacher(method, image).max(1)
    sure = (confidence >= 0.24).double()
    assert 0 < float(sure.mean()) < 1, "the test needs a threshold that parts the pixels"
    q = sure if scheme == "pixel" else torch.full_like(sure, float(sure.mean()))
    box = left(labels)
    mixed = torch.where(box[:, None], image.flip(0), image)  # of two images the next one is the other one
    mixed_labels, weights = torch.where(box, labels.flip(0), labels), torch.where(box, q.flip(0), q)
    loss = mean(losses(method(labelled["image"].double()), labelled["label"]), labelled["label"])
    loss = loss + (weights * losses(method(0.9 * mixed), mixed_labels)).mean()
    assert_gradients(method, loss, catch)


def test_the_first_step_of_ssda() -> None:
    method, catch = caught("ssda", pseudo={"threshold": 0.24, "weight": "pixel"})
    assert isinstance(method, SSDA) and catch.batch.keys() == {"source", "target", "unlabelled"}
    source, labelled = catch.batch["source"], catch.batch["target"]
    image = catch.batch["unlabelled"]["image"].double()
    confidence, labels = teacher(method, image).max(1)
    q = (confidence >= 0.24).double()
    donors = torch.stack([source["image"][0], labelled["image"][1]]).double()
    donor_labels = torch.stack([source["label"][0], labelled["label"][1]])
    box = left(labels)
    mixed, mixed_labels = torch.where(box[:, None], donors, image), torch.where(box, donor_labels, labels)
    weights = torch.where(box, torch.ones_like(q), q)
    with frozen_buffers(method.segmenter):
        loss = mean(losses(method(source["image"].double()), source["label"]), source["label"])
    loss = loss + mean(losses(method(labelled["image"].double()), labelled["label"]), labelled["label"])
    loss = loss + mean(weights * losses(method(0.9 * mixed), mixed_labels), mixed_labels)
    assert_gradients(method, loss, catch)


class OtherPictures(MiniCity):
    """Target training images of another look, but for some."""

    kept: set[int]

    def images(self, split: Any, root: Any) -> Any:
        images = super().images(split, root)
        if split == "train":
            whole, kept = images.image, self.kept
            images.image = lambda i: whole(i) if i in kept else 255 - whole(i)  # type: ignore[method-assign]
        return images


@pytest.mark.parametrize("slug", TEACHERS)
def test_before_pseudo_labels_start_unlabelled_images_change_nothing(slug: str) -> None:
    other = OtherPictures("target", train=8, val=2, test=3, size=tiny.SIZE)
    other.kept = set(tiny.data()._labelled_target()) if "labels" in load_method(slug).resources else set()

    def trained(steps: int, target: MiniCity | None) -> dict[str, Tensor]:
        done = tiny.fit(slug, steps, data_options={"target": target}, pseudo={"start": 2})
        return dict(done.segmenter.state_dict())

    before, other_before = trained(2, None), trained(2, other)
    assert all(torch.equal(before[k], other_before[k]) for k in before)
    after, other_after = trained(3, None), trained(3, other)
    assert any(not torch.equal(after[k], other_after[k]) for k in after)


def test_the_prior_is_that_of_the_true_labels() -> None:
    for slug, domain in (("self-training", "source"), ("ssda", "target"), ("semi-supervised", "target")):
        data = tiny.data()
        trained = tiny.method(slug, pseudo={"alignment": 1.0})
        tiny.trainer(1).fit(trained, datamodule=data)
        shares = torch.from_numpy(data.class_shares(domain)).float()
        torch.testing.assert_close(trained.alignment.prior, shares)
        found = trained.class_shares
        assert found.keys() == {"prior", "pseudo labels", "predictions"}
        for name, value in found.items():
            assert value.shape == (9,) and float(value.sum()) > 0, name


def test_alignment_without_segzoos_data_is_refused() -> None:
    method = tiny.method("self-training", pseudo={"alignment": 0.5})
    loader = torch.utils.data.DataLoader([0])
    with pytest.raises(ConfigError, match=r"`method.pseudo.alignment` needs the class shares"):
        tiny.trainer(1).fit(method, loader)


def test_donors_are_of_both_domains_and_keep_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = [torch.Generator().manual_seed(i) for i in range(32)]
    monkeypatch.setattr(SSDA, "image_generators", lambda self, purpose, count: draws)
    source = {"image": torch.zeros(32, 3, 4, 4), "label": torch.zeros(32, 4, 4, dtype=torch.long)}
    labelled = {"image": torch.ones(32, 3, 4, 4), "label": torch.ones(32, 4, 4, dtype=torch.long)}
    found = DONORS(tiny.method("ssda"), source, labelled)
    assert 0.2 < float(found["image"].mean()) < 0.8
    assert torch.equal(found["image"][:, 0].long(), found["label"])
