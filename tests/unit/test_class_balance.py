"""Class weights by frequency, against the figures of the published ones."""

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segzoo.adaptation import class_balance, frequency_weights
from segzoo.adaptation.balance import FAR
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


def test_powers_of_frequencies_in_closed_form() -> None:
    """Median 0.2: (1/2, 1, 2) for e = 1, whose mean over the pixels is 0.2 + 0.2 + 0.2; the square roots for e = 1/2."""
    shares = torch.tensor([0.4, 0.2, 0.1], dtype=torch.float64)
    torch.testing.assert_close(frequency_weights(shares, 1.0), torch.tensor([0.5, 1, 2]).double() * 0.7 / 0.6)
    roots = torch.tensor([0.5, 1, 2]).double().sqrt()
    torch.testing.assert_close(frequency_weights(shares, 0.5), roots * 0.7 / (shares * roots).sum())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 3))
def test_the_mean_pixel_weighs_one(shares: list[float], exponent: float) -> None:
    f = torch.tensor([share if share > 1e-9 else 0.0 for share in shares], dtype=torch.float64)
    w = frequency_weights(f, exponent)
    assert w.isfinite().all() and (w > 0).all()
    assert (w[f == 0] == 1).all()
    if not (f > 0).any():
        return
    found, own = f[f > 0], w[f > 0]
    assert float((found * own).sum() / found.sum()) == pytest.approx(1)
    order = found.argsort()
    assert (own[order].diff() <= 1e-9).all(), "a rarer class weighs less"
    assert float(own.max() / own.min()) <= FAR**2 * (1 + 1e-9)
    torch.testing.assert_close(frequency_weights(100 * f, exponent), w)


def test_a_class_of_some_pixels_is_not_all_that_counts() -> None:
    shares = torch.tensor([0.5, 0.3, 0.2 - 1e-8, 1e-8], dtype=torch.float64)
    weights = frequency_weights(shares, 1.0)
    typical = frequency_weights(shares[:3], 1.0)
    assert float(weights[3]) < 1.5 * FAR * float(typical.max())
    assert frequency_weights(torch.zeros(3), 1.0).tolist() == [1, 1, 1]
    assert frequency_weights(shares, 0.0).tolist() == [1, 1, 1, 1]
