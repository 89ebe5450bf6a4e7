"""Pseudo labels and their weights, on one rank and on two."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segzoo.adaptation import class_mix, confident_share, fuse_reference, pseudo_label_weights, pseudo_labels


def test_labels_and_probabilities():
    logits = 4 * torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels, confidence = pseudo_labels(logits)
    assert labels.dtype == torch.int64 and not confidence.requires_grad
    assert torch.equal(labels, logits.softmax(1).argmax(1))
    torch.testing.assert_close(confidence, logits.softmax(1).amax(1).detach())


def test_probabilities_of_extreme_and_equal_logits():
    logits = torch.tensor([[1e4, 0.0, -1e4], [2.0, 2.0, 2.0]]).view(2, 3, 1, 1)
    _, confidence = pseudo_labels(logits)
    assert confidence.flatten().tolist() == pytest.approx([1, 1 / 3])
    assert confidence.max() <= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_half_precision_is_widened(dtype):
    logits = torch.tensor([3.4375, 0.0]).view(1, 2, 1, 1).to(dtype)  # exact in every format
    _, confidence = pseudo_labels(logits)
    assert confidence.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # 0.96885: above the threshold, while bfloat16 knows only 0.9648, 0.96875 and 0.9727 there
    assert float(confidence) == pytest.approx(1 / (1 + torch.tensor(-3.4375).double().exp().item()), abs=1e-6)


def test_fusion_with_a_reference_pixel_by_pixel():
    generator = torch.Generator().manual_seed(0)
    p, reference = (torch.rand(2, 4, 3, 5, generator=generator) for _ in range(2))
    reference[0, 0, 0, 0] = 0.4  # at the threshold: not above
    still = torch.tensor([True, False, True, False])
    fused = fuse_reference(p, reference, still, weight=0.7, threshold=0.4)
    for b, c, y, x in torch.cartesian_prod(*(torch.arange(n) for n in p.shape)).tolist():
        own, other = float(p[b, c, y, x]), float(reference[b, c, y, x])
        w = 0.7 if other > 0.4 and (b, c, y, x) != (0, 0, 0, 0) else 0.3
        expected = w * other + (1 - w) * own if still[c] else own
        assert float(fused[b, c, y, x]) == pytest.approx(expected, abs=1e-6)


def test_threshold_is_inclusive():
    assert float(confident_share(torch.tensor([[[0.5, 0.75, 0.9, 0.2]]]), 0.75)) == 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 9), st.integers(0, 9), st.floats(0, 1))
def test_weights(seed, top, bottom, threshold):
    confidence = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    confident = confidence >= threshold
    used = torch.tensor([top <= row < 6 - bottom for row in range(6)]).view(1, 6, 1)
    pixel = pseudo_label_weights(confidence, threshold, top, bottom, scheme="pixel")
    assert torch.equal(pixel, (confident & used).double())
    share = pseudo_label_weights(confidence, threshold, top, bottom)
    # The share counts the rows whose weight is 0.
    torch.testing.assert_close(share, confident.double().mean() * used.double().expand(2, 6, 5))
    assert share.dtype == pixel.dtype == torch.float64


def test_published_bands():
    weights = pseudo_label_weights(torch.ones(1, 640, 2), ignore_top=15, ignore_bottom=120)
    assert weights[0, :, 0].nonzero().flatten().tolist() == list(range(15, 520))


class Ranks:
    """Threads as ranks: `sum_across_ranks` waits for all of them."""

    def __init__(self, world: int) -> None:
        self.barrier, self.values = threading.Barrier(world, timeout=20), {}

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        self.values[threading.get_ident()] = value
        self.barrier.wait()
        total = torch.stack(list(self.values.values())).sum(0)
        self.barrier.wait()
        return total

    def run(self, task: Callable[[Any], Any], parts: list[Any]) -> list[Any]:
        with ThreadPoolExecutor(len(parts)) as pool:
            return list(pool.map(task, parts))


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Ranks:
    ranks = Ranks(2)
    for module in ("mixing", "pseudo_labelling"):
        monkeypatch.setattr(f"segzoo.adaptation.{module}.sum_across_ranks", ranks.sum)
    return ranks


def step(part: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and mask of the images in ``part`` of a batch of four."""
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(4, 8, 8, generator=generator)
    labels = torch.cat([torch.randint(2 * i, 2 * i + 2, (1, 8, 8), generator=generator) for i in range(4)])
    labels[0, 0] = 255
    generators = [torch.Generator().manual_seed(i) for i in range(4)[part]]
    return pseudo_label_weights(confidence[part], 0.7), class_mix(labels[part], generators, "batch")


PARTS = [slice(0, None, 2), slice(1, None, 2)]


def test_a_rank_alone_is_something_else() -> None:
    for whole, parts in zip(step(slice(None)), zip(*map(step, PARTS), strict=True), strict=True):
        assert not torch.equal(torch.stack(parts, 1).flatten(0, 1), whole)


def test_two_ranks_are_one_process_on_the_whole_batch(ranks: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    together = ranks.run(step, PARTS)
    monkeypatch.undo()
    for whole, parts in zip(step(slice(None)), zip(*together, strict=True), strict=True):
        assert torch.equal(torch.stack(parts, 1).flatten(0, 1), whole)


def test_ranks_with_different_numbers_of_pixels(ranks: Ranks) -> None:
    shares = ranks.run(confident_share, [torch.ones(1, 1, 1), torch.tensor([[[1.0, 0, 0]]])])
    # Two of four, not the mean of 1 and 1/3.
    assert [float(share) for share in shares] == [0.5, 0.5]
