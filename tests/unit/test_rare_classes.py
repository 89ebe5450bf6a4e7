"""Rare-class sampling: the formula, the draws, and the counts of label pixels that both rest on."""

import math
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segzoo.data import DomainDataModule, ImageSet, MiniCity, PairedFolders, Stream
from segzoo.data.class_counts import ClassCounts, class_counts
from segzoo.data.domains import Split
from segzoo.data.folders import FolderImages
from segzoo.data.rare_classes import RareClassBatches, rare_class_probabilities
from segzoo.errors import ConfigError, DataError
from tests import tiny

# Pixel frequencies in percent of the Cityscapes training labels, in the order of the train ids.
CITYSCAPES = [
    36.869,
    6.085,
    22.824,
    0.655,
    0.877,
    1.227,
    0.207,
    0.551,
    15.926,
    1.157,
    4.018,
    1.218,
    0.135,
    6.995,
    0.268,
]
CITYSCAPES += [0.235, 0.233, 0.098, 0.414]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Labels(ImageSet):
    """Given labels, and black images if any may be read."""

    def __init__(self, labels: list[np.ndarray], images: bool = True) -> None:
        self.labels, self.images, self.read = labels, images, Counter[int]()
        self.names = [str(i) for i in range(len(labels))]

    def image(self, index: int) -> np.ndarray:
        assert self.images, "counting reads no image"
        return np.zeros((*self.labels[index].shape, 3), np.uint8)

    def label(self, index: int) -> np.ndarray:
        self.read[index] += 1
        return self.labels[index]


class LabelDomain(MiniCity):
    """A source domain of given labels."""

    def __init__(self, labels: list[np.ndarray]) -> None:
        super().__init__("source")
        self.labels = labels

    def images(self, split: Split, root: Path) -> Any:
        return Labels(self.labels)


def counted(rows: list[list[int]], size: int = 100) -> ClassCounts:
    return ClassCounts(np.array(rows, np.int64), np.full(len(rows), size, np.int64))


def keys(batches: RareClassBatches, count: int) -> list[Any]:
    return [key for batch in islice(batches, count) for key in batch]


# The formula


def test_probabilities_of_the_cityscapes_classes() -> None:
    p = rare_class_probabilities(np.array(CITYSCAPES) / 100, 0.01)
    rarest = {17: 0.113, 12: 0.109, 6: 0.101, 16: 0.099, 15: 0.098}  # motorcycle, rider, light, train, bus
    np.testing.assert_allclose(p[list(rarest)], list(rarest.values()), atol=0.0006)
    assert sorted(np.argsort(p)[-5:]) == sorted(rarest) and max(p[[0, 2, 8]]) < 1e-6  # road, building, vegetation


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8).filter(any), st.floats(1e-2, 10))
def test_probabilities_are_those_of_a_plain_loop(pixels: list[int], temperature: float) -> None:
    f = [n / sum(pixels) for n in pixels]
    weights = [math.exp((1 - one) / temperature) if one > 0 else 0.0 for one in f]
    expected = [w / math.fsum(weights) for w in weights]
    np.testing.assert_allclose(rare_class_probabilities(np.array(f), temperature), expected, rtol=1e-9, atol=1e-300)


def test_a_tiny_temperature_takes_the_rarest_class_and_does_not_overflow() -> None:
    with np.errstate(all="raise", under="ignore"):
        p = rare_class_probabilities(np.array([0.7, 0.0, 0.1, 0.2]), 1e-5)
    assert p.tolist() == [0, 0, 1, 0]


# The draws


