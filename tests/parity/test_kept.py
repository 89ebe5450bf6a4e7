"""Forward-mode passes that take up what layers returned before: the same numbers, fewer products."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.bilevel import Kept, Replayed, keeping, pixel_jvp, reusing
from segzoo.bilevel.kept import _is_layer
from segzoo.bilevel.passes import CapturedSeeds, seeded
from segzoo.models.segmenter import create_segmenter


class Net(nn.Module):
    """Layers of every kind that is kept, one of them called twice, a convolution without norm behind it, dropout."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="reflect")
        self.norm = nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2, bias=False)
        self.act, self.drop = nn.ReLU(inplace=inplace), nn.Dropout(0.3)
        self.mix, self.head = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        x = self.twice(self.drop(self.norm(self.twice(x))))
        x = F.gelu(self.mix(x.flatten(2).transpose(1, 2)))
        return self.head(x)


def problem(
    net: nn.Module, names: list[str] | None = None, dtype: torch.dtype = torch.float64
) -> tuple[Replayed, dict[str, Tensor], dict[str, Tensor]]:
    draws = torch.Generator().manual_seed(1)
    net.to(dtype).train()
    params = dict(net.named_parameters())
    chosen = params if names is None else {name: params[name] for name in names}
    u = {name: torch.randn(p.shape, dtype=p.dtype, generator=draws) for name, p in chosen.items()}
    x = torch.randn(2, 3, 8, 8, dtype=dtype, generator=draws)
    return Replayed(net, x, lambda z: z.square(), seed=5), params, u


@pytest.mark.parametrize(
    "names",
    [
        None,
        ["head.weight", "head.bias"],
        ["first.bias"],
        ["mix.bias"],
        ["twice.weight", "norm.weight"],
    ],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_the_same_derivative(names: list[str] | None, inplace: bool) -> None:
    torch.manual_seed(0)
    net = Net(inplace)
    run, params, u = problem(net, names)
    expected_value, expected = pixel_jvp(run, params, u)
    assert expected.abs().max() > 0
    for moving in (None, names):
        kept = Kept(run, net, moving)
        kept()
        value, slope = pixel_jvp(kept, params, u)
        torch.testing.assert_close(value, expected_value, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-14)


def test_a_third_of_the_products_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 1, 1))
    run, params, u = problem(net)
    calls = []
    original = nn.Conv2d._conv_forward
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", lambda *a: calls.append(1) or original(*a))
    kept = Kept(run, net)
    kept()
    calls.clear()
    pixel_jvp(kept, params, u)
    # x' W of the second and the third, x W' of all: the image has no tangent.
    assert len(calls) == 5


class Pyramid(nn.Module):
    """An encoder of two maps, with dropout; counts its calls."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.drop, self.next = nn.Conv2d(3, 3, 3), nn.Dropout(0.4), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor, scale: float) -> dict[str, list[Tensor]]:
        self.calls += 1
        fine = self.drop(self.conv(scale * x))
        return {"maps": [fine, self.next(fine)]}


class Staged(nn.Module):
    """With dropout behind the encoder too, whose maps may be changed in place there."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.encoder, self.act = nn.ModuleDict({"body": Pyramid()}), nn.ReLU(inplace)
        self.decoder = nn.Sequential(nn.Dropout(0.4), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine, coarse = self.encoder["body"](x, scale=2.0)["maps"]
        return self.head(self.decoder(torch.cat([self.act(fine), coarse], dim=1)))


@pytest.mark.parametrize(
    ("moving", "inplace", "runs"),
    [
        (["head.weight"], False, 0),
        (["decoder.1.weight", "decoder.2.bias"], False, 0),
        (["decoder.1.weight"], True, 1),
        # Here the decoder runs on tangents, although none of its own parameters moves.
        (["encoder.body.next.bias"], False, 1),
    ],
)
def test_modules_that_no_tangent_reaches_do_not_run(moving: list[str], inplace: bool, runs: int) -> None:
    torch.manual_seed(0)
    net = Staged(inplace)
    run, params, u = problem(net, moving)
    expected = pixel_jvp(run, params, u)
    kept = Kept(run, net, moving)
    kept()
    encoder: Pyramid = net.encoder["body"]  # type: ignore[assignment]
    before = encoder.calls
    torch.testing.assert_close(pixel_jvp(kept, params, u), expected, rtol=1e-12, atol=1e-14)
    assert encoder.calls - before == runs
    assert expected[1].abs().max() > 0 and all("forward" not in vars(m) for m in net.modules())


class Chain(nn.Module):
    """Stages one after the other; the last is called ``head``."""

    def __init__(self, *stages: nn.Module) -> None:
        super().__init__()
        self.stages, self.head = nn.ModuleList(stages[:-1]), stages[-1]

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 3, 3, padding=1)


