"""Class weights by frequency, against the figures of the published ones."""

import pytest
import torch
import yaml
from torch import Tensor

from segzoo.adaptation import class_balance
from segzoo.configs import config_path
from segzoo.errors import ConfigError
from tests import tiny

RECIPE = yaml.safe_load(config_path("recipe", "cityscapes_darkzurich_sepico_daformer").read_text())["method"]["night"]
CLASSES = list(RECIPE["frequencies"])


def weights(strength: float) -> Tensor:
    return class_balance(RECIPE["frequencies"], CLASSES, strength)


def test_the_published_range() -> None:
    test = dict(zip(CLASSES, weights(0.16).tolist(), strict=True))
    assert (round(test["road"], 2), round(test["motorcycle"], 2)) == (0.69, 1.22)
    assert (min(test, key=test.__getitem__), max(test, key=test.__getitem__)) == ("road", "motorcycle")


def test_mean_spread_and_scale() -> None:
    balanced = weights(0.05)
    assert float(balanced.mean()) == pytest.approx(1)
    assert float(balanced.std()) == pytest.approx(0.05)
    percent = {name: 100 * share for name, share in RECIPE["frequencies"].items()}
    torch.testing.assert_close(class_balance(percent, CLASSES, 0.05), balanced)
    assert class_balance({"a": 0.5, "b": 0.5}, ["a", "b"], 0.3).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("frequencies", "strength", "message"),
    [
        ({}, 0.1, "no frequency above 0 for a, b"),
        ({"a": 1.0, "b": 0.0}, 0.1, "no frequency above 0 for b"),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, 0.1, "no class c"),
        ({"a": 0.9, "b": 0.1}, 2.0, "gives a the weight -0.41"),
    ],
)
def test_what_is_refused(frequencies: dict[str, float], strength: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        class_balance(frequencies, ["a", "b"], strength)


@pytest.mark.parametrize("slug", ["sepico", "self-training"])
def test_probabilities_outside_training_are_weighted(slug: str) -> None:
    classes = tiny.method(slug).label_space.classes
    frequencies = {name: 0.5**i for i, name in enumerate(classes)}
    plain = tiny.method(slug).eval()
    balanced = tiny.method(slug, night={"test_class_balance": 0.3, "frequencies": frequencies}).eval()
    image = torch.rand(2, 3, *tiny.SIZE)
    expected = plain(image).softmax(1) * class_balance(frequencies, classes, 0.3).float()[:, None, None]
    torch.testing.assert_close(balanced(image).softmax(1), expected / expected.sum(1, keepdim=True))
    torch.testing.assert_close(balanced.train()(image), plain.train()(image))