def test_classes_and_images_are_drawn_as_often_as_their_probabilities() -> None:
    counts = counted([[60, 5, 0], [0, 20, 3], [70, 0, 2], [50, 40, 0]])
    batches = RareClassBatches(counts, temperature=0.5, min_share=0.1, batch_size=100, seed=3)
    drawn = keys(batches, 60)
    p = rare_class_probabilities(counts.frequencies, 0.5)
    # Above 10 of 100 pixels: class 0 in images 0, 2, 3; class 1 in 1 and 3; class 2 in none, so in all that have it.
    expected = {(c, i): p[c] / len(images) for c, images in enumerate([(0, 2, 3), (1, 3), (1, 2)]) for i in images}
    found = Counter((c, i) for _, i, c in drawn)
    assert found.keys() == expected.keys()
    for pair, share in expected.items():
        assert abs(found[pair] / len(drawn) - share) < 4 * math.sqrt(share / len(drawn))
    # Neighbours are independent: two are alike as often as chance has it.
    alike = np.mean([one[1:] == following[1:] for one, following in pairwise(drawn)])
    assert abs(alike - sum(share**2 for share in expected.values())) < 0.03


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=3), min_size=1, max_size=6).filter(
        lambda rows: any(map(any, rows))
    ),
    share=st.floats(0, 0.4),
)
def test_an_image_is_only_drawn_for_a_class_that_it_holds_enough_of(rows: list[list[int]], share: float) -> None:
    for _, position, chosen in keys(RareClassBatches(counted(rows), 0.05, share, 5, seed=1), 8):
        column = [row[chosen] for row in rows]
        assert column[position] > (share * 100 if max(column) > share * 100 else 0)


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 4), world=st.integers(1, 3), start=st.integers(0, 20))
def test_ranks_interleave_and_a_later_start_is_a_continuation(batch: int, world: int, start: int) -> None:
    def batches(size: int, *place: Any) -> RareClassBatches:
        return RareClassBatches(counted([[9, 1, 0], [2, 5, 3], [4, 4, 1]]), 0.1, 0.0, size, 7, *place)

    draws = keys(batches(1), (start + 3) * batch * world)
    assert [draw for draw, _, _ in draws] == list(range(len(draws)))
    for rank in range(world):
        for t, found in enumerate(islice(batches(batch, rank, world, lambda: start), 3), start):
            first = t * batch * world
            assert found == draws[first + rank : first + batch * world : world]


def test_images_without_a_labelled_pixel_are_refused() -> None:
    with pytest.raises(DataError, match="no labelled pixel in 2 images"):
        RareClassBatches(counted([[0, 0], [0, 0]]), 0.01, 0.0, 1, seed=0)


def test_a_stream_that_is_drawn_by_class_needs_labels() -> None:
    with pytest.raises(ConfigError, match="target images needs their labels"):
        Stream("target", labelled=False, by_class=True)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("rare_class_temperature", 0.0, "1e-09 or more"),
        ("rare_class_temperature", math.nan, "1e-09 or more"),
        ("rare_class_min_share", 1.5, "0 to 1"),
        ("rare_class_min_crop_ratio", -1.0, "0 or more"),
        ("ignore_top", -1, "0 or more"),
        ("ignore_bottom", -1, "0 or more"),
    ],
)
def test_options_outside_their_range_are_refused(option: str, value: float, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"`data.{option}` {value}: expected {expected}"):
        tiny.data(**{option: value})


# The DataModule


def loader(stream: Stream, rank: int = 0, world: int = 1, start: int = 0, **options: Any) -> Any:
    """The training loader of one stream on one of several ranks."""
    module: DomainDataModule = tiny.data(**options)
    used = SimpleNamespace(total=SimpleNamespace(processed=start))
    module.trainer = SimpleNamespace(  # type: ignore[assignment]
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=used)),
        overfit_batches=0,
        global_rank=rank,
        world_size=world,
        is_global_zero=rank == 0,
        lightning_module=SimpleNamespace(streams={"source": stream}),
        num_devices=1,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        _accelerator_connector=SimpleNamespace(use_distributed_sampler=False),
    )
    return module.train_dataloader().iterables["source"]


RARE = Stream("source", by_class=True)


def images(batches: Any, count: int) -> torch.Tensor:
    return torch.stack([batch["image"] for batch in islice(batches, count)])


def test_neither_ranks_nor_workers_nor_resuming_change_the_images() -> None:
    whole = images(loader(RARE, batch_size=2), 6)
    ranks = [images(loader(RARE, rank, 2, batch_size=1), 6)[:, 0] for rank in (0, 1)]
    assert torch.equal(whole, torch.stack(ranks, dim=1))
    assert torch.equal(whole[4:], images(loader(RARE, start=4, batch_size=2), 2))
    assert torch.equal(whole[:3], images(loader(RARE, batch_size=2, num_workers=2), 3))
    assert not torch.equal(whole, images(loader(RARE, batch_size=2, seed=1), 6))


