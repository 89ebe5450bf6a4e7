"""Generators: published values, naive convolutions, and what the annotator relies on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d
from torch import Tensor
from torch.nn import functional as F

from segzoo.errors import CheckpointError, ConfigError
from segzoo.models.generators import DCGAN, Generator, StyleGAN2, load_dcgan
from segzoo.models.generators.stylegan2 import binomial_filter, filter2d, modulated_conv2d, upsample2d


def stylegan2(**options: Any) -> StyleGAN2:
    torch.manual_seed(0)
    sizes = {"z_dim": 6, "w_dim": 10, "resolution": 16, "channel_base": 128, "channel_max": 12, "mapping_layers": 2}
    network = StyleGAN2(**(sizes | options))
    network.mapping.w_avg.normal_()
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.3)
    return network.eval()


def dcgan() -> DCGAN:
    torch.manual_seed(0)
    return DCGAN(latent_dim=5, channels=4).eval()


GENERATORS = [stylegan2, dcgan]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The interface


@pytest.mark.parametrize("build", GENERATORS)
def test_a_sample_is_what_the_attributes_promise(build: Any) -> None:
    generator: Generator = build()
    image, features = generator.sample(3, seeded())
    assert image.shape == (3, 3, generator.resolution, generator.resolution)
    assert [f.shape[1] for f in features] == generator.feature_channels
    sides = [f.shape[-1] for f in features]
    assert sides == sorted(sides) and sides[0] == 4
    assert all(len(f) == 3 and f.shape[-2] == f.shape[-1] for f in features)
    assert not image.requires_grad and not any(f.requires_grad for f in features)


@pytest.mark.parametrize("build", GENERATORS)
def test_samples_depend_on_the_generator_alone(build: Any) -> None:
    generator: Generator = build()
    before = torch.get_rng_state()
    first = generator.sample(2, seeded())
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again, other = generator.sample(2, seeded()), generator.sample(2, seeded(1))
    assert torch.equal(first.image, again.image) and not torch.equal(first.image, other.image)
    assert not torch.equal(first.image[0], first.image[1])
    draws = seeded()
    assert not torch.equal(generator.sample(2, draws).image, generator.sample(2, draws).image)


@pytest.mark.parametrize("build", GENERATORS)
def test_samples_ignore_autocast_and_follow_the_weights(build: Any) -> None:
    generator: Generator = build()
    expected = generator.sample(2, seeded()).image
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(generator.sample(2, seeded()).image, expected)
    assert generator.double().sample(2, seeded()).image.dtype == torch.float64


@pytest.mark.parametrize("build", GENERATORS)
def test_sampling_in_evaluation_mode_changes_no_state(build: Any) -> None:
    generator: Generator = build()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    generator.sample(2, seeded())
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


@pytest.mark.parametrize("build", GENERATORS)
def test_every_parameter_can_be_trained(build: Any) -> None:
    generator = build()
    z = torch.randn(2, generator.latent_dim, generator=seeded())
    image, _ = generator.synthesise(z, seeded(1))
    (image * torch.randn(image.shape, generator=seeded(2))).sum().backward()
    idle = [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


# StyleGAN2


def test_published_images_and_features(shared: Path) -> None:
    golden = {name: torch.from_numpy(value) for name, value in np.load(shared / "golden/stylegan2.npz").items()}
    network = StyleGAN2(64, 64, 32, channel_base=1024, channel_max=64, mapping_layers=3).eval()
    state = {name.removeprefix("state."): value for name, value in golden.items() if name.startswith("state.")}
    network.load_state_dict(state, strict=True)
    close: dict[str, Any] = {"rtol": 0, "atol": 1e-4}
    with torch.no_grad():
        torch.testing.assert_close(network.styles(golden["z"], 0.7, 4), golden["ws.psi0.7.cutoff4"], **close)
        truncated = network(golden["z"], truncation=0.7, cutoff=4, noise="const")
        torch.testing.assert_close(truncated.image, golden["image.psi0.7.cutoff4.const_noise"], **close)
        plain = network(golden["z"], noise="none")
    torch.testing.assert_close(plain.image, golden["image.psi1.no_noise"], **close)
    assert len(plain.features) == 4
    for side, feature in zip((4, 8, 16, 32), plain.features, strict=True):
        torch.testing.assert_close(feature, golden[f"feature.b{side}.no_noise.psi1"], **close)


def naive_modulated_conv(x: Tensor, weight: Tensor, styles: Tensor, up: bool, demodulate: bool) -> Tensor:
    """Image by image, each with its own weights, by SciPy."""
    outputs = []
    taps = binomial_filter().double().numpy() * 4
    for image, style in zip(x, styles, strict=True):
        own = weight * style[None, :, None, None]
        if demodulate:
            own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        maps = []
        for kernels in own.numpy():
            total = 0.0
            for channel, kernel in zip(image.numpy(), kernels, strict=True):
                if up:
                    spread = np.zeros([2 * side for side in channel.shape])
                    spread[::2, ::2] = channel
                    # A true convolution here, then the filter: the published pairing of paddings.
                    full = convolve2d(convolve2d(spread, kernel), taps)
                    total = total + full[2:-3, 2:-3]
                else:
                    total = total + convolve2d(channel, kernel[::-1, ::-1], mode="same")
            maps.append(torch.from_numpy(total))
        outputs.append(torch.stack(maps))
    return torch.stack(outputs)


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 4),
    outputs=st.integers(1, 4),
    height=st.integers(2, 6),
    width=st.integers(2, 6),
    kernel=st.sampled_from([1, 3]),
    up=st.booleans(),
    demodulate=st.booleans(),
)
def test_modulated_convolution_is_one_per_image(
    batch: int, channels: int, outputs: int, height: int, width: int, kernel: int, up: bool, demodulate: bool
) -> None:
    kernel = 3 if up else kernel
    draw = {"dtype": torch.float64, "generator": seeded(batch + 7 * height)}
    x, styles = torch.randn(batch, channels, height, width, **draw), torch.randn(batch, channels, **draw)
    weight = torch.randn(outputs, channels, kernel, kernel, **draw)
    found = modulated_conv2d(x, weight, styles, binomial_filter().double() if up else None, demodulate)
    expected = naive_modulated_conv(x, weight, styles, up, demodulate)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_demodulated_outputs_do_not_see_the_size_of_the_style() -> None:
    x, styles = torch.randn(2, 4, 5, 5, generator=seeded()), torch.rand(2, 4, generator=seeded()) + 0.5
    weight = torch.randn(3, 4, 3, 3, generator=seeded())
    torch.testing.assert_close(modulated_conv2d(x, weight, 7 * styles), modulated_conv2d(x, weight, styles))
    # Unit variance in, unit variance out.
    noise = torch.randn(1, 64, 64, 64, generator=seeded())
    out = modulated_conv2d(noise, torch.randn(64, 64, 3, 3, generator=seeded(1)), torch.ones(1, 64))
    assert out[..., 1:-1, 1:-1].std().item() == pytest.approx(1, rel=0.05)


@settings(deadline=None, max_examples=30)
@given(channels=st.integers(1, 3), height=st.integers(2, 6), width=st.integers(2, 6))
def test_filters_against_scipy(channels: int, height: int, width: int) -> None:
    x = torch.randn(2, channels, height, width, dtype=torch.float64, generator=seeded(height))
    # Not symmetric, so that a missing flip shows.
    kernel = torch.rand(4, 4, dtype=torch.float64, generator=seeded(width))
    smooth, doubled = filter2d(x, kernel, padding=1), upsample2d(x, kernel)
    assert doubled.shape == (2, channels, 2 * height, 2 * width)
    for b in range(2):
        for c in range(channels):
            full = convolve2d(np.pad(x[b, c].numpy(), 1), kernel.numpy())
            np.testing.assert_allclose(smooth[b, c], full[3:-3, 3:-3], atol=1e-12)
            spread = np.zeros((2 * height, 2 * width))
            spread[::2, ::2] = x[b, c]
            np.testing.assert_allclose(doubled[b, c], convolve2d(spread, 4 * kernel.numpy())[1:-2, 1:-2], atol=1e-12)


def test_upsampling_keeps_constants_and_is_bilinear_with_this_filter() -> None:
    x = torch.randn(1, 2, 6, 7, generator=seeded())
    inside = (..., slice(2, -2), slice(2, -2))
    assert binomial_filter().sum() == 1
    found, bilinear = upsample2d(x, binomial_filter()), F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(found[inside], bilinear[inside])


def test_truncation_pulls_the_first_layers_to_the_mean() -> None:
    network = stylegan2()
    z = torch.randn(2, 6, generator=seeded())
    free, mean = network.styles(z), network.mapping.w_avg
    assert free.shape == (2, network.num_layers, 10) and network.num_layers == 6
    torch.testing.assert_close(free, free[:, :1].expand_as(free))
    for cutoff in (0, 1, 4, 6, 9):
        ws = network.styles(z, 0.7, cutoff)
        torch.testing.assert_close(ws[:, :cutoff], mean + 0.7 * (free[:, :cutoff] - mean))
        assert torch.equal(ws[:, cutoff:], free[:, cutoff:])
    assert torch.equal(network.styles(z, 0.7, None), network.styles(z, 0.7, 6))
    torch.testing.assert_close(network.styles(z, 0.0), mean.expand_as(free))


def test_the_cutoff_fixes_the_coarse_layers_alone() -> None:
    network = stylegan2()
    z = torch.randn(2, 6, generator=seeded())
    for cutoff, fixed in ((0, 0), (1, 1), (3, 2), (5, 3)):  # maps made by the first so many styles
        _, features = network(z, truncation=0.0, cutoff=cutoff, noise="const")
        assert [torch.allclose(f[0], f[1], atol=1e-5) for f in features] == [i < fixed for i in range(3)]
    image, _ = network(z, truncation=0.0)
    torch.testing.assert_close(image[0], image[1])


def test_samples_are_truncated_as_the_network_says() -> None:
    one = stylegan2(truncation=0.0, cutoff=None).sample(3, seeded()).features[0]
    network = stylegan2(truncation=0.0, cutoff=None)
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.zeros_(parameter)
    same = network.sample(3, seeded())
    torch.testing.assert_close(same.image, same.image[:1].expand_as(same.image))
    assert not torch.allclose(one[0], one[1])  # the random noise of `sample`
    assert stylegan2().truncation == 0.7


def test_noise_modes() -> None:
    network = stylegan2()
    z = torch.randn(1, 6, generator=seeded()).expand(2, -1)
    none, const = network(z, noise="none").image, network(z, noise="const").image
    for image in (none, const):
        torch.testing.assert_close(image[0], image[1])
    assert not torch.allclose(none, const)
    random = network(z, noise="random", generator=seeded(3)).image
    assert torch.equal(random, network(z, noise="random", generator=seeded(3)).image)
    assert not torch.allclose(random, network(z, noise="random", generator=seeded(4)).image)
    assert not torch.allclose(random[0], random[1])
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(network(z, noise="random").image, network(z, noise="none").image)


def test_a_latents_length_does_not_matter() -> None:
    network = stylegan2().double()
    z = torch.randn(2, 6, dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(network(5 * z).image, network(z).image, rtol=1e-6, atol=1e-6)


def test_clamp_bounds_features_and_colours() -> None:
    z = torch.randn(2, 6, generator=seeded())
    free, bound = stylegan2()(z), stylegan2(clamp=0.5)(z)
    assert max(f.abs().max() for f in free.features) > 0.5
    assert all(f.abs().max() <= 0.5 for f in bound.features)
    torch.testing.assert_close(stylegan2(clamp=1e6)(z).image, free.image)


def test_training_follows_the_mean_of_w() -> None:
    network = stylegan2().train()
    z = torch.randn(4, 6, generator=seeded())
    before = network.mapping.w_avg.clone()
    w = network.mapping(z)
    torch.testing.assert_close(network.mapping.w_avg, 0.995 * before + 0.005 * w.mean(0))
    assert not network.mapping.w_avg.requires_grad


def test_random_weights_give_activations_of_order_one() -> None:
    torch.manual_seed(0)
    network = StyleGAN2(64, 64, 32, channel_base=1024, channel_max=64, mapping_layers=8).eval()
    with torch.no_grad():
        w = network.mapping(torch.randn(256, 64))
        image, features = network(torch.randn(8, 64))
    assert 0.3 < w.std() < 3
    assert all(0.2 < f.std() < 3 for f in features) and 0.2 < image.std() < 5


def test_layers_and_channels_of_the_published_sizes() -> None:
    with torch.device("meta"):
        small, large = StyleGAN2(channel_base=16384), StyleGAN2(resolution=1024)
    assert small.feature_channels == [512, 512, 512, 512, 256, 128, 64] and small.num_layers == 14
    assert large.feature_channels == [512, 512, 512, 512, 512, 256, 128, 64, 32] and large.num_layers == 18
    # The published 1024-pixel generator has 30.37 million parameters.
    assert sum(p.numel() for p in large.parameters()) == 30_370_060


@pytest.mark.parametrize("resolution", [0, 2, 12, 100])
def test_other_resolutions_are_refused(resolution: int) -> None:
    with pytest.raises(ConfigError, match=f"resolution {resolution}: expected a power of two"):
        StyleGAN2(resolution=resolution)


# DCGAN


def test_dcgan_features_are_the_maps_after_each_relu() -> None:
    network = dcgan()
    z = torch.randn(2, 5, generator=seeded())
    image, features = network(z)
    x, maps = z[:, :, None, None], []
    for i in (0, 3, 6, 9):
        x = network.main[i : i + 3](x)
        maps.append(x)
    assert [f.shape[1:] for f in features] == [(32, 4, 4), (16, 8, 8), (8, 16, 16), (4, 32, 32)]
    assert all(torch.equal(f, m) and f.min() >= 0 for f, m in zip(features, maps, strict=True))
    assert torch.equal(image, torch.tanh(network.main[12](x)))


def test_a_dcgan_file_tells_its_size(tmp_path: Path) -> None:
    original = dcgan()
    torch.save(original.state_dict(), tmp_path / "g.pt")
    before = torch.get_rng_state()
    loaded = load_dcgan(tmp_path / "g.pt")
    assert torch.equal(torch.get_rng_state(), before)
    assert not loaded.training and loaded.latent_dim == 5 and loaded.feature_channels == original.feature_channels
    assert torch.equal(loaded.sample(2, seeded()).image, original.sample(2, seeded()).image)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("main.12.weight"), "'main.12.weight' is missing"),
        (lambda state: state.pop("main.0.weight"), "expected 'main.0.weight' of shape"),
        (lambda state: state.update(more=torch.zeros(1)), "'more' is unexpected"),
        (lambda state: state.update({"main.1.bias": torch.zeros(3)}), r"'main.1.bias' has the shape \(3,\)"),
        (lambda state: state.update(hostile=torch.nn.Linear(1, 1)), "damaged, or more than tensors"),
    ],
)
def test_other_dcgan_files_are_explained(tmp_path: Path, change: Any, message: str) -> None:
    state: dict[str, Any] = dict(dcgan().state_dict())
    change(state)
    torch.save(state, tmp_path / "g.pt")
    with pytest.raises(CheckpointError, match=message):
        load_dcgan(tmp_path / "g.pt")
    with pytest.raises(CheckpointError, match="no generator weights"):
        load_dcgan(tmp_path / "absent.pt")


def test_shared_faces_load_and_look_like_images(shared: Path) -> None:
    network = load_dcgan(shared / "weights/dcgan_digiface64.pt")
    assert (network.latent_dim, network.feature_channels) == (100, [512, 256, 128, 64])
    image, _ = network.sample(32, seeded())
    # Neighbouring pixels of a photograph agree; those of an untrained or mis-loaded generator do not.
    left, right = image[..., :-1].flatten(), image[..., 1:].flatten()
    assert torch.corrcoef(torch.stack([left, right]))[0, 1] > 0.95
    assert 0.2 < image.std() < 0.9 and image.std(dim=0).mean() > 0.1
