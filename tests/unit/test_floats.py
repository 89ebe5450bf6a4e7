"""Counting on devices without float64, such as Apple GPUs, and random numbers there."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from segzoo.adaptation import class_balanced_crop, confident_share, pseudo_label_weights
from segzoo.bilevel.passes import seeded
from segzoo.distributed import mean_terms, non_finite_terms
from segzoo.evaluation import confusion_metric, count_unusable, update_confusion
from segzoo.floats import wide_dtype, widest
from segzoo.models.discriminators import domain_auc
from tests.narrow import WithoutFloat64


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("segzoo.floats.wide_dtype", lambda device: torch.float32)
    with WithoutFloat64():
        yield


def test_only_apple_gpus_are_narrow() -> None:
    assert wide_dtype(torch.device("mps")) == torch.float32
    assert wide_dtype(torch.device("cpu")) == wide_dtype(torch.device("cuda", 1)) == torch.float64
    assert widest(torch.ones(2, dtype=torch.int64)).dtype == torch.float64


def score() -> Tensor:
    metric = confusion_metric(3)
    logits = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    update_confusion(metric, logits, torch.arange(2 * 10 * 12).view(2, 10, 12) % 3)
    assert int(count_unusable(logits)) == 0
    return metric.compute()


def confidences() -> Tensor:
    return torch.linspace(0.9, 1, 60).view(1, 6, 10)


CASES: dict[str, Callable[[], Tensor]] = {
    "confusion": score,
    "share": lambda: confident_share(confidences()),
    "weights": lambda: pseudo_label_weights(confidences(), ignore_top=1),
    "crop": lambda: class_balanced_crop(
        torch.randint(4, (2, 16, 16), generator=torch.Generator().manual_seed(2)),
        (8, 8),
        [torch.Generator().manual_seed(i) for i in (0, 1)],
    ),
    "auc": lambda: domain_auc(torch.linspace(-2, 3, 99), torch.linspace(-3, 2, 99)).float(),
    "means": lambda: torch.stack(list(mean_terms({"a": torch.tensor(2.0), "b": torch.tensor(3.0)}).values())).float(),
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_is_counted_without_float64(case: str, request: pytest.FixtureRequest) -> None:
    expected = CASES[case]()
    request.getfixturevalue("narrow")
    torch.testing.assert_close(CASES[case](), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("narrow")
def test_terms_are_checked_without_float64() -> None:
    assert non_finite_terms({"a": torch.tensor(1.0), "b": torch.tensor(float("inf"))}) == {"b": float("inf")}
    with pytest.raises(TypeError, match="no float64"):
        torch.ones(1).double()


def test_apple_gpus_draw_the_masks_of_a_seed_and_go_on_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [torch.tensor([7])]
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: states[-1])
    monkeypatch.setattr(torch.mps, "set_rng_state", states.append)
    monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: states.append(torch.tensor([seed])))
    with pytest.raises(ZeroDivisionError), seeded(3, torch.device("mps")):
        assert int(states[-1]) == 3
        raise ZeroDivisionError
    assert int(states[-1]) == 7


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_means_of_terms_and_those_that_are_not_finite(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    terms = {"a": torch.tensor(1.5, dtype=dtype, requires_grad=True), "b": torch.tensor(largest, dtype=dtype)}
    means = mean_terms(terms)
    assert list(means) == ["a", "b"] and not any(mean.requires_grad for mean in means.values())
    assert float(means["a"]) == 1.5 and non_finite_terms(means) == {}
    nan, infinite = torch.tensor(float("nan"), dtype=dtype), torch.tensor(float("-inf"), dtype=dtype)
    found = non_finite_terms(means | mean_terms({"c": nan, "d": infinite}))
    assert list(found) == ["c", "d"] and found["c"] != found["c"] and found["d"] == float("-inf")
    assert mean_terms({}) == {} and non_finite_terms({}) == {}


def test_the_means_are_left_on_the_device() -> None:
    """Tensors without values stand for a device that must not be waited for."""
    terms = {name: torch.ones((), device="meta") for name in "abc"}
    assert all(mean.is_meta for mean in mean_terms(terms).values())


def test_the_host_waits_once_for_all_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    whole = Tensor.tolist

    def count(tensor: Tensor) -> Any:
        waits.append(tensor.numel())
        return whole(tensor)

    monkeypatch.setattr(Tensor, "tolist", count)
    for name in ("item", "__float__", "__bool__"):
        monkeypatch.setattr(Tensor, name, lambda *_: pytest.fail("the host waits for one term"))
    means = mean_terms({"a": torch.tensor(1.0), "b": torch.tensor(2.0)}) | mean_terms({"c": torch.tensor(3.0)})
    assert non_finite_terms(means) == {} and waits == [3]