def test_an_image_that_is_drawn_again_is_cropped_anew() -> None:
    city = MiniCity("source", train=1, size=tiny.SIZE)
    crops = images(loader(RARE, source=city, batch_size=1, crop_size=(16, 16), color_jitter=0.0, flip=False), 12)
    assert len({crop.numpy().tobytes() for crop in crops}) > 8


@pytest.mark.parametrize("crop", [{"crop_size": (16, 16)}, {"crop_scale": (0.1, 0.2)}])
def test_crops_hold_the_class_they_were_drawn_for(crop: dict[str, Any]) -> None:
    """One image, and a class that fills two of its 1024 patches of 2x2 pixels: few random crops hold it."""
    label = np.zeros((64, 64), np.uint8)
    label[40:42, 50:54] = 3
    options = {"source": LabelDomain([label]), "size": (64, 64), "batch_size": 50, "color_jitter": 0.0} | crop

    def share(stream: Stream, **rule: float) -> float:
        batch = next(iter(loader(stream, **options, **rule)))
        return float((batch["label"] == 3).flatten(1).any(dim=1).float().mean())

    once = share(Stream("source"))
    sampled = share(RARE, rare_class_temperature=0.001)
    blind = share(RARE, rare_class_temperature=0.001, rare_class_min_share=0.9, rare_class_min_crop_ratio=1.1)
    assert 0 < once < 0.35
    # Eleven draws find it unless all miss: 1 - (1 - p)^11. A demand that no crop can meet leaves the last draw.
    assert abs(sampled - (1 - (1 - once) ** 11)) < 0.2
    assert abs(blind - once) < 0.2


def test_whole_images_of_a_class_are_not_cropped() -> None:
    whole = Stream("source", whole=True, by_class=True)
    batch = next(iter(loader(whole, crop_size=(8, 8))))
    assert batch["image"].shape[-2:] == batch["label"].shape[-2:] == tiny.SIZE


def test_without_a_temperature_all_images_are_drawn_alike() -> None:
    alike = images(loader(RARE, batch_size=2, rare_class_temperature=None), 4)
    assert torch.equal(alike, images(loader(Stream("source"), batch_size=2), 4))
    assert not torch.equal(alike, images(loader(RARE, batch_size=2), 4))


def test_labels_that_are_not_drawn_by_class_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segzoo.data.order.class_counts", lambda *_, **__: pytest.fail("counted"))
    assert len(images(loader(Stream("source"), batch_size=2), 1)) == 1


