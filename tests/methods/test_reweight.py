"""Reweighting against a naive implementation written with second-order autograd."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from segzoo.errors import ConfigError, NonFiniteLossError
from segzoo.methods.reweight import Reweight
from tests import tiny
from tests.methods.catching import caught

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("scope", ["all", "decoder", "head"])
@pytest.mark.parametrize("mean", ["valid", "all"])
def test_a_step_is_that_of_learning_to_reweight(scope: str, mean: str) -> None:
    method, catch = caught("reweight", norm="group", scope=scope, pixel_mean=mean, void=True)
    net, theta = method.segmenter, dict(method.segmenter.named_parameters())
    source, target = catch.batch["source"], catch.batch["target"]
    reach = [p for name, p in theta.items() if name in method.segmenter.parameters_of(scope)]
    assert len(reach) < len(theta) or scope == "all"
    void = source["label"] == 255
    assert void.any(), "void pixels tell the two means apart"

    def ce(params: dict[str, Tensor], b: dict[str, Any]) -> Tensor:
        logits = functional_call(net, params, (b["image"].double(),))
        return F.cross_entropy(logits, b["label"], reduction="none", ignore_index=255)

    # Algorithm 1 of Ren et al. (2018), with second-order autograd: eps = 0, one step, the gradient at eps.
    eps = torch.zeros(source["label"].shape, dtype=torch.float64, requires_grad=True)
    g = torch.autograd.grad((eps * ce(theta, source)).sum(), reach, create_graph=True)
    steps = {id(p): 0.1 * d for p, d in zip(reach, g, strict=True)}
    ahead = {name: p - steps[id(p)] if id(p) in steps else p for name, p in theta.items()}
    (slope,) = torch.autograd.grad(ce(ahead, target).mean(), eps)
    w = (-slope).relu()
    w = w / w.sum()
    assert 0 < float((w == 0)[~void].double().mean()) < 1
    share = float((~void).double().mean()) if mean == "all" else 1.0  # of the pixels that the loss is the mean of
    loss = share * (w * ce(theta, source)).sum() + ce(theta, target).mean()
    expected = dict(zip(theta, torch.autograd.grad(loss, list(theta.values())), strict=True))
    assert len(catch.gradients) == len(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(catch.gradients[f"segmenter.{name}"], gradient, rtol=1e-7, atol=1e-11)


def test_kept_outputs_change_no_gradient() -> None:
    (_, kept), (_, again) = (caught("reweight", keep_outputs=keep) for keep in (True, False))
    for name, gradient in kept.gradients.items():
        torch.testing.assert_close(again.gradients[name], gradient, rtol=1e-9, atol=1e-12)


def test_running_statistics_see_the_target_once() -> None:
    _, catch = caught("reweight")
    counts = [int(b) for name, b in catch.buffers.items() if name.endswith("num_batches_tracked")]
    assert counts and set(counts) == {1}


def test_pictures_show_the_weights_of_the_step() -> None:
    assert tiny.method("reweight").step_pictures == {}
    trained = tiny.fit("reweight", 1)
    assert isinstance(trained, Reweight)
    pictures = trained.step_pictures
    weight = pictures["weight"]
    assert list(pictures) == ["source", "source label", "weight"]
    assert weight.shape == pictures["source label"].shape == pictures["source"][:, 0].shape
    assert float(weight[pictures["source label"] != 255].mean()) == pytest.approx(1, rel=1e-5)
    assert bool((weight >= 0).all()) and len(weight.unique()) > 2


def test_an_infinite_target_gradient_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    infinite = lambda g: {n: t * float("inf") for n, t in g.items()}  # noqa: E731
    monkeypatch.setattr("segzoo.methods.reweight.average_gradients", infinite)
    with pytest.raises(NonFiniteLossError):
        tiny.fit("reweight", 1)


@pytest.mark.parametrize("option", ["cuda_graph", "micro_batches"])
def test_a_capture_and_parts_are_nothing_for_it(option: str) -> None:
    with pytest.raises(ConfigError, match=f"`speed.{option}`.*'reweight'"):
        tiny.method("reweight", **{option: 2 if option == "micro_batches" else True})
