"""The segmenter split into encoder and decoder, and our own architectures among those of segmentation_models_pytorch."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segzoo.errors import CheckpointError, ConfigError
from segzoo.models.norms import Norm
from segzoo.models.segmenter import Segmenter, create_segmenter
from segzoo.models.sync_norm import SyncBatchNorm

SMALL: dict[str, dict[str, Any]] = {
    "unet": {"decoder_channels": [16, 16, 8, 8, 8]},
    "unetplusplus": {"decoder_channels": [16, 16, 8, 8, 8]},
    "manet": {"decoder_channels": [64, 32, 16, 16, 16]},
    "linknet": {},
    "fpn": {},
    "pspnet": {},
    "pan": {},
    "deeplabv3": {"decoder_channels": 32},
    "deeplabv3plus": {"decoder_channels": 32},
    "upernet": {"decoder_channels": 32},
    "segformer": {"decoder_segmentation_channels": 32},
    "deeplabv2": {},
    "daformer": {"channels": 32},
    "fcn8s": {"fc_channels": 8},
}
REFUSED = {("unetplusplus", "mit_b0"), ("linknet", "mit_b0"), ("deeplabv2", "mit_b0")}
ENCODERS = {"fcn8s": ("vgg11",)}
OTHERS = ("tu-test_resnet", "resnet18", "mit_b0")
PAIRS = [(a, e) for a in SMALL for e in ENCODERS.get(a, OTHERS) if (a, e) not in REFUSED]
OURS = [("deeplabv2", "tu-test_resnet"), ("daformer", "tu-test_resnet"), ("daformer", "mit_b0"), ("fcn8s", "vgg11")]


def segmenter(architecture: str, encoder: str, **options: Any) -> Segmenter:
    torch.manual_seed(0)
    return create_segmenter(architecture, encoder, 5, **({"options": SMALL[architecture]} | options))


@pytest.mark.parametrize(("architecture", "encoder"), PAIRS)
def test_encoder_and_decoder_in_a_row_are_the_network(architecture: str, encoder: str) -> None:
    net, image = segmenter(architecture, encoder).eval(), torch.rand(2, 3, 99, 130)
    with torch.no_grad():
        maps, whole = net.features(image), net(image)
        logits = net.decode(maps, image.shape[-2:])
    assert logits.shape == (2, 5, 99, 130) and torch.equal(logits, whole)
    assert [x.shape[1] for x in maps] == net.feature_channels
    assert maps[0].shape[-2:] == net.padded((99, 130)) == (128, 160)


@pytest.mark.parametrize(("architecture", "encoder"), [("fpn", "mobilenet_v2"), ("upernet", "tu-convnext_atto"), *OURS])
def test_the_parts_train_like_the_network(architecture: str, encoder: str) -> None:
    # Dropout, running statistics and gradients included.
    image, results = torch.rand(2, 3, 40, 64), []
    for split in (False, True):
        net = segmenter(architecture, encoder).train()
        torch.manual_seed(1)
        logits = net.decode(net.features(image), (40, 64)) if split else net(image)
        logits.square().mean().backward()
        results.append([logits, *(p.grad for p in net.parameters() if p.grad is not None), *net.buffers()])
    assert len(results[0]) == len(results[1]) > 20
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_any_size(height: int, width: int) -> None:
    net, image = segmenter("daformer", "tu-test_resnet").eval(), torch.rand(1, 3, height, width)
    with torch.no_grad():
        maps = net.features(image)
        assert torch.equal(net.decode(maps, (height, width)), net(image))
    rows, columns = net.padded((height, width))
    assert [x.shape[-2:] for x in maps] == [(rows // s, columns // s) for s in (1, 2, 4, 8, 16, 32)]
    assert 0 <= rows - height < 32 and 0 <= columns - width < 32


def test_a_network_with_a_forward_of_its_own_cannot_be_split() -> None:
    small = {"decoder_intermediate_channels": [8, 8, 8, 8], "decoder_fusion_channels": 8}
    dpt = create_segmenter("dpt", "tu-vit_tiny_patch16_224", 5, options=small).eval()
    plain = Segmenter(nn.Conv2d(3, 5, 1), [0.5] * 3, [0.5] * 3, 32)
    image = torch.rand(1, 3, 224, 224)
    for net in (dpt, plain):
        assert net(image).shape == (1, 5, 224, 224)
        for call in (lambda n=net: n.features(image), lambda n=net: n.decode([image], (224, 224))):
            with pytest.raises(ConfigError, match="cannot be split into encoder and decoder"):
                call()


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("daformr", {}, "did you mean 'daformer'"),
        ("deeplab2", {}, "did you mean 'deeplabv2'"),
        ("daformer", {"dropot": 0.1}, "unknown option 'dropot' of daformer; did you mean 'dropout'"),
        ("deeplabv2", {"dilation": [6]}, "did you mean 'dilations'"),
        ("deeplabv2", {"classes": 3}, "'classes' of deeplabv2 cannot be set: the classes are those of the data"),
        ("deeplabv2", {"dilations": 3}, "cannot build deeplabv2 on resnet18"),
    ],
)
def test_a_wrong_name_is_explained(architecture: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_segmenter(architecture, "resnet18", 5, options=options)


@pytest.mark.parametrize(("architecture", "encoder"), [pair for pair in OURS if pair[0] != "fcn8s"])  # it has none
@pytest.mark.parametrize("norm", ["frozen", "group", "sync"])
def test_norms_are_replaced_in_our_networks(architecture: str, encoder: str, norm: Norm) -> None:
    net = segmenter(architecture, encoder, norm=norm).train()
    left = [m for m in net.modules() if isinstance(m, _BatchNorm)]
    if norm == "group":
        assert not left and any(isinstance(m, nn.GroupNorm) for m in net.modules())
    elif norm == "sync":
        assert left and all(isinstance(m, SyncBatchNorm) for m in left)
    else:
        assert left and not any(m.training for m in left)


@pytest.mark.parametrize(("architecture", "encoder"), OURS)
def test_an_encoder_checkpoint_is_loaded(architecture: str, encoder: str, tmp_path: Path) -> None:
    path = tmp_path / "encoder.pt"
    weights = create_segmenter("fpn", encoder, 5).network.encoder.state_dict()
    torch.save(weights, path)
    loaded = segmenter(architecture, encoder, encoder_checkpoint=str(path)).network.encoder.state_dict()
    assert loaded.keys() == weights.keys() and all(torch.equal(loaded[name], weights[name]) for name in weights)
    torch.save(dict(list(weights.items())[1:]), path)
    with pytest.raises(CheckpointError, match="is missing"):
        segmenter(architecture, encoder, encoder_checkpoint=str(path))


@pytest.mark.parametrize(("architecture", "encoder"), OURS)
def test_the_scopes_of_our_networks(architecture: str, encoder: str) -> None:
    net = segmenter(architecture, encoder)
    everything, decoder, head = (net.parameters_of(scope).keys() for scope in ("all", "decoder", "head"))
    assert head <= decoder < everything
    assert len(head) == {"deeplabv2": 4 * 2, "daformer": 2, "fcn8s": 3 * 2}[architecture]
    assert decoder == {name for name, _ in net.named_parameters() if "encoder" not in name}


def test_maps_and_both_run_the_compiled_call() -> None:
    net = segmenter("unet", "tu-test_resnet").eval()
    image = torch.rand(1, 3, 40, 70)
    logits, maps = net(image), net.features(image)
    net.compile(backend="aot_eager")
    impl, calls = net._compiled_call_impl, []
    net._compiled_call_impl = lambda *args: calls.append(args[1:]) or impl(*args)
    both = net.with_features(image)
    torch.testing.assert_close(both[0], logits)
    for one, other, expected in zip(both[1], net.features(image), maps, strict=True):
        torch.testing.assert_close(one, expected)
        torch.testing.assert_close(other, expected)
    assert calls == [("both",), ("maps",)]


@pytest.mark.fault("input-statistics-lost")
def test_statistics_that_cannot_be_downloaded_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for encoder in ("mobilenet_v2", "xception"):
        file = tmp_path / f"{encoder}.pt"
        torch.save(create_segmenter("fpn", encoder, 3).network.encoder.state_dict(), file)
        if encoder == "mobilenet_v2":  # trained with ImageNet's, as almost all are
            assert create_segmenter("fpn", encoder, 3, "imagenet", str(file)).mean.flatten()[0] == pytest.approx(0.485)
        else:
            with pytest.raises(ConfigError, match="cannot load the input statistics of the weights 'imagenet'"):
                create_segmenter("fpn", encoder, 3, "imagenet", str(file))


@pytest.mark.parametrize("encoder", ["resnet18", "tu-tf_efficientnet_lite0"])
def test_without_a_network_weights_are_an_error_at_once(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_address(*_: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", no_address)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere")
    begin = time.monotonic()
    with pytest.raises(
        ConfigError, match=r"cannot load the weights 'imagenet' .* `network\.encoder_checkpoint`, or begin"
    ):
        create_segmenter("fpn", encoder, 3, "imagenet")
    assert time.monotonic() - begin < 5
