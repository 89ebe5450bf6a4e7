"""Streams, order and budgets of the DataModule."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segzoo.data import Stream
from segzoo.data.sampling import EndlessBatches, derived_seed
from segzoo.data.streams import collate
from segzoo.data.workers import loader_processes
from segzoo.errors import ConfigError, DataError
from tests import tiny


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 20), batch=st.integers(1, 5), world=st.integers(1, 3), start=st.integers(0, 30))
def test_ranks_together_draw_the_batches_of_one_process(length: int, batch: int, world: int, start: int) -> None:
    whole = EndlessBatches(length, batch * world, seed=3, start=lambda: start)
    ranks = [EndlessBatches(length, batch, 3, rank, world, lambda: start) for rank in range(world)]
    for expected, *parts in islice(zip(whole, *ranks, strict=False), 4):
        assert sorted(expected) == sorted(key for part in parts for key in part)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 20), batch=st.integers(1, 5), start=st.integers(0, 30))
def test_a_later_start_is_a_continuation(length: int, batch: int, start: int) -> None:
    from_zero = list(islice(EndlessBatches(length, batch, seed=1), start + 3))
    assert list(islice(EndlessBatches(length, batch, seed=1, start=lambda: start), 3)) == from_zero[start:]


def test_every_epoch_has_every_image_once_in_another_order() -> None:
    keys = [key for batch in islice(EndlessBatches(6, 2, seed=0), 6) for key in batch]
    first, second = ([i for epoch, i in keys if epoch == e] for e in (0, 1))
    assert sorted(first) == sorted(second) == list(range(6)) and first != second


def test_derived_seeds_differ_in_every_part() -> None:
    seeds = {derived_seed(s, n, e, i) for s in (0, 1) for n in ("source", "target") for e in (0, 1) for i in (0, 1)}
    assert len(seeds) == 16 and derived_seed(0, "source", 1) == derived_seed(0, "source", 1)


@given(st.integers(2, 60), st.floats(0.05, 0.95))
def test_parts_of_a_stream_share_no_image(count: int, share: float) -> None:
    first = Stream("target", part=(0.0, share)).select(range(count))
    second = Stream("target", part=(share, 1.0)).select(range(count))
    assert sorted(first + second) == list(range(count))


def trained_with(**options: Any) -> Any:
    module = tiny.data(**options)
    slug = options.pop("slug", "joint")
    tiny.trainer(1).fit(tiny.method(slug), datamodule=module)
    return module


def test_a_budget_larger_than_the_set_is_refused() -> None:
    with pytest.raises(DataError, match=r"target_labels` 500.*8 labelled"):
        trained_with(target_labels=500)


def test_no_target_labels_is_refused_by_methods_that_need_them() -> None:
    with pytest.raises(ConfigError, match=r"target_labels` is 0.*segzoo methods"):
        trained_with(target_labels=0)


def test_published_lists_begin_at_the_first_image() -> None:
    module = trained_with(target_labels=3, labelled_order="sorted")
    names = {name for batch in islice(module.train_dataloader(), 6) for name in batch[0]["target"]["name"]}
    assert names == set(module.images("target", "train").names[:3])
    with pytest.raises(DataError, match=r"target_labels` 500.*8 labelled"):
        trained_with(target_labels=500, labelled_order="sorted")


def test_labelled_target_images_are_those_of_the_budget() -> None:
    module = trained_with(target_labels=3)
    names = {name for batch in islice(module.train_dataloader(), 6) for name in batch[0]["target"]["name"]}
    assert len(names) == 3 and module.counts()["target/labelled"] == 3


def test_labels_of_different_sizes_stay_a_list() -> None:
    samples = [{"image": torch.rand(3, 4, 4), "name": str(n), "label": torch.zeros(n, n).long()} for n in (4, 5)]
    assert [tuple(label.shape) for label in collate(samples)["label"]] == [(4, 4), (5, 5)]


def test_image_and_label_are_transformed_together() -> None:
    module = trained_with(crop_scale=(0.5, 0.6), color_jitter=0.0)
    batch = next(iter(module.train_dataloader()))[0]["source"]
    # Sky is bright and blue in the rendered source: where the label says sky, blue dominates red.
    sky = (batch["label"] == 0).unsqueeze(1).expand_as(batch["image"])
    if sky.any():
        image = batch["image"]
        blue, red = (image[:, c][sky[:, 0]].mean() for c in (2, 0))
        assert blue >= red
    assert batch["image"].shape[-2:] == batch["label"].shape[-2:] == tiny.SIZE
    assert float(batch["image"].min()) >= 0 and float(batch["image"].max()) <= 1


def test_panel_batches_are_fixed_and_unaugmented() -> None:
    module = tiny.data()
    one, two = module.panel_batch("source", 3), module.panel_batch("source", 3)
    assert torch.equal(one["image"], two["image"]) and len(one["name"]) == 3
    image = module.images("source", "train").image(0)
    np.testing.assert_allclose(one["image"][0].numpy() * 255, image.transpose(2, 0, 1), atol=0.51)


@pytest.mark.parametrize(
    ("cores", "streams", "trainings", "each"), [(16, 3, 1, 2), (16, 3, 4, 1), (2, 1, 1, 2), (2, 3, 1, 1)]
)
def test_few_cores_have_one_loader_per_stream(
    cores: int, streams: int, trainings: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert loader_processes(streams, trainings) == each