# The counts


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 5))
def test_counts_are_those_of_a_plain_loop(seed: int, number: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels = [rng.choice([*range(7), 255], size=rng.integers(1, 9, 2)).astype(np.uint8) for _ in range(number)]
    chosen = rng.permutation(number)[: rng.integers(1, number + 1)].tolist()
    images = Labels(labels, images=False)
    found = class_counts(images, chosen, classes)
    assert found.counts.tolist() == [[int((labels[i] == c).sum()) for c in range(classes)] for i in chosen]
    assert found.sizes.tolist() == [labels[i].size for i in chosen] and found.counts.dtype == np.int64
    assert images.read == Counter(chosen)  # a label outside the budget stays unread
    total = max(found.counts.sum(), 1)
    np.testing.assert_allclose(found.frequencies, [found.counts[:, c].sum() / total for c in range(classes)])


def folders(root: Path, class_map: str = "camvid11") -> PairedFolders:
    for number in range(3):
        for kind, content in (("images", np.zeros((4, 5, 3), np.uint8)), ("masks", np.full((4, 5), number, np.uint8))):
            path = root / kind / f"{number}.png"
            path.parent.mkdir(exist_ok=True, parents=True)
            if not path.exists():
                Image.fromarray(content).save(path)
    return PairedFolders("images", "masks", label_space="camvid10", class_map=class_map)


def spied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indices of the labels that are read from now on."""
    read: list[int] = []
    label = FolderImages.label
    monkeypatch.setattr(FolderImages, "label", lambda self, index: (read.append(index), label(self, index))[1])
    return read


def test_counts_of_folders_are_kept(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = spied(monkeypatch)
    first = class_counts(folders(tmp_path).images("train", tmp_path), [0, 1, 2], 10)
    assert sorted(read) == [0, 1, 2] and first.counts[2].tolist() == [0, 0, 20, 0, 0, 0, 0, 0, 0, 0]
    again = class_counts(folders(tmp_path).images("train", tmp_path), [0, 1, 2], 10)
    np.testing.assert_array_equal(first.counts, again.counts)
    np.testing.assert_array_equal(first.sizes, again.sizes)
    assert len(read) == 3 and [path.suffix for path in (own_cache / "class-counts").iterdir()] == [".npz"]
    # Another choice of images, number of classes, class map: counted anew.
    for chosen in ([2, 1, 0], [1, 2]):
        found = class_counts(folders(tmp_path).images("train", tmp_path), chosen, 10)
        assert found.counts.argmax(axis=1).tolist() == chosen
    assert class_counts(folders(tmp_path).images("train", tmp_path), [0, 1, 2], 2).counts.tolist()[2] == [0, 0]
    class_counts(folders(tmp_path, "identity").images("train", tmp_path), [0, 1, 2], 10)
    assert len(read) == 14
    # So is a set of which one mask changed, even one of the same length.
    mask = tmp_path / "masks/1.png"
    Image.fromarray(np.full((4, 5), 7, np.uint8)).save(mask)
    os.utime(mask, ns=(0, mask.stat().st_mtime_ns + 1))
    assert class_counts(folders(tmp_path).images("train", tmp_path), [0, 1, 2], 10).counts[1, 7] == 20


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_cache_is_counted_anew(tmp_path: Path, own_cache: Path, damage: str) -> None:
    found = folders(tmp_path).images("train", tmp_path)
    first = class_counts(found, [0, 1, 2], 10)
    (path,) = (own_cache / "class-counts").iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 3
    flipped = whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 64]) + whole[middle + 64 :]
    contents = {"cut": whole[: len(whole) // 2], "flipped": flipped, "empty": b""}
    if damage == "other":  # a sound file of another number of images
        np.savez(path, counts=first.counts[:2], sizes=first.sizes[:2])
    else:
        path.write_bytes(contents[damage])
    np.testing.assert_array_equal(class_counts(found, [0, 1, 2], 10).counts, first.counts)
    with np.load(path) as stored:
        np.testing.assert_array_equal(stored["counts"], first.counts)


def test_several_may_write_the_cache_at_once(tmp_path: Path, own_cache: Path) -> None:
    found = folders(tmp_path).images("train", tmp_path)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: class_counts(found, [0, 1, 2], 10).counts.tolist(), range(16)))
    assert all(result == results[0] for result in results)
    assert len(list((own_cache / "class-counts").iterdir())) == 1  # and nothing half-written is left


def test_a_cache_that_cannot_be_written_only_warns(tmp_path: Path, own_cache: Path) -> None:
    own_cache.write_text("in the way")
    with pytest.warns(UserWarning, match="class counts.*SEGZOO_CACHE"):
        assert class_counts(folders(tmp_path).images("train", tmp_path), [0], 10).sizes.tolist() == [20]


def test_what_has_no_fingerprint_is_not_kept(tmp_path: Path, own_cache: Path) -> None:
    class_counts(Labels([np.zeros((2, 2), np.uint8)]), [0], 3)
    assert not own_cache.exists()
    assert folders(tmp_path).images("train", tmp_path).fingerprint() is not None
    unlabelled = PairedFolders("images", None, label_space="camvid10").images("train", tmp_path)
    assert unlabelled.fingerprint() is None


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    domain = folders(tmp_path)
    mask = tmp_path / "masks/1.png"
    mask.unlink()
    mask.symlink_to(tmp_path / "nowhere.png")
    found = domain.images("train", tmp_path)
    assert found.fingerprint() is None
    with pytest.raises(DataError, match=r"masks/1\.png"):
        class_counts(found, [0, 1, 2], 10)
