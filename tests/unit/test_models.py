"""Segmenters, normalisation layers and weighting networks."""

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from segzoo.errors import CheckpointError, ConfigError
from segzoo.models.norms import replace_norms
from segzoo.models.segmenter import create_segmenter
from segzoo.models.weighting import ImageWeightNet, PixelWeightNet

SMALL: dict[str, Any] = {"options": {"decoder_channels": [8, 8, 8, 8, 8]}}


def segmenter(**options: Any) -> nn.Module:
    return create_segmenter("unet", "tu-test_resnet", 5, **(SMALL | options))


@pytest.mark.parametrize("size", [(64, 64), (33, 70), (96, 31)])
def test_logits_have_the_size_of_the_image(size: tuple[int, int]) -> None:
    assert segmenter().eval()(torch.rand(2, 3, *size)).shape == (2, 5, *size)


def test_padding_does_not_change_an_image_that_needs_none() -> None:
    net = segmenter().eval()
    image = torch.rand(1, 3, 64, 64)
    normalised = (image - net.mean) / net.std
    torch.testing.assert_close(net(image), net.network(normalised))


def test_the_input_statistics_are_the_encoders() -> None:
    net = create_segmenter("fpn", "tu-tf_efficientnet_lite0", 5)
    assert net.mean.flatten().tolist() == [0.5] * 3 and net.std.flatten().tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "unett"}, "did you mean 'unet'"),
        ({"encoder": "resnet81"}, "did you mean 'resnet"),
        ({"encoder": "tu-nonsense"}, "cannot build unet on tu-nonsense"),
        ({"options": {"nonsense": 1}}, "nonsense"),
    ],
)
def test_a_wrong_name_is_explained(options: dict[str, Any], message: str) -> None:
    settings = {"architecture": "unet", "encoder": "resnet18", "num_classes": 5} | options
    with pytest.raises(ConfigError, match=message) as caught:
        create_segmenter(**settings)
    assert "\n" not in str(caught.value)


def test_an_encoder_checkpoint_is_loaded_strictly(tmp_path: Path) -> None:
    weights = segmenter().network.encoder.state_dict()
    torch.save(weights, tmp_path / "encoder.pt")
    loaded = segmenter(encoder_checkpoint=str(tmp_path / "encoder.pt")).network.encoder.state_dict()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    weights.popitem()
    torch.save(weights, tmp_path / "short.pt")
    for name, message in (("short.pt", "is not a state dict of .* is missing"), ("absent.pt", "no encoder checkpoint")):
        with pytest.raises(CheckpointError, match=message):
            segmenter(encoder_checkpoint=str(tmp_path / name))


@pytest.mark.parametrize("file", ["whole.bin", "whole.safetensors"])
@pytest.mark.parametrize("name", ["test_resnet", "tf_efficientnet_lite0"])
def test_a_network_as_timm_publishes_it_is_an_encoder_checkpoint(name: str, file: str, tmp_path: Path) -> None:
    whole = timm.create_model(name, pretrained=False)
    weights = {key: value.contiguous() for key, value in whole.state_dict().items()}
    path = tmp_path / file
    save_file(weights, path) if path.suffix == ".safetensors" else torch.save(weights, path)
    loaded = create_segmenter("fpn", f"tu-{name}", 5, encoder_checkpoint=str(path)).network.encoder.state_dict()
    assert loaded and all(torch.equal(value, weights[key.removeprefix("model.")]) for key, value in loaded.items())
    del weights[next(key.removeprefix("model.") for key in loaded)]
    torch.save(weights, tmp_path / "short.pt")
    with pytest.raises(CheckpointError, match=r"is not a state dict of .* is missing"):
        create_segmenter("fpn", f"tu-{name}", 5, encoder_checkpoint=str(tmp_path / "short.pt"))


def test_a_damaged_file_of_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "encoder.safetensors").write_bytes(b"nothing of it")
    with pytest.raises(CheckpointError, match="is not a state dict: damaged"):
        segmenter(encoder_checkpoint=str(tmp_path / "encoder.safetensors"))