def shared_by_a_whole() -> tuple[nn.Module, list[str]]:
    c = conv()
    return Chain(nn.Sequential(c, nn.ReLU()), nn.Sequential(c, conv()), conv()), ["stages.1.1.weight"]


def shared_by_two_that_move() -> tuple[nn.Module, list[str]]:
    c = conv()
    return Chain(nn.Sequential(c, conv()), nn.Sequential(c, conv())), ["stages.0.1.weight", "head.1.weight"]


def called_before_and_behind() -> tuple[nn.Module, list[str]]:
    whole = nn.Sequential(conv(), nn.BatchNorm2d(3), nn.Dropout(0.3))
    return Chain(whole, conv(), whole, nn.Dropout(0.3), conv()), ["stages.1.bias"]


def hooked() -> tuple[nn.Module, list[str]]:
    net = Chain(nn.Sequential(conv(), nn.BatchNorm2d(3)), conv())
    net.stages[0].register_forward_hook(lambda module, args, output: 2 * output)
    return net, ["head.weight"]


def changed_input() -> tuple[nn.Module, list[str]]:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch, self.last = nn.Sequential(nn.ReLU(inplace=True), conv()), conv()

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.branch(x) + x)

    return Chain(conv(), Residual()), ["head.last.weight"]


def hidden_tensors() -> tuple[nn.Module, list[str]]:
    class Box:
        def __init__(self, x: Tensor) -> None:
            self.x = x

    class Pack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv()

        def forward(self, x: Tensor | Box) -> Box:
            return Box(self.conv(x.x if isinstance(x, Box) else x))

    class Open(nn.Module):
        def forward(self, box: Box) -> Tensor:
            return box.x

    return Chain(Pack(), Pack(), Pack(), Open(), conv()), ["stages.1.conv.weight", "head.weight"]


@pytest.mark.parametrize(
    "build",
    [
        shared_by_a_whole,
        shared_by_two_that_move,
        called_before_and_behind,
        hooked,
        changed_input,
        hidden_tensors,
    ],
)
def test_what_might_be_kept_for_another_call(build: Callable[[], tuple[nn.Module, list[str]]]) -> None:
    torch.manual_seed(0)
    net, moving = build()
    run, params, u = problem(net, moving)
    expected = pixel_jvp(run, params, u)
    kept = Kept(run, net, moving)
    kept()
    torch.testing.assert_close(pixel_jvp(kept, params, u), expected, rtol=1e-12, atol=1e-14)
    assert expected[1].abs().max() > 0


def test_behind_the_first_tangent_layers_are_kept_as_ever() -> None:
    net = Chain(conv(), nn.Sequential(conv(), nn.BatchNorm2d(3), nn.ReLU(), conv()), conv())
    run, params, u = problem(net, ["stages.0.bias"])
    kept = Kept(run, net, ["stages.0.bias"])
    kept()
    (_, block) = net.stages
    assert set(kept.outputs) == {net.stages[0], block[0], block[3], net.head}
    torch.testing.assert_close(pixel_jvp(kept, params, u), pixel_jvp(run, params, u), rtol=1e-12, atol=1e-14)
    with keeping(net, ()) as outputs:
        run()
    assert not outputs


