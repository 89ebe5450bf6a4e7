"""DAFormer's decoder and head against the same arithmetic written out."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.bilevel import SGDStep
from segzoo.models.daformer import DAFormer, DAFormerDecoder
from segzoo.models.heads import classifier
from segzoo.models.segmenter import create_segmenter
from tests.parity.problems import problem, relative_error


def randomised(net: DAFormer) -> DAFormer:
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            for value, low in ((m.weight, 0.5), (m.bias, -0.2), (m.running_mean, -0.2), (m.running_var, 0.5)):
                nn.init.uniform_(value, low, low + 1)
    return net.eval()


def written_out(net: DAFormer, image: Tensor, dilations: tuple[int, ...]) -> Tensor:
    state: dict[str, Tensor] = {k: v for k, v in net.state_dict().items() if not k.startswith("encoder.")}

    def layer(x: Tensor, at: str, **geometry: Any) -> Tensor:
        x = F.conv2d(x, state[f"{at}.0.weight"], **geometry)
        mean, var = state[f"{at}.1.running_mean"], state[f"{at}.1.running_var"]
        return F.batch_norm(x, mean, var, state[f"{at}.1.weight"], state[f"{at}.1.bias"]).relu()

    levels = []
    for i, x in enumerate(net.encoder(image)[-4:]):
        weight, bias = state[f"decoder.levels.{i}.weight"][:, :, 0, 0], state[f"decoder.levels.{i}.bias"]
        x = torch.einsum("of,bfhw->bohw", weight, x) + bias[:, None, None]
        levels.append(F.interpolate(x, scale_factor=2**i, mode="bilinear"))
    fused, branches = torch.cat(levels, dim=1), []
    for i, d in enumerate(dilations):
        if d == 1:
            branches.append(layer(fused, f"decoder.branches.{i}"))
        else:
            x = layer(fused, f"decoder.branches.{i}.0", padding=d, dilation=d, groups=fused.shape[1])
            branches.append(layer(x, f"decoder.branches.{i}.1"))
    x = layer(torch.cat(branches, dim=1), "decoder.bottleneck", padding=1)
    x = F.conv2d(x, state["segmentation_head.1.weight"], state["segmentation_head.1.bias"])
    return F.interpolate(x, scale_factor=4, mode="bilinear")


@pytest.mark.parametrize(
    ("encoder", "dilations"), [("mit_b0", (1, 6, 12, 18)), ("resnet18", (2, 1)), ("tu-convnext_atto", (3,))]
)
def test_against_the_arithmetic_written_out(encoder: str, dilations: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = randomised(DAFormer(encoder, None, 5, channels=8, dilations=dilations)).double()
    image = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(net(image), written_out(net, image, dilations))


def test_the_published_size() -> None:
    # Levels (64 + 128 + 320 + 512 + 4) x 256; branches 1024 x 256 + 512 and 3 x (1024 x 11 + 1024 x 256 + 512);
    # bottleneck 1024 x 256 x 9 + 512; classifier 257 x 19.
    parts = [DAFormerDecoder([64, 128, 320, 512], 256, (1, 6, 12, 18)), classifier(256, 19)]
    assert sum(p.numel() for part in parts for p in part.parameters()) == 3_712_275


def test_dropout_takes_whole_channels_in_training_alone() -> None:
    torch.manual_seed(0)
    net = DAFormer("tu-test_resnet", None, 5, channels=16, dropout=0.5)
    x = torch.rand(1, 16, 8, 8) + 1
    seen: list[Tensor] = []
    net.segmentation_head[1].register_forward_hook(lambda module, args, out: seen.append(args[0]))
    net.segmentation_head.train()(x)
    net.segmentation_head.eval()(x)
    kept = seen[0].ne(0).flatten(2)
    assert torch.equal(kept.any(-1), kept.all(-1)) and 0 < int(kept.any(-1).sum()) < 16
    assert torch.equal(seen[1], x)
    assert DAFormer("tu-test_resnet", channels=16).segmentation_head[0].p == 0.1


@pytest.mark.parametrize("encoder", ["mit_b0", "tu-test_resnet"])
def test_forward_equals_double_backward(encoder: str) -> None:
    torch.manual_seed(0)
    p = problem(create_segmenter("daformer", encoder, 5, options={"channels": 16, "dropout": 0.3}), size=64)
    forward, reference = (p.solve(engine, SGDStep(0.1)) for engine in ("forward", "double_backward"))
    assert float(reference.weights.norm()) > 0
    assert relative_error(forward.weights, reference.weights) < 1e-11
