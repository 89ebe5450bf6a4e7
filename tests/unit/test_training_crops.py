"""Sizes, crops and blur of training images."""

import re
from collections.abc import Iterator
from inspect import signature
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from segzoo.configs import config_path
from segzoo.data import DomainDataModule, MiniCity, Stream
from segzoo.data.sampling import derived_seed
from segzoo.data.transforms import REDRAWS, CropRule, training_transform
from segzoo.errors import ConfigError
from tests import tiny

PLAIN: dict[str, Any] = {"flip": False, "color_jitter": 0.0, "batch_size": 1}


def module(streams: dict[str, Stream] | None = None, **options: Any) -> DomainDataModule:
    """A DataModule as a trainer of one process would have it."""
    found: DomainDataModule = tiny.data(**options)
    found.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=0,
        world_size=1,
        is_global_zero=True,
        lightning_module=SimpleNamespace(streams=streams or {"source": Stream("source")}),
        num_devices=1,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        _accelerator_connector=SimpleNamespace(use_distributed_sampler=False),
        overfit_batches=0.0,
        state=SimpleNamespace(fn="fit"),
        fit_loop=SimpleNamespace(
            epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(total=SimpleNamespace(processed=0)))
        ),
    )
    return found


def batches(found: DomainDataModule, count: int, stream: str = "source") -> Iterator[Any]:
    return islice(found.train_dataloader().iterables[stream], count)


def index(batch: Any) -> int:
    return int(batch["name"][0].rpartition("-")[2])


