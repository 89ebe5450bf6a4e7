"""FCN-8s: against its layers written out, its sizes, its stems, and its exact hypergradient."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.bilevel import SGDStep
from segzoo.errors import ConfigError
from segzoo.models.dry_run import meta_size
from segzoo.models.fcn8s import CAFFE_MEAN, FCN8s
from segzoo.models.segmenter import Segmenter, create_segmenter
from segzoo.models.state_dicts import check_state
from segzoo.models.stems import DomainConv2d, as_source
from tests.methods import catching
from tests.parity.problems import problem, relative_error

SMALL: dict[str, Any] = {"fc_channels": 8}


def small(**options: Any) -> Segmenter:
    torch.manual_seed(0)
    return create_segmenter("fcn8s", "vgg11", 5, options=SMALL | options)


def liven(net: nn.Module) -> None:
    """Finer scores that say something, stems that differ."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "score_pool" in name or "source_" in name:
                p.add_(0.1 * torch.randn_like(p))


def pooled(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, ceil_mode=True)


def naive(net: FCN8s, x: Tensor, source: bool) -> Tensor:
    """VGG-16's blocks of 2, 2, 3, 3 and 3 convolutions, one after the other, and what follows, in evaluation mode."""
    convs = [m for m in net.encoder.features if isinstance(m, nn.Conv2d)]
    maps = []
    for count in (2, 2, 3, 3, 3):
        for _ in range(count):
            conv, first = convs.pop(0), not maps
            weight, bias = (conv.source_weight, conv.source_bias) if first and source else (conv.weight, conv.bias)
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
        x = pooled(x)
        maps.append(x)
    fc6 = F.relu(F.conv2d(maps[4], net.decoder.fc6.weight, net.decoder.fc6.bias, padding=net.decoder.fc6.padding))
    fc7 = F.relu(net.decoder.fc7(fc6))
    head = net.segmentation_head[0]

    def resized(scores: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(scores, size, mode="bilinear", align_corners=True)

    at16 = resized(head.score(fc7), maps[3].shape[-2:]) + head.score_pool4(maps[3])
    at8 = resized(at16, maps[2].shape[-2:]) + head.score_pool3(maps[2])
    return resized(at8, (8 * at8.shape[-2], 8 * at8.shape[-1]))


@pytest.mark.parametrize(("padding", "size"), [(3, (64, 32)), (0, (224, 256))])
@pytest.mark.parametrize("source", [False, True], ids=["target", "source"])
def test_logits_are_those_of_its_layers(padding: int, size: tuple[int, int], source: bool) -> None:
    torch.manual_seed(0)
    net = FCN8s("vgg16", None, 5, stems=2, fc_channels=8, fc_padding=padding).eval()
    liven(net)
    image = torch.rand(1, 3, *size)
    with torch.no_grad():
        expected = naive(net, image, source)
        if source:
            with as_source(net):
                logits = net(image)
        else:
            logits = net(image)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        assert logits.shape == (1, 5, *size) and not torch.allclose(expected, naive(net, image, not source))


def test_sizes_and_parameters_are_the_published_ones() -> None:
    with torch.device("meta"):
        net = FCN8s("vgg16", None, 19, stems=2, fc_padding=0)
        image = torch.empty(1, 3, 512, 1024)
        maps = net.encoder(image)
        depths = net.decoder(maps)
    assert maps[5].shape == (1, 512, 16, 32)
    assert [tuple(x.shape[1:]) for x in depths] == [(256, 64, 128), (512, 32, 64), (4096, 10, 26)]
    assert meta_size(net, (512, 1024)) == (512, 1024)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == 134.39
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


def test_dropout_takes_whole_channels_of_fc6_and_fc7() -> None:
    net = small(dropout=0.5).network.train()
    seen = {}
    for layer in ("drop6", "drop7"):
        net.decoder.get_submodule(layer).register_forward_hook(lambda m, a, out, n=layer: seen.update({n: (a[0], out)}))
    net(torch.rand(1, 3, 64, 64))
    for before, after in seen.values():
        dropped = (after == 0).all(dim=(2, 3))
        assert 0 < int(dropped.sum()) < 8
        torch.testing.assert_close(after[~dropped], 2 * before[~dropped])


def test_the_classifier_becomes_convolutions() -> None:
    net = small().network
    state = {"classifier.0.weight": torch.randn(8, 512 * 49), "classifier.0.bias": torch.randn(8)}
    state |= {"classifier.3.weight": torch.randn(8, 8), "classifier.3.bias": torch.randn(8)}
    net.decoder.load_classifier(state)
    x = torch.rand(2, 512, 7, 7)
    hidden = F.relu(F.linear(x.flatten(1), state["classifier.0.weight"], state["classifier.0.bias"]))
    expected = F.relu(F.linear(hidden, state["classifier.3.weight"], state["classifier.3.bias"]))
    maps = [torch.rand(2, 512, 14, 14)] * 5 + [x]
    found = net.decoder.eval()(maps)[2][..., 3, 3]
    # The window in the middle of the padded map is the whole map.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_published_input_is_bgr_less_its_mean() -> None:
    net = small(bgr=True).eval()
    image, seen = torch.rand(1, 3, 32, 32), []
    net.network.encoder.features[0].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    net(image)
    expected = 255 * image.flip(1) - torch.tensor(CAFFE_MEAN[::-1]).view(1, 3, 1, 1)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-3)