def test_shared_encoder_weights_fit(shared: Path) -> None:
    for encoder in ("tu-tf_efficientnet_lite0", "mobilenet_v2"):
        create_segmenter("fpn", encoder, 5, encoder_checkpoint=str(shared / f"weights/{encoder}.imagenet.pt"))


@pytest.mark.parametrize("encoder", ["tu-test_resnet", "tu-tf_efficientnet_lite0"])
@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_other_norms_do_not_couple_the_images_of_a_batch(encoder: str, norm: Any) -> None:
    net = create_segmenter("unet", encoder, 5, norm=norm, **SMALL).train()
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    one, other = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    together = net(torch.cat([one, other]))
    torch.testing.assert_close(together[:1], net(one), rtol=1e-3, atol=1e-3)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in net.named_buffers())
    assert all(p.requires_grad for p in net.parameters())


def test_frozen_batch_norm_is_batch_norm_in_evaluation() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    nn.init.uniform_(net[1].running_mean)
    reference = copy.deepcopy(net).eval()
    replace_norms(net, "frozen")
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(net.train()(x), reference(x))


@pytest.mark.parametrize("net_class", [PixelWeightNet, ImageWeightNet])
@pytest.mark.parametrize("norm", ["instance", "group"])
def test_weights_start_near_sigmoid_of_one(net_class: Any, norm: Any) -> None:
    torch.manual_seed(0)
    label = torch.randint(9, (2, 50, 75))
    label[0, :5] = 255
    weights = net_class(9, 16, norm)(torch.rand(2, 3, 50, 75), label)
    assert weights.shape == label.shape and weights.dtype == torch.float32
    assert 0.72 < float(weights.detach().mean()) < 0.74
    assert bool(((weights > 0) & (weights < 1)).all())


@pytest.mark.parametrize("net_class", [PixelWeightNet, ImageWeightNet])
@pytest.mark.parametrize("stride", [1, 2])
def test_logits_of_weights_do_not_saturate(net_class: Any, stride: int) -> None:
    torch.manual_seed(0)
    net, label = net_class(4, 2, "group", stride), torch.randint(4, (2, 24, 32))
    image = torch.rand(2, 3, 24, 32)
    logits = net(image, label, logits=True)
    assert logits.shape == label.shape
    torch.testing.assert_close(net(image, label), logits.sigmoid())
    torch.nn.init.constant_(net.head.bias, 20.0)
    weights, logits = net(image, label), net(image, label, logits=True)
    assert bool((weights == 1).all()), "w / (1 - w) is infinite here"
    torch.testing.assert_close(logits.mean(), torch.tensor(20.0), rtol=1e-2, atol=0)
    (gradient,) = torch.autograd.grad(logits.exp().mean().log(), net.head.bias)
    assert float(gradient) == pytest.approx(1, rel=1e-3)


