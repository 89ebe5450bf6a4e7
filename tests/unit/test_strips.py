"""Logits in strips: windows, mirror images and scales against naive implementations of all rows at once."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from segzoo.data.views import Views
from segzoo.evaluation import strips
from segzoo.evaluation.strips import logit_strips
from segzoo.evaluation.windows import window_starts, window_weights

CLASSES = 3
SIDES = st.integers(1, 40)


def pointwise(image: Tensor) -> Tensor:
    """A network that sees one pixel: 1x1 convolutions and a nonlinearity."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Tanh(), nn.Conv2d(5, CLASSES, 1))
    with torch.no_grad():
        found: Tensor = network(image)
    return found


def nearby(image: Tensor) -> Tensor:
    """A network that sees 3x3 pixels, and zeros beyond the border of what it gets."""
    torch.manual_seed(2)
    with torch.no_grad():
        found: Tensor = nn.Conv2d(3, CLASSES, 3, padding=1)(image)
    return found


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def joined(
    network: Any, image: np.ndarray, views: Views, size: tuple[int, int] | None = None, at_once: int = 3
) -> Tensor:
    """The logits (C, H, W) of all strips, which have to follow each other."""
    found: list[Tensor] = []
    inputs = [tensor(one) for one in views.inputs(image, size)]
    for top, logits in logit_strips(network, inputs, views, image.shape[:2], at_once):
        assert top == sum(one.shape[1] for one in found)
        found.append(logits)
    return torch.cat(found, 1)


