"""DeepLabV2: dilated encoder, summed classifier, upsampling."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segzoo.bilevel import SGDStep
from segzoo.errors import ConfigError
from segzoo.models.deeplabv2 import DeepLabV2
from segzoo.models.segmenter import create_segmenter
from tests.parity.problems import problem, relative_error


def test_the_encoder_is_dilated_as_published() -> None:
    encoder = DeepLabV2("resnet50", classes=5).encoder.eval()
    dilations = [
        {m.dilation for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)}
        for stage in (encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4)
    ]
    assert dilations == [{(1, 1)}, {(1, 1)}, {(2, 2)}, {(4, 4)}]
    with torch.no_grad():
        maps = encoder(torch.rand(1, 3, 64, 64))
    assert [x.shape[-1] for x in maps] == [64, 32, 16, 8, 8, 8]
    assert [x.shape[1] for x in maps[-2:]] == [1024, 2048], "what MaxSquare's two classifiers read"


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("align_corners", [True, False])
def test_logits_are_those_of_the_last_map_upsampled(stride: int, align_corners: bool) -> None:
    torch.manual_seed(0)
    net = DeepLabV2("resnet18", None, 5, stride, align_corners=align_corners).eval()
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        coarse = sum(
            F.conv2d(net.encoder(image)[-1], conv.weight, conv.bias, padding=d, dilation=d)
            for d, conv in zip((6, 12, 18, 24), net.segmentation_head[0].convs, strict=True)
        )
        logits = net(image)
    assert isinstance(coarse, torch.Tensor) and coarse.shape == (2, 5, 64 // stride, 96 // stride)
    torch.testing.assert_close(logits, F.interpolate(coarse, (64, 96), mode="bilinear", align_corners=align_corners))
    if align_corners:
        torch.testing.assert_close(logits[..., :: 64 - 1, :: 96 - 1], coarse[..., [0, -1], :][..., [0, -1]])


@pytest.mark.parametrize("encoder", ["mit_b0", "densenet121", "tu-pvt_v2_b0", "tu-vgg11"])
def test_an_encoder_that_cannot_be_dilated_is_refused(encoder: str) -> None:
    with pytest.raises(ConfigError, match=f"'{encoder}' cannot be dilated to stride 8; resnet101"):
        create_segmenter("deeplabv2", encoder, 5)


def test_other_mistakes_are_not_taken_for_it() -> None:
    with pytest.raises(ConfigError, match="encoder_output_stride of deeplabv2 is 8 or 16, not 4"):
        create_segmenter("deeplabv2", "resnet18", 5, options={"encoder_output_stride": 4})
    with pytest.raises(ConfigError, match="cannot build deeplabv2 on tu-nonsense"):
        create_segmenter("deeplabv2", "tu-nonsense", 5)


def test_forward_equals_double_backward() -> None:
    torch.manual_seed(0)
    p = problem(create_segmenter("deeplabv2", "tu-test_resnet", 5), size=64)
    forward, reference = (p.solve(engine, SGDStep(0.1)) for engine in ("forward", "double_backward"))
    assert float(reference.weights.norm()) > 0
    assert relative_error(forward.weights, reference.weights) < 1e-11
