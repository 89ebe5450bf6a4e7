"""Logits have the size of the input, whatever the options, and a network says which images it does not take."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segzoo.bilevel import Replayed, pixel_jvp
from segzoo.errors import ConfigError
from segzoo.losses import pixel_cross_entropy
from segzoo.models.dry_run import output_size
from segzoo.models.heads import selected_channels
from segzoo.models.segmenter import Segmenter, create_segmenter
from tests import tiny

OTHER_SIZE: list[tuple[str, str, dict[str, Any], int | None]] = [
    ("fpn", "resnet18", {"encoder_depth": 4}, 2),
    ("fpn", "resnet18", {"encoder_depth": 3}, 1),
    ("fpn", "tu-test_resnet", {"upsampling": 8}, 4),
    ("fpn", "tu-test_resnet", {"upsampling": 3}, 4),
    ("fpn", "tu-test_resnet", {"upsampling": 0}, 4),
    ("segformer", "mit_b0", {"upsampling": 8}, 4),
    ("pspnet", "resnet18", {"encoder_depth": 4}, 16),
    ("deeplabv3", "resnet18", {"upsampling": 4, "encoder_output_stride": 16, "decoder_channels": 32}, 16),
    ("upernet", "tu-test_resnet", {"upsampling": 2, "decoder_channels": 32}, 4),
    ("pan", "resnet18", {"upsampling": 2}, 4),
]


@pytest.mark.fault("logits-of-another-size")
@pytest.mark.parametrize(("architecture", "encoder", "options", "right"), OTHER_SIZE)
def test_logits_of_another_size_are_refused_and_the_option_named(
    architecture: str, encoder: str, options: dict[str, Any], right: int
) -> None:
    net, image = create_segmenter(architecture, encoder, 5, options=options).eval(), torch.rand(1, 3, 128, 160)
    spelled = next(f"{name}: {value}" for name, value in options.items())
    named = rf"{architecture} on {encoder} with `network.options` .*{spelled}"
    message = rf"{named}.* makes logits of .* of an input of 128 160"
    for call in (
        lambda: net(image),
        lambda: net.with_features(image),
        lambda: net.decode(net.features(image), (128, 160)),
        lambda: net.check_sizes({"--data.size": (128, 160)}),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            call()
        assert str(caught.value).endswith(f"as with `network.options` {{upsampling: {right}}}")
        assert "\n" not in str(caught.value)
    fixed = create_segmenter(architecture, encoder, 5, options=options | {"upsampling": right}).eval()
    fixed.check_sizes({"--data.size": (128, 160)})
    assert fixed(image).shape == (1, 5, 128, 160)


@pytest.mark.fault("logits-of-another-size")
def test_derivatives_see_the_size_too() -> None:
    net = create_segmenter("fpn", "tu-test_resnet", 5, options={"upsampling": 8})
    label = torch.zeros(1, 32, 64, dtype=torch.long)
    replayed = Replayed(net, torch.rand(1, 3, 32, 64), lambda z: pixel_cross_entropy(z, label), 0)
    params = dict(net.named_parameters())
    with pytest.raises(ConfigError, match=r"logits of 64 128 .* of an input of 32 64"):
        pixel_jvp(replayed, params, params)


@pytest.mark.fault("logits-of-another-size")
def test_a_network_that_returns_something_else() -> None:
    class Two(nn.Conv2d):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), x.mean()

    net = Segmenter(Two(3, 5, 1), [0.5] * 3, [0.5] * 3, 32)
    with pytest.raises(ConfigError, match=r"the network Two makes logits of 0 0 .* of an input of 32 32"):
        net(torch.rand(1, 3, 32, 32))


@pytest.mark.fault("image-size-a-network-refuses")
@pytest.mark.parametrize(
    ("architecture", "encoder", "options", "size", "fits"),
    [
        ("pan", "resnet18", {}, (64, 96), (128, 128)),
        ("pan", "mit_b0", {}, (96, 128), (128, 128)),
        ("unet", "tu-swin_tiny_patch4_window7_224", {"decoder_channels": [8] * 5}, (96, 128), (224, 224)),
        ("fpn", "tu-coatnet_nano_rw_224", {}, (64, 64), (224, 224)),
        ("dpt", "tu-vit_tiny_patch16_224", {}, (96, 128), (224, 224)),
    ],
)
def test_a_size_that_the_network_does_not_take_is_named_with_one_that_fits(
    architecture: str, encoder: str, options: dict[str, Any], size: tuple[int, int], fits: tuple[int, int]
) -> None:
    net = create_segmenter(architecture, encoder, 5, options=options).train()
    modes = [module.training for module in net.modules()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    named = rf"^{architecture} on {encoder}.* cannot take images of {size[0]} {size[1]}"
    message = rf"{named} \(--data.crop_size, height and width\)"
    with pytest.raises(ConfigError, match=rf"{message}: .*; {fits[0]} {fits[1]} would fit$"):
        net.check_sizes({"--data.crop_size": size})
    with pytest.raises(ConfigError, match=r"cannot take images of .* \(height, width\)"):
        net.eval()(torch.rand(1, 3, *size))
    net.train().check_sizes({"--data.size": fits})
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


@pytest.mark.fault("image-size-a-network-refuses")
def test_a_network_that_never_works_says_so() -> None:
    net = create_segmenter("unet", "tu-test_resnet", 5, options={"decoder_interpolation": "cubical"})
    with pytest.raises(
        ConfigError, match=r"\{decoder_interpolation: cubical\} does not work, whatever the size of the images: "
    ):
        net.check_sizes({"--data.size": (64, 64)})


def test_a_network_that_runs_on_real_images_alone_is_not_refused() -> None:
    class Peeking(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * max(1.0, x.mean().item())

    net = Segmenter(Peeking(3, 5, 1), [0.5] * 3, [0.5] * 3, 32)
    net.check_sizes({"--data.size": (33, 64)})
    assert output_size(net.network, (64, 64)) == (64, 64)


def test_the_sizes_are_tried_without_computing_or_drawing() -> None:
    net = create_segmenter("fpn", "resnet18", 5).train()
    seen: list[torch.device] = []
    net.network.encoder.conv1.register_forward_hook(lambda _, args, output: seen.append(output.device))
    before = torch.get_rng_state()
    net.check_sizes({"--data.size": (8192, 16384), "--data.source_size": (8190, 16383), "--data.crop_size": (64, 64)})
    assert [device.type for device in seen] == ["meta", "meta"]  # two of the three are padded to the same size
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.fault("image-size-a-network-refuses")
@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ({"size": (64, 96)}, {}, r"64 96 \(`data.size`, height and width\)"),
        ({"size": (128, 128), "target_size": (96, 160)}, {}, r"96 160 \(`data.target_size`, height and width\)"),
        ({"size": (128, 128), "crop_size": (64, 128)}, {}, r"64 128 \(`data.crop_size`, height and width\)"),
    ],
)
def test_every_size_of_the_data_is_tried_before_the_first_step(
    sizes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.fit(
            "joint", 1, data_options=sizes, architecture="pan", network={"options": None}, encoder="resnet18", **options
        )


def test_sizes_that_no_image_has_are_not_tried() -> None:
    method, data = tiny.method("sepico"), tiny.data(crop_size=(32, 32), target_size=(48, 64))
    assert method._input_sizes(data, training=True) == {
        "`data.size`": (32, 64),
        "`data.crop_size`": (32, 32),
        "`data.target_size`": (48, 64),
    }
    assert method._input_sizes(data, training=False) == {"`data.size`": (32, 64)}


@pytest.mark.fault("network-option-without-use")
@pytest.mark.parametrize("architecture", ["unet", "fpn", "deeplabv3plus", "deeplabv2", "daformer"])
@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("in_channels", 4, "images are RGB"),
        ("in_channels", 1, "images are RGB"),
        ("activation", "softmax", "take the logits as they are"),
        ("aux_params", {"classes": 2}, "no loss for a second head"),
        ("classes", 3, "those of the data's label space"),
        ("encoder_name", "resnet34", "`network.encoder`"),
        ("encoder_weights", "imagenet", "`network.encoder_weights`"),
    ],
)
def test_options_that_networks_have_and_segzoo_has_not(architecture: str, option: str, value: Any, remedy: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"`network.options`: '{option}' of {architecture} cannot .*{remedy}.*leave it out"
    ):
        create_segmenter(architecture, "tu-test_resnet", 5, options={option: value})


def test_their_values_that_change_nothing_pass() -> None:
    options = {"in_channels": 3, "activation": None, "aux_params": None}
    assert create_segmenter("fpn", "tu-test_resnet", 5, options=options).eval()(torch.rand(1, 3, 32, 32)).shape[1] == 5


@pytest.mark.fault("encoder-without-maps")
def test_methods_that_read_maps_refuse_encoders_without_them() -> None:
    shallow = {"network": {"architecture": "linknet", "encoder": "tu-convnext_atto", "options": {"encoder_depth": 2}}}
    with pytest.raises(
        ConfigError, match=r"the encoder of linknet on tu-convnext_atto .* makes maps of \[3, 0, 40\] channels"
    ):
        tiny.method("maxsquare", **shallow, multi_level=True)


@pytest.mark.fault("encoder-without-maps")
def test_a_projection_needs_a_map() -> None:
    with pytest.raises(ConfigError, match=r"`method\.projection_input` fuse"):
        selected_channels([3, 64], "fuse")