def test_instance_norms_are_those_of_torch() -> None:
    torch.manual_seed(0)
    net = PixelWeightNet(9, 8, "instance").double()
    reference = copy.deepcopy(net)
    for block in (*reference.down, *reference.up):
        for i, layer in enumerate(block):
            if isinstance(layer, nn.GroupNorm):
                block[i] = nn.InstanceNorm2d(layer.num_channels).double()
    assert net.state_dict().keys() == reference.state_dict().keys()
    x, label = torch.rand(2, 3, 40, 24, dtype=torch.float64), torch.randint(9, (2, 40, 24))
    weights, expected = net(x, label), reference(x, label)
    torch.testing.assert_close(weights, expected, rtol=1e-12, atol=1e-14)
    for found, true in zip(
        torch.autograd.grad(weights.square().sum(), list(net.parameters())),
        torch.autograd.grad(expected.square().sum(), list(reference.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(found, true, rtol=1e-9, atol=1e-12)


def test_the_weight_network_sees_the_image_and_a_channel_per_class_and_one_for_void() -> None:
    torch.manual_seed(0)
    net, seen = PixelWeightNet(4, 2), []
    net.down[0][0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image, label = torch.rand(2, 3, 16, 24), torch.randint(5, (2, 16, 24))
    one_hot = nn.functional.one_hot(label, 5).movedim(-1, 1)
    label[label == 4] = 255
    net(image, label)
    torch.testing.assert_close(seen[0], torch.cat([(image - 0.5) / 0.25, one_hot.float()], dim=1))


@pytest.mark.parametrize("net_class", [PixelWeightNet, ImageWeightNet])
def test_the_weight_network_halves_its_maps_by_their_maxima(net_class: Any) -> None:
    torch.manual_seed(0)
    net = net_class(4, 2)
    above: list[torch.Tensor] = []
    pooled: list[torch.Tensor] = []
    for level in net.down:
        level.register_forward_pre_hook(lambda _, args: pooled.append(args[0]))
        level.register_forward_hook(lambda _, args, output: above.append(output))
    net(torch.rand(2, 3, 17, 22), torch.randint(4, (2, 17, 22)))
    assert [tuple(x.shape[-2:]) for x in pooled] == [(17, 22), (9, 11), (5, 6), (3, 3)]
    for x, y in zip(above, pooled[1:], strict=False):
        padded = nn.functional.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2), value=-torch.inf)
        torch.testing.assert_close(y, padded.unfold(-2, 2, 2).unfold(-2, 2, 2).amax((-2, -1)), rtol=0, atol=0)


@pytest.mark.parametrize("net_class", [PixelWeightNet, ImageWeightNet])
def test_instance_norms_need_more_than_a_pixel(net_class: Any) -> None:
    image, label = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long)
    net_class(3, 8, "group")(image, label)
    with pytest.raises(ConfigError, match=r"8x8.*weight_stride"):
        net_class(3, 8)(image, label)


def test_an_image_weight_is_one_number_per_image() -> None:
    torch.manual_seed(0)
    net = ImageWeightNet(9, 8, "group")
    nn.init.normal_(net.head.weight)
    weights = net(torch.rand(3, 3, 32, 32), torch.randint(9, (3, 32, 32)))
    assert bool((weights == weights[:, :1, :1]).all()) and len(weights[:, 0, 0].unique()) == 3


def test_a_pixel_weight_sees_image_and_label() -> None:
    torch.manual_seed(0)
    net = PixelWeightNet(9, 8, "group")
    nn.init.normal_(net.head.weight)
    image, label = torch.rand(1, 3, 32, 32), torch.randint(9, (1, 32, 32))
    weights = net(image, label)
    assert not torch.allclose(weights, net(image, (label + 1) % 9))
    assert not torch.allclose(weights, net(1 - image, label))


def test_the_published_weight_network_has_its_size() -> None:
    # 4.29 M parameters with 19 classes, of which a second output channel and biases before norms are left out.
    assert sum(p.numel() for p in PixelWeightNet(19, 64).parameters()) == pytest.approx(4.29e6, rel=0.01)


@pytest.mark.parametrize("stride", [2, 3])
def test_strided_weights_are_constant_in_their_squares(stride: int) -> None:
    torch.manual_seed(0)
    fine, coarse = PixelWeightNet(9, 4), PixelWeightNet(9, 4, stride=stride)
    coarse.load_state_dict(fine.state_dict())
    small, label = torch.rand(2, 3, 16, 24), torch.randint(9, (2, 16, 24))
    big, big_label = (x.repeat_interleave(stride, -2).repeat_interleave(stride, -1) for x in (small, label))
    expected = fine(small, label).repeat_interleave(stride, -2).repeat_interleave(stride, -1)
    torch.testing.assert_close(coarse(big, big_label), expected)
    assert coarse(big[..., 1:, 1:], big_label[..., 1:, 1:]).shape == big_label[..., 1:, 1:].shape
    with pytest.raises(ConfigError, match=r"`method\.weight_stride` 0"):
        PixelWeightNet(9, 4, stride=0)
