"""What consistency training adds to a mean teacher: aligned labels, boxes, masked blocks, exchanged frequencies."""

import numpy as np
import pytest
import torch

from segzoo.adaptation import DistributionAlignment, cut_mix, low_frequency_swap, mask_blocks
from segzoo.adaptation.alignment import LIMIT, MOMENTUM, TOLERANCE


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 * seed + i) for i in range(count)]


def probabilities(seed: int, classes: int = 4) -> torch.Tensor:
    torch.manual_seed(seed)
    return (2 * torch.randn(3, classes, 6, 7, dtype=torch.float64)).softmax(1)


# Alignment


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_alignment_by_its_definition(strength: float) -> None:
    align, prior = DistributionAlignment(4, strength).double(), np.array([0.87, 0.1, 0.03, 0.0])
    align.prior.copy_(torch.from_numpy(prior))
    mean = None
    for seed in range(4):
        probs = probabilities(seed)
        found = align(probs).numpy()
        p = probs.numpy()
        batch = p.mean((0, 2, 3))
        mean = batch if mean is None else MOMENTUM * mean + (1 - MOMENTUM) * batch
        nearest = np.clip(mean, prior, prior * TOLERANCE)
        ratio = np.where(prior > 0, np.clip(nearest / mean, 1 / LIMIT, LIMIT) ** strength, 1.0)
        expected = p * ratio[:, None, None]
        np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(align.mean.numpy(), mean, rtol=1e-12)


def test_alignment_keeps_a_class_that_is_never_the_likeliest() -> None:
    """A teacher that gives a class of 20 % of the pixels 0.3 at most labels none of them; aligned it labels them."""
    align = DistributionAlignment(2, 1.0)
    align.prior.copy_(torch.tensor([0.8, 0.2]))
    thin = torch.zeros(1, 10, 10, dtype=torch.bool)
    thin[:, :, :2] = True
    probs = torch.where(thin, 0.3, 0.02)
    probs = torch.stack([1 - probs, probs], dim=1)
    assert not probs.argmax(1).any()
    assert torch.equal(align(probs).argmax(1).bool(), thin)


def test_alignment_leaves_up_to_twice_the_prior_alone() -> None:
    for share, changes in ((0.15, False), (0.19, False), (0.4, True)):
        align = DistributionAlignment(2, 1.0)
        align.prior.copy_(torch.tensor([0.9, 0.1]))
        probs = torch.tensor([1 - share, share]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
        class_one = align(probs)[:, 1].mean()
        assert (class_one < share - 0.05) == changes


def test_alignment_resumes_with_its_mean_and_not_with_the_prior() -> None:
    align = DistributionAlignment(4, 1.0)
    align(probabilities(0).float())
    assert align.state_dict().keys() == {"mean"}


# Boxes


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(40, 60), (33, 17), (2, 3)])
def test_boxes_are_boxes_of_the_share_that_is_asked_for(seed: int, size: tuple[int, int]) -> None:
    masks = cut_mix(size, generators(8, seed))
    assert masks.shape == (8, *size) and masks.dtype == torch.bool
    for mask in masks:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        box = torch.zeros_like(mask)
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        assert torch.equal(mask, box)
        if min(size) > 10:
            assert 0.07 < float(mask.double().mean()) < 0.55
    assert torch.equal(masks, cut_mix(size, generators(8, seed)))
    assert not torch.equal(masks[0], masks[1]) or min(size) < 10


# Masked blocks


@pytest.mark.parametrize(("size", "block"), [((32, 48), 8), ((30, 45), 7), ((5, 5), 9)])
def test_masked_blocks(size: tuple[int, int], block: int) -> None:
    images = torch.rand(3, 3, *size) + 0.1
    masked = mask_blocks(images, generators(3), block, 0.5)
    kept = masked != 0
    assert torch.equal(masked, torch.where(kept, images, 0.0))
    for top in range(0, size[0], block):
        for left in range(0, size[1], block):
            cell = kept[:, :, top : top + block, left : left + block].flatten(1)
            assert torch.equal(cell.all(1), cell.any(1)), "a block is shown whole or not at all"


def test_the_share_of_masked_blocks() -> None:
    masked = mask_blocks(torch.ones(4, 1, 160, 160), generators(4), 4, 0.7)
    assert float((masked == 0).double().mean()) == pytest.approx(0.7, abs=0.02)


# Frequencies


def test_low_frequencies_by_numpy() -> None:
    torch.manual_seed(0)
    source, target = 0.3 + 0.4 * torch.rand(2, 3, 20, 26), 0.3 + 0.4 * torch.rand(2, 3, 20, 26)
    found = low_frequency_swap(source, target, 0.1)
    spectrum, style = np.fft.fft2(source.numpy()), np.fft.fft2(target.numpy())
    shifted, other = np.fft.fftshift(np.abs(spectrum), (-2, -1)), np.fft.fftshift(np.abs(style), (-2, -1))
    reach, row, column = 2, 10, 13
    square = np.s_[..., row - reach : row + reach + 1, column - reach : column + reach + 1]
    shifted[square] = other[square]
    amplitude = np.fft.ifftshift(shifted, (-2, -1))
    expected = np.fft.ifft2(amplitude * np.exp(1j * np.angle(spectrum))).real.clip(0, 1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_frequencies_of_an_image_itself_change_nothing_and_the_mean_is_the_targets() -> None:
    torch.manual_seed(0)
    source, target = 0.4 + 0.2 * torch.rand(3, 3, 16, 16), 0.5 + 0.2 * torch.rand(2, 3, 32, 8)
    torch.testing.assert_close(low_frequency_swap(source, source, 0.2), source, atol=1e-5, rtol=0)
    swapped = low_frequency_swap(source, target, 0.0)
    expected = target[[0, 1, 0]].mean((2, 3))
    torch.testing.assert_close(swapped.mean((2, 3)), expected, atol=1e-3, rtol=0)