def test_by_default_images_are_those_of_the_plain_pipeline() -> None:
    aspect = tiny.SIZE[1] / tiny.SIZE[0]
    plain = A.Compose(
        [
            A.RandomResizedCrop(
                tiny.SIZE,
                scale=(0.5, 1.0),
                ratio=(0.9 * aspect, 1.1 * aspect),
                mask_interpolation=cv2.INTER_NEAREST_EXACT,
                area_for_downscale="image",
            ),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.02, 0.02), p=0.8),
        ]
    )
    found = module(batch_size=1)
    images = found.images("source", "train")
    for t, batch in enumerate(batches(found, 12)):
        i = index(batch)
        plain.set_random_seed(derived_seed(0, "source", t // len(images), i))
        expected = plain(image=images.image(i), mask=images.label(i))
        np.testing.assert_array_equal(batch["label"][0], expected["mask"])
        assert torch.equal(batch["image"][0], torch.from_numpy(expected["image"].transpose(2, 0, 1)).float() / 255)


@pytest.mark.parametrize("crop_scale", [(1.0, 1.0), (0.3, 0.6)])
@pytest.mark.parametrize("native", [(90, 90), (18, 18)])
def test_labels_lie_where_their_image_does(native: tuple[int, int], crop_scale: tuple[float, float]) -> None:
    ramp = np.tile(np.arange(native[1]) * 200 // native[1], (native[0], 1)).astype(np.uint8)
    transform = training_transform((30, 30), crop_scale, flip=False, color_jitter=0.0)
    apart = []
    for seed in range(20):
        transform.set_random_seed(seed)
        found = transform(image=np.stack([ramp] * 3, axis=-1), mask=ramp)
        inside = np.s_[:, 2:-2]  # at the border, images are continued
        apart.append((found["image"][..., 0].astype(float) - found["mask"])[inside].mean())
    assert abs(np.mean(apart)) < 0.15 * 200 / native[1], "in native pixels"


def test_crops_are_reduced_without_aliasing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3)).astype(np.uint8)
    found = training_transform((50, 50), (0.9, 1.0), flip=False, color_jitter=0.0)(image=noise, mask=noise[..., 0])
    assert found["image"].std() < 0.2 * noise.std()


def test_each_domain_has_its_own_size_in_training_and_one_in_evaluation() -> None:
    streams = {"source": Stream("source"), "target": Stream("target", labelled=False)}
    found = module(streams, source_size=(24, 40), target_size=(20, 36))
    shapes = {s: tuple(next(batches(found, 1, s))["image"].shape[-2:]) for s in streams}
    assert shapes == {"source": (24, 40), "target": (20, 36)}
    assert next(iter(found.val_dataloader()))["image"].shape[-2:] == tiny.SIZE
    assert found.panel_batch("source")["image"].shape[-2:] == tiny.SIZE


@pytest.mark.parametrize("domain", ["source", "target"])
def test_whole_images_are_only_resized(domain: Any) -> None:
    found = module({"s": Stream(domain, whole=True)}, source_size=(24, 40), crop_size=(8, 8), **PLAIN)
    size = (24, 40) if domain == "source" else tiny.SIZE
    for batch in batches(found, 3, "s"):
        image = found.images(domain, "train").image(index(batch))
        expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(batch["image"][0].mul(255).round().numpy().transpose(1, 2, 0), expected)


def test_whole_images_are_mirrored_jittered_and_blurred() -> None:
    one = MiniCity("source", train=1, size=tiny.SIZE)
    stream = {"source": Stream("source", whole=True)}
    for option in ({"flip": True}, {"color_jitter": 0.5}, {"blur": 0.5}):
        images = {
            batch["image"].numpy().tobytes() for batch in batches(module(stream, source=one, **PLAIN | option), 12)
        }
        assert len(images) > 1, option


def test_a_crop_is_a_window_of_the_resized_image_and_of_its_label() -> None:
    found = module(source_size=(40, 70), crop_size=(24, 30), **PLAIN)
    images = found.images("source", "train")
    corners = set()
    for batch in batches(found, 24):
        assert batch["image"].shape == (1, 3, 24, 30) and batch["label"].shape == (1, 24, 30)
        i = index(batch)
        resize = A.Resize(40, 70, interpolation=cv2.INTER_AREA, mask_interpolation=cv2.INTER_NEAREST_EXACT)
        both = resize(image=images.image(i), mask=images.label(i))
        crop = batch["image"][0].mul(255).round().numpy().astype(np.uint8).transpose(1, 2, 0)
        places = np.argwhere(
            (np.lib.stride_tricks.sliding_window_view(both["image"], (24, 30, 3))[:, :, 0] == crop).all(axis=(2, 3, 4))
        )
        assert len(places) == 1
        top, left = places[0]
        np.testing.assert_array_equal(batch["label"][0], both["mask"][top : top + 24, left : left + 30])
        corners.add((int(top), int(left)))
    assert len(corners) > 20 and max(top for top, _ in corners) > 10 and max(left for _, left in corners) > 25


def test_with_a_crop_size_the_crop_scale_is_not_used() -> None:
    one, other = (module(crop_size=(16, 16), crop_scale=scale) for scale in ((0.5, 1.0), (0.1, 0.2)))
    for a, b in zip(batches(one, 4), batches(other, 4), strict=True):
        assert torch.equal(a["image"], b["image"])


# Which crop


def naive(rule: CropRule, draw: Any, label: np.ndarray) -> dict[str, Any]:
    """The published loops, spelled out."""

    def mixed() -> dict[str, Any]:
        crop: dict[str, Any] = draw()
        for _ in range(10):
            left, top, right, bottom = crop["crop_coords"]
            ids, counts = np.unique(label[top:bottom, left:right], return_counts=True)
            counts = counts[ids != 255]
            if rule.max_class_share == 1 or (len(counts) and max(counts) / sum(counts) < rule.max_class_share):
                return crop
            crop = draw()
        return crop

    crop = mixed()
    for _ in range(10 if rule.rare_class is not None else 0):
        left, top, right, bottom = crop["crop_coords"]
        if sum(v == rule.rare_class for v in label[top:bottom, left:right].ravel()) > rule.min_share * label.size:
            return crop
        crop = mixed()
    return crop


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    max_share=st.sampled_from([1.0, 0.75, 0.5, 0.4]),
    rare=st.sampled_from([None, 0, 1, 3]),
    min_share=st.sampled_from([0.0, 0.05, 0.2]),
)
def test_the_crop_is_that_of_the_published_loops(
    seed: int, max_share: float, rare: int | None, min_share: float
) -> None:
    rng = np.random.default_rng(seed)
    label = rng.choice(np.array([0, 1, 2, 255], np.uint8), (3, 3)).repeat(3, 0).repeat(3, 1)

    def draws() -> Any:
        own = np.random.default_rng(seed)
        while True:
            left, top = own.integers(0, 6, 2).tolist()
            yield {"crop_coords": (left, top, left + 3, top + 3)}

    rule = CropRule(max_share, rare, min_share)
    one, other = draws(), draws()
    assert rule.choose(lambda: next(one), label) == naive(rule, lambda: next(other), label)
    assert next(one) == next(other)  # after as many draws


