"""Strong augmentation: its range, its frequencies, its draws."""

import colorsys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional

from segzoo.adaptation import strong_augment
from segzoo.adaptation.augment import _blur
from segzoo.errors import ConfigError

IMAGES = torch.rand(3, 3, 24, 40, generator=torch.Generator().manual_seed(0))


def augment(seed, images=IMAGES, **options):
    return strong_augment(images, torch.Generator().manual_seed(seed), **options)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**60),
    st.tuples(st.integers(1, 3), st.just(3), st.integers(1, 30), st.integers(1, 70)),
    st.sampled_from([torch.float32, torch.float64]),
    st.floats(0, 0.5),
    st.booleans(),
)
def test_stays_an_image_of_its_kind(seed, shape, dtype, jitter, extreme):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    images = images.round() if extreme else images
    before = images.clone()
    strong = augment(seed, images, jitter=jitter, jitter_probability=1, blur_probability=1)
    assert strong.shape == images.shape and strong.dtype == dtype
    assert strong.min() >= 0 and strong.max() <= 1
    assert torch.equal(images, before)


def test_nothing_happens_at_probability_zero():
    assert all(torch.equal(augment(seed, jitter_probability=0, blur_probability=0), IMAGES) for seed in range(20))
    assert not any(torch.equal(augment(seed, jitter_probability=1, blur_probability=0), IMAGES) for seed in range(20))


def test_frequencies():
    image = IMAGES[:1, :, :24, :24]
    jittered = sum(not torch.equal(augment(s, image, blur_probability=0), image) for s in range(1000))
    blurred = sum(
        not torch.equal(augment(s, image, jitter_probability=0, blur_sigma=(1, 1)), image) for s in range(1000)
    )
    both = sum(not torch.equal(augment(s, image, blur_sigma=(1, 1)), image) for s in range(1000))
    # five standard deviations: 63, 79, 47
    assert abs(jittered - 800) < 64
    assert abs(blurred - 500) < 80
    assert abs(both - 900) < 48  # 1 - 0.2 * 0.5: the two are drawn independently


def test_images_of_a_call_and_calls_of_equal_generators_share_the_draws():
    for seed in range(12):
        strong = augment(seed, IMAGES[:1].expand(3, -1, -1, -1))
        assert torch.equal(strong[0], strong[1]) and torch.equal(strong[0], strong[2])
        # bit for bit: the images of a batch are cut into ranks
        assert torch.equal(augment(seed), torch.cat([augment(seed, image) for image in IMAGES.split(1)]))
    assert not torch.equal(augment(1, jitter_probability=1), augment(2, jitter_probability=1))


def test_draws_depend_neither_on_images_nor_on_outcome():
    before = torch.get_rng_state()
    states = []
    for images, options in [
        (IMAGES, {"jitter_probability": 1, "blur_probability": 1}),
        (IMAGES[:1, :, :7, :5], {"jitter_probability": 0, "blur_probability": 0}),
    ]:
        generator = torch.Generator().manual_seed(3)
        strong_augment(images, generator, **options)
        states.append(generator.get_state())
    assert torch.equal(*states)
    assert torch.equal(before, torch.get_rng_state())


def test_brightness_contrast_saturation_and_hue_all_move():
    grey = torch.full((1, 3, 8, 8), 0.4)
    colour = torch.tensor([0.6, 0.4, 0.3]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    levels = torch.stack([augment(s, grey, jitter_probability=1, blur_probability=0).mean() for s in range(300)])
    # Of a flat grey image only the brightness changes: 0.4 times U(0.8, 1.2).
    assert 0.32 <= levels.min() < 0.325 and 0.475 < levels.max() <= 0.48 + 1e-6
    assert levels.mean() == pytest.approx(0.4, abs=0.01)
    turned = torch.cat([augment(s, colour, jitter_probability=1, blur_probability=0) for s in range(300)])[:, :, 0, 0]
    hue = colorsys.rgb_to_hsv(0.6, 0.4, 0.3)[0]
    turns = torch.tensor([(colorsys.rgb_to_hsv(*rgb)[0] - hue + 0.5) % 1 - 0.5 for rgb in turned.tolist()])
    assert -0.2 - 1e-4 < turns.min() < -0.19 and 0.19 < turns.max() < 0.2 + 1e-4
    greys = turned.amax(1) - turned.amin(1)
    assert (greys.min() < 0.25) and (greys.max() > 0.33)
    noise = IMAGES.mean(1, keepdim=True).expand(-1, 3, -1, -1)  # of grey noise, brightness and contrast change
    strong = [augment(s, noise, jitter_probability=1, blur_probability=0) for s in range(100)]
    relative = torch.stack([x.std() / x.mean() for x in strong]) / (noise.std() / noise.mean())
    assert relative.min() < 0.85 and relative.max() > 1.12


def test_half_the_circle_is_the_limit():
    augment(0, jitter=0.5)
    for jitter in (-0.1, 0.51):
        with pytest.raises(ConfigError, match=r"0 to 0\.5"):
            augment(0, jitter=jitter)


@pytest.mark.parametrize("sigma", [0.15, 0.7, 1.15])
def test_blur_is_the_square_kernel_of_a_tenth_of_the_side(sigma):
    # 64 and 126 pixels at 640 and 1260 would be 63 and 125: odd. Here they are small enough to compute.
    images = torch.rand(1, 3, 210, 110, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = functional.gaussian_blur(images, [11, 21], [sigma])
    torch.testing.assert_close(_blur(images, sigma), expected, rtol=0, atol=1e-12)
    wide = torch.rand(1, 1, 4, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = functional.gaussian_blur(wide, [39, 1], [sigma])
    torch.testing.assert_close(_blur(wide, sigma), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 3), (11, 10), (21, 200)])
def test_blur_of_small_images(size):
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    blurred = _blur(images, 1.0)
    assert blurred.shape == images.shape
    assert torch.equal(blurred, images) == (max(size) <= 20)


def test_rounding_of_the_blur_leaves_no_value_outside():
    white = torch.ones(1, 3, 120, 120)
    sigmas = [0.15 + i / 40 for i in range(41)]
    exact = [functional.gaussian_blur(white, [11, 11], [sigma]).max() for sigma in sigmas]
    assert max(exact) > 1  # what must be caught does happen
    assert all(_blur(white, sigma).max() <= 1 for sigma in sigmas)