@pytest.fixture(params=[1, 200, 2**24], ids=["rows", "few rows", "whole"])
def strip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of one row, of some, and of all."""
    monkeypatch.setattr(strips, "STRIP", request.param)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.floats(0, 0.95), st.sampled_from(["linear", "mean"]))
def test_windows_cover_the_axis_and_their_weights_sum_to_one(
    length: int, window: int, overlap: float, blend: str
) -> None:
    window = min(window, length)
    starts = window_starts(length, window, overlap)
    assert starts[0] == 0 and starts[-1] + window == length
    assert all(0 < after - before <= max(1, round(window * (1 - overlap))) for before, after in pairwise(starts))
    weights, total = window_weights(length, window, starts, blend), torch.zeros(length)
    covered = torch.zeros(length)
    for start, own in zip(starts, weights, strict=True):
        total[start : start + window] += own
        covered[start : start + window] += 1
        assert (own > 0).all()
    assert (total - 1).abs().max() < 3e-7
    assert (total[covered == 1] == 1).all(), "what one window alone sees is exactly its"


def test_a_window_counts_less_towards_its_border() -> None:
    weights = window_weights(6, 4, [0, 2], "linear")
    assert torch.allclose(weights[0], torch.tensor([1, 1, 2 / 3, 1 / 3]))
    assert torch.allclose(window_weights(6, 4, [0, 2], "mean")[0], torch.tensor([1, 1, 0.5, 0.5]))


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.floats(0, 0.9), st.sampled_from(["linear", "mean"]), st.integers(1, 5))
def test_windows_equal_the_whole_for_a_network_that_sees_a_pixel(
    height: int, width: int, rows: int, columns: int, overlap: float, blend: Any, at_once: int
) -> None:
    image = picture(height, width)
    views = Views(input="native", window=(rows, columns), overlap=overlap, blend=blend)
    found = joined(pointwise, image, views, at_once=at_once)
    assert torch.allclose(found, pointwise(tensor(image)[None].float() / 255)[0], atol=1e-6)


def test_without_overlap_a_window_is_what_the_network_says_of_it_alone(strip: None) -> None:
    image = picture(20, 30)
    found = joined(nearby, image, Views(input="native", window=(10, 15), overlap=0.0))
    for top, left in ((0, 0), (0, 15), (10, 0), (10, 15)):
        window = tensor(image)[None, :, top : top + 10, left : left + 15].float() / 255
        assert torch.allclose(found[:, top : top + 10, left : left + 15], nearby(window)[0], atol=1e-6)


@pytest.mark.parametrize("blend", ["linear", "mean"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_overlapping_windows_equal_a_naive_mean(strip: None, blend: Any, overlap: float) -> None:
    height, width, rows, columns = 23, 31, 9, 12
    image = picture(height, width)
    sums, total = torch.zeros(CLASSES, height, width), torch.zeros(height, width)
    step = max(1, round(rows * (1 - overlap))), max(1, round(columns * (1 - overlap)))
    tops = [*range(0, height - rows, step[0]), height - rows]
    lefts = [*range(0, width - columns, step[1]), width - columns]
    for top in tops:
        for left in lefts:
            logits = nearby(tensor(image)[None, :, top : top + rows, left : left + columns].float() / 255)[0]
            for y in range(rows):
                for x in range(columns):
                    weight = min(y + 1, rows - y) * min(x + 1, columns - x) if blend == "linear" else 1
                    sums[:, top + y, left + x] += weight * logits[:, y, x]
                    total[top + y, left + x] += weight
    views = Views(input="native", window=(rows, columns), overlap=overlap, blend=blend)
    assert torch.allclose(joined(nearby, image, views), sums / total, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 10), (16, 20), (50, 33)])
@pytest.mark.parametrize("native", [(16, 20), (25, 13)])
def test_a_resized_image_is_brought_to_its_own_size_as_ever(
    strip: None, size: tuple[int, int], native: tuple[int, int]
) -> None:
    image = picture(*native)
    views = Views(window=(64, 64))  # one window: the resized image as a whole
    (resized,) = views.inputs(image, size)
    assert resized.shape[:2] == size
    logits = nearby(tensor(resized)[None].float() / 255)
    expected = F.interpolate(logits, size=native, mode="bilinear", align_corners=False)[0]
    assert torch.allclose(joined(nearby, image, views, size), expected, atol=1e-5)


def test_mirror_images_and_scales_are_averaged_as_probabilities(strip: None) -> None:
    image = picture(18, 26)
    views = Views(input="native", flips=True, scales=(0.5, 1.0, 1.5))
    total: Any = 0
    for one in views.inputs(image, None):
        for turn in (lambda x: x, lambda x: x.flip(-1)):
            logits = turn(nearby(turn(tensor(one)[None].float() / 255)))
            total += F.interpolate(logits, size=(18, 26), mode="bilinear", align_corners=False)[0].softmax(0)
    found = joined(nearby, image, views)
    assert torch.allclose(found.exp(), total / 6, atol=1e-5)
    assert torch.allclose(found.softmax(0), found.exp(), atol=1e-5), "they are logits, too"


def test_a_mirrored_image_in_windows_is_scored_as_its_mirror_image() -> None:
    """Averaged with its mirror image, an image and its mirror image have mirrored logits, whatever the network."""
    image = picture(17, 29)
    views = Views(input="native", window=(8, 8), flips=True)
    mirrored = joined(nearby, np.ascontiguousarray(image[:, ::-1]), views)
    assert torch.allclose(joined(nearby, image, views), mirrored.flip(-1), atol=1e-5)


def test_certain_predictions_stay_finite() -> None:
    def certain(image: Tensor) -> Tensor:
        return torch.cat([torch.full_like(image[:, :1], 1e6), torch.full_like(image[:, :2], -1e6)], 1)

    found = joined(certain, picture(4, 5), Views(flips=True), (4, 5))
    assert torch.isfinite(found).all() and (found.argmax(0) == 0).all()


def test_the_network_gets_no_more_windows_at_once_and_no_other_sizes() -> None:
    seen: list[tuple[int, ...]] = []

    def watched(image: Tensor) -> Tensor:
        seen.append(tuple(image.shape))
        return pointwise(image)

    joined(watched, picture(40, 100), Views(input="native", window=(16, 16), overlap=0.0), at_once=3)
    assert all(shape[0] <= 3 and shape[1:] == (3, 16, 16) for shape in seen)
    assert sum(shape[0] for shape in seen) == 3 * 7


def test_no_more_rows_are_kept_than_those_of_one_row_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every window of a row is computed before its rows come, and none of those below."""
    monkeypatch.setattr(strips, "STRIP", 1)
    rows_seen = 0

    def watched(image: Tensor) -> Tensor:
        nonlocal rows_seen
        rows_seen += image.shape[2]
        return pointwise(image)

    views = Views(input="native", window=(10, 50), overlap=0.0)
    for top, _ in logit_strips(watched, [tensor(picture(100, 50))], views, (100, 50), 4):
        assert rows_seen == 10 * (top // 10 + 1)