def test_crops_of_one_class_are_drawn_again_but_not_without_end() -> None:
    label = np.zeros((40, 40), np.uint8)
    label[:, 30:] = 1
    image = np.zeros((40, 40, 3), np.uint8)
    transform = training_transform((40, 40), (1.0, 1.0), False, 0.0, crop_size=(10, 10))

    def rejected(limit: float, label: np.ndarray) -> float:
        """Share of the crops in which one class fills ``limit`` or more."""
        transform.set_random_seed(0)
        crops = [transform(image=image, mask=label, rule=CropRule(limit))["mask"] for _ in range(200)]
        return float(np.mean([np.bincount(crop.ravel()).max() >= 0.75 * crop.size for crop in crops]))

    once = rejected(1.0, label)
    assert once > 0.7  # the boundary lies in the middle half of a crop for 5 of 31 positions
    assert abs(rejected(0.75, label) - once ** (REDRAWS + 1)) < 0.1
    assert rejected(0.75, np.zeros_like(label)) == 1  # nothing better: the last


@pytest.mark.parametrize("labelled", [True, False])
def test_labels_choose_the_crop_of_labelled_streams_only(labelled: bool) -> None:
    stream = {"target": Stream("target", labelled)}
    one, other = (module(stream, crop_size=(12, 12), crop_max_class_share=share, **PLAIN) for share in (1.0, 0.6))
    pairs = zip(batches(one, 12, "target"), batches(other, 12, "target"), strict=True)
    assert all(torch.equal(a["image"], b["image"]) for a, b in pairs) is not labelled


# Blur


def test_blur_is_off_by_default_and_takes_half_of_the_images_at_a_half() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    label = np.random.default_rng(1).integers(0, 5, (24, 24)).astype(np.uint8)

    def spreads(blur: float) -> np.ndarray:
        transform = training_transform((24, 24), (1.0, 1.0), False, 0.0, blur=blur)
        transform.set_random_seed(0)
        results = [transform(image=noise, mask=label) for _ in range(400)]
        assert all(np.array_equal(result["mask"], label) for result in results)
        return np.array([result["image"].astype(float).std() for result in results])

    still = noise.astype(float).std()
    assert (spreads(0.0) == still).all()
    always, half = spreads(1.0), spreads(0.5)
    assert always.max() <= still and not np.isnan(always).any()
    # White noise loses the standard deviation of its sum of squared kernel weights: at sigma 1 to about 0.28 of it.
    assert 0.25 < always.min() / still < 0.32
    # A sigma of less than 2/7 of a pixel has a kernel of one pixel.
    assert abs((always < still).mean() - 5 / 7) < 0.08 and abs((half < still).mean() - 5 / 14) < 0.08


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": (33, 10)}, r"crop_size` 33 10 does not fit into source images of 32 64 .*source_size"),
        ({"crop_size": (10, 65)}, r"crop_size` 10 65 does not fit into source images"),
        ({"crop_size": (33, 10), "source_size": (40, 64)}, r"does not fit into target images of 32 64 .*target_size"),
        ({"crop_size": (0, 10)}, r"crop_size` \(height, width\) 0: expected 1 or more"),
        ({"source_size": (0, 10)}, r"source_size` \(height, width\) 0"),
        ({"target_size": (10, -1)}, r"target_size` \(height, width\) -1"),
        ({"blur": 1.5}, r"blur` 1.5: expected 0 to 1"),
        ({"crop_max_class_share": 1.2}, r"crop_max_class_share` 1.2: expected 0 to 1"),
        (
            {"crop_max_class_share": 0.75, "crop_scale": (1.0, 1.0)},
            r"crop_max_class_share` 0.75 .*set `data.crop_size`",
        ),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        tiny.data(**options)
    assert "\n" not in str(error.value)


def test_a_crop_may_be_as_large_as_the_image() -> None:
    found = module(crop_size=tiny.SIZE, crop_max_class_share=0.75, crop_scale=(1.0, 1.0))
    assert next(batches(found, 1))["image"].shape[-2:] == tiny.SIZE


def test_the_template_names_the_options_with_their_defaults() -> None:
    lines = Path(config_path("data", "folders")).read_text(encoding="utf-8").splitlines()
    shown = [re.match(r"  # (\w+): +(.+?) +# ", line) for line in lines]
    options = {match[1]: yaml.safe_load(match[2]) for match in shown if match}
    parameters = signature(DomainDataModule).parameters
    assert {"source_size", "target_size", "crop_size", "crop_max_class_share", "blur"} <= options.keys()
    for name, value in options.items():
        default = parameters[name].default
        assert value == (list(default) if isinstance(default, tuple) else default)