def test_one_stem_starts_both() -> None:
    one, two = small(), small(stems=2)
    assert sum(isinstance(m, DomainConv2d) for m in two.modules()) == 1  # vgg11's first block
    assert check_state(two, one.state_dict()) is None
    liven(two)
    two.load_state_dict(one.state_dict())
    stem, plain = two.network.encoder.features[0], one.network.encoder.features[0]
    assert torch.equal(stem.source_weight, plain.weight) and torch.equal(stem.weight, plain.weight)
    again = small(stems=2)
    liven(again)
    copy = small(stems=2)
    copy.load_state_dict(again.state_dict())
    assert torch.equal(copy.network.encoder.features[0].source_weight, again.network.encoder.features[0].source_weight)


@pytest.mark.parametrize(("stems", "around"), [(1, False), (2, True)])
def test_the_hypergradient_is_exact_with_dropout(stems: int, around: bool) -> None:
    net = small(stems=stems)
    liven(net)
    p = problem(net, size=32)
    original = p.source_losses

    def source_losses(seed: int = 1) -> Any:
        found = original(seed)
        found.around = as_source
        return found

    p.source_losses = source_losses  # type: ignore[method-assign]
    forward, reference = (p.solve(engine, SGDStep(0.1)) for engine in ("forward", "double_backward"))
    assert float(reference.weights.norm()) > 0
    assert relative_error(forward.weights, reference.weights) < 1e-11
    for name, g in forward.gradient.items():
        torch.testing.assert_close(g, reference.gradient[name], rtol=1e-9, atol=1e-14)
    if around:  # the source's stem learns from the source alone, and the other one from the target alone
        stem = "network.encoder.features.0."
        target_loss = p.target_loss()()
        alone = torch.autograd.grad(target_loss, [p.params[stem + "source_weight"]], allow_unused=True)
        assert alone == (None,) and float(forward.gradient[stem + "source_weight"].norm()) > 0


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [("resnet18", {}, "fcn8s is built on a vgg"), ("vgg11", {"stems": 3}, "stems of fcn8s is 3, expected 1, or 2")],
)
def test_what_it_cannot_be_is_refused(encoder: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_segmenter("fcn8s", encoder, 5, options=SMALL | options)


def test_images_too_small_for_the_published_padding_are_refused_with_a_size_that_fits() -> None:
    assert "256 256 would fit" in str(small(fc_padding=0).refusal((64, 64), "`data.size`"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("update", ["sequential", "paper"])
def test_metapix_looks_ahead_through_the_sources_stem(update: str) -> None:
    """A whole step with two stems and dropout, by one forward-mode pass and by double backward."""
    network = {"architecture": "fcn8s", "encoder": "vgg11", "options": SMALL | {"stems": 2}}
    found = {}
    for engine in ("forward", "double_backward"):
        options = {"update": update, "engine": engine, "virtual_lr": 0.5, "normalize": "none"}
        found[engine] = catching.caught("metapix", network=network, **options)[1].gradients
    assert found["forward"].keys() == found["double_backward"].keys()
    stem = "segmenter.network.encoder.features.0.source_weight"
    assert float(found["forward"][stem].norm()) > 0
    for name, gradient in found["forward"].items():
        torch.testing.assert_close(gradient, found["double_backward"][name], rtol=1e-8, atol=1e-13)
    assert any(float(g.norm()) > 0 for name, g in found["forward"].items() if name.startswith("weighting."))
