"""Moments of layer inputs against the gradient of every single output, and the whitening against its definition."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from segzoo.models import layer_inputs
from segzoo.models.layer_inputs import has_moments, input_moments, whitening

LAYERS = {
    "plain": (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 5, 6)),
    "no padding": (nn.Conv2d(3, 4, (3, 2)), (2, 3, 5, 6)),
    "strided": (nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 2, 7, 6)),
    "dilated": (nn.Conv2d(2, 3, 3, padding=2, dilation=2), (1, 2, 7, 8)),
    "same": (nn.Conv2d(2, 3, 4, padding="same"), (1, 2, 6, 6)),
    "pointwise": (nn.Conv2d(5, 3, 1), (2, 5, 4, 4)),
    "linear": (nn.Linear(4, 3), (2, 5, 4)),
}


def naive(layer: nn.Module, x: Tensor) -> Tensor:
    """The gradient of an output in its row is the input that made it: the mean of their outer products."""
    out = layer(x)
    out = out[:, 0] if isinstance(layer, nn.Conv2d) else out[..., 0]
    rows = [torch.autograd.grad(one, layer.weight, retain_graph=True)[0][0].flatten() for one in out.flatten()]
    return torch.stack([torch.outer(h, h) for h in rows]).mean(0)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # a case of this test
@pytest.mark.parametrize("kind", LAYERS)
def test_moments_are_those_of_the_inputs(kind: str) -> None:
    layer, shape = LAYERS[kind]
    assert has_moments(layer)
    layer = layer.double()
    net = nn.Sequential(nn.Identity(), layer)
    batches = [torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    batches[1] = batches[1][:1]  # calls of other sizes count by their positions
    with input_moments(net, ["1.weight"]) as moments:
        for batch in batches:
            net(batch)
    net(batches[0])  # outside the context nothing is counted
    sizes = [len(batch) for batch in batches]
    expected = sum(naive(layer, batch) * n for batch, n in zip(batches, sizes, strict=True)) / sum(sizes)
    torch.testing.assert_close(moments["1.weight"], expected)


def test_of_many_positions_a_grid_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = nn.Conv2d(2, 3, 3, padding=1).double(), torch.randn(1, 2, 16, 16, dtype=torch.float64)
    monkeypatch.setattr(layer_inputs, "MAX_POSITIONS", 64)
    with input_moments(nn.Sequential(layer), ["0.weight"]) as moments:
        layer(x)
    padded = nn.functional.pad(x, (1, 1, 1, 1))[0]
    rows = [padded[:, i : i + 3, j : j + 3].flatten() for i, j in itertools.product(range(0, 16, 3), repeat=2)]
    torch.testing.assert_close(moments["0.weight"], torch.stack([torch.outer(h, h) for h in rows]).mean(0))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_whitening(scale: float) -> None:
    root = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a = scale * root @ root.T
    w = whitening({"w": a})["w"]
    damped = a + layer_inputs.DAMPING * a.diagonal().mean() * torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(w @ w.T @ damped, torch.eye(5, dtype=torch.float64))


def test_dead_inputs_and_few_positions_have_a_whitening() -> None:
    for a in (torch.zeros(3, 3), torch.ones(40, 40)):
        assert whitening({"w": a})["w"].isfinite().all()


def test_moments_are_taken_in_full_precision() -> None:
    layer = nn.Conv2d(2, 3, 3)
    with torch.autocast("cpu", torch.bfloat16), input_moments(nn.Sequential(layer), ["0.weight"]) as moments:
        layer(torch.randn(1, 2, 8, 8).bfloat16())
    assert moments["0.weight"].dtype == torch.float32


def test_layers_without_moments() -> None:
    assert not has_moments(nn.Conv2d(4, 4, 3, groups=4))
    assert not has_moments(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"))
    assert not has_moments(nn.ConvTranspose2d(4, 4, 3))