def test_an_output_that_was_changed_in_place_is_computed_again() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(inplace=True))
    run, params, u = problem(net)
    with keeping(net) as outputs:
        run()
    (output,) = outputs[net[0]]
    assert not output.intact
    with reusing(outputs):
        found = pixel_jvp(run, params, u)
    torch.testing.assert_close(found, pixel_jvp(run, params, u), rtol=0, atol=0)


def test_the_layers_are_as_before_whatever_happens() -> None:
    net = Net()
    run, params, _ = problem(net)
    with keeping(net) as outputs:
        run()
    with pytest.raises(ZeroDivisionError), reusing(outputs):
        assert "forward" in vars(net.first)
        raise ZeroDivisionError
    assert not outputs and "forward" not in vars(net.first) and not net.first._forward_hooks
    torch.testing.assert_close(run(), run(params), rtol=1e-12, atol=1e-14)
    with keeping(net) as outputs:
        run()
    with pytest.raises(AssertionError, match="no graph"), reusing(outputs):
        run()


def test_layers_that_save_little_for_their_memory_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segzoo.bilevel.kept.FAN_IN", 27)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 3))
    run, params, u = problem(net)
    kept = Kept(run, net)
    kept()
    assert list(kept.outputs) == [net[0], net[3]]
    torch.testing.assert_close(pixel_jvp(kept, params, u), pixel_jvp(run, params, u), rtol=1e-12, atol=1e-14)


def test_compiled_layers_and_subclasses_are_left_alone() -> None:
    class Padded(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(F.pad(input, (1, 1, 1, 1)))

    net = nn.Sequential(Padded(3, 4, 3), nn.Conv2d(4, 2, 1))
    run, params, u = problem(net)
    with keeping(net) as outputs:
        run()
    assert list(outputs) == [net[1]]
    with reusing(outputs):
        found = pixel_jvp(run, params, u)
    torch.testing.assert_close(found, pixel_jvp(run, params, u), rtol=1e-12, atol=1e-14)
    net[1]._compiled_call_impl = net[1]._call_impl
    with keeping(net) as outputs:
        run()
    assert not outputs


def test_under_autocast() -> None:
    """The cosine on a trained network is in test_precision.py."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = create_segmenter("segformer", "mit_b0", 4)
    draws = torch.Generator().manual_seed(1)
    params = net.train().parameters_of("all")
    u = {name: torch.randn(p.shape, generator=draws) for name, p in params.items()}
    run = Replayed(net, torch.rand(2, 3, 64, 64, generator=draws), lambda z: z.float(), seed=5)
    kept, truth = Kept(run, net), pixel_jvp(run, params, u)[1]
    with torch.autocast("cpu", torch.bfloat16):
        kept()
        errors = [(pixel_jvp(one, params, u)[1] - truth).norm() / truth.norm() for one in (kept, run)]
    # Norms compute in float32 where they are differentiated, so that the passes differ by the rounding of bfloat16.
    assert errors[0] < 1.25 * errors[1] + 1e-3


class Capturing:
    """Stands for a capture, in which no random-number state can be read or set."""

    @contextmanager
    def of(self, seed: int) -> Iterator[None]:
        CapturedSeeds.active = None
        try:
            with seeded(seed, torch.device("cpu")):
                yield
        finally:
            CapturedSeeds.active = self  # type: ignore[assignment]


@pytest.mark.parametrize("names", [["head.weight", "head.bias"], ["mix.bias"]])
def test_in_a_capture_layers_alone_are_kept(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = Net()
    run, params, u = problem(net, names)
    expected = pixel_jvp(run, params, u)[1]
    monkeypatch.setattr("segzoo.bilevel.kept.FAN_IN", 0)
    monkeypatch.setattr(CapturedSeeds, "active", Capturing())
    kept = Kept(run, net, names)
    kept()
    assert kept.outputs and all(_is_layer(m) for m in kept.outputs)
    assert all(not output.drawn_on and output.drawn is None for calls in kept.outputs.values() for output in calls)
    monkeypatch.undo()
    torch.testing.assert_close(pixel_jvp(kept, params, u)[1], expected, rtol=1e-12, atol=1e-12)
