"""Parameter groups and learning rates, as the recipes state them."""

from typing import Any

import pytest
from torch import nn

from segzoo.methods.segmentation import SegmentationMethod
from tests import tiny
from tests.methods.catching import caught

pytestmark = pytest.mark.filterwarnings("ignore")
SEPICO = {"lr": 6e-5, "head_lr_factor": 10.0, "poly_power": 1.0, "warmup_steps": 1500}


def attached(steps: int, **options: object) -> SegmentationMethod:
    method = tiny.method("source-only", **options)
    method.trainer = tiny.trainer(steps)
    return method


def factor(method: SegmentationMethod, step: int) -> float:
    """What the schedule of an attached method makes of the learning rate."""
    configured = method.configure_optimizers()
    (one, *_) = configured["lr_scheduler"]["scheduler"].lr_lambdas  # type: ignore[call-overload, index]
    return float(one(step))


def test_groups_by_place_and_kind() -> None:
    method = attached(10, lr=1e-3, head_lr_factor=10.0, weight_decay=0.1, decay_norms=False)
    found = {id(p): group for group in method.optimizer_groups() for p in group["params"]}
    parameters = dict(method.segmenter.named_parameters())
    assert sum(len(group["params"]) for group in method.optimizer_groups()) == len(found) == len(parameters)
    for name, p in parameters.items():
        encoder = name.startswith("network.encoder.")
        assert found[id(p)]["lr"] == pytest.approx(1e-3 if encoder else 1e-2), name
        assert found[id(p)]["weight_decay"] == (0.1 if p.ndim > 1 else 0.0), name
    norms = [m for m in method.segmenter.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(found[id(norm.weight)]["weight_decay"] == 0 for norm in norms)
    assert [group["name"] for group in attached(10).optimizer_groups()] == ["segmenter"]


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 6e-11), (750, 6e-5 * 0.5000005 * (1 - 750 / 40000)), (1500, 6e-5 * (1 - 1500 / 40000)), (40000, 0)],
)
def test_the_published_rates_of_sepico(step: int, rate: float) -> None:
    assert 6e-5 * factor(attached(40000, **SEPICO), step) == pytest.approx(rate, rel=1e-9)


def test_a_schedule_that_is_longer_than_the_training() -> None:
    long, short = attached(80, schedule_steps=200), attached(80)
    assert factor(long, 80) == pytest.approx(0.6**0.9) and factor(short, 80) == 0
    assert factor(attached(80, schedule="constant"), 70) == 1


@pytest.mark.parametrize(("slug", "option"), [("maxsquare", "target_start"), ("sepico", "contrast_start")])
def test_a_term_that_never_begins_is_said(slug: str, option: str) -> None:
    with pytest.warns(UserWarning, match=f"`method.{option}` 2 is not reached in 2 steps"):
        tiny.fit(slug, 2, **{option: 2})


@pytest.mark.parametrize(
    ("slug", "options", "late", "term"),
    [
        ("maxsquare", {"target_start": 0.5}, {"target_start": 2}, "target"),
        ("self-training", {"pseudo": {"start": 0.5}}, {"pseudo": {"start": 0.9}}, "mixed"),
    ],
)
def test_a_term_begins_at_a_share_of_the_training(slug: str, options: Any, late: Any, term: str) -> None:
    assert f"train/{term}" in caught(slug, 2, **options)[1].logged
    assert f"train/{term}" not in caught(slug, 2, **late)[1].logged
