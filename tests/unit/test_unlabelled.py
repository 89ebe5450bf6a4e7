"""Photographs that nobody labelled: which images a method sees, with and without labels, and that it reads no others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from segzoo.callbacks.opening import opening_lines
from segzoo.data import DomainDataModule, MiniCity, from_folders
from segzoo.data.domains import Domain, ImageSet, JoinedImages, Pixels, Split
from segzoo.errors import CheckpointError, ConfigError, DataError
from segzoo.losses import cross_entropy
from segzoo.methods.joint import JointTraining
from segzoo.methods.segmentation import pixel_count, valid_pixels
from tests import tiny

SIZE = (16, 24)
CLASSES = ["ground", "crack"]


class Everything(JointTraining):
    """A method with all three resources: joint training, and confidence on the unlabelled images."""

    resources = ("source", "labels", "unlabelled")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        label = batch["target"]["label"]
        target = cross_entropy(self(batch["target"]["image"]), label, pixel_count(valid_pixels(label)))
        source = cross_entropy(
            self(batch["source"]["image"]),
            batch["source"]["label"],
            pixel_count(valid_pixels(batch["source"]["label"])),
        )
        assert "label" not in batch["unlabelled"]
        return source + target + self(batch["unlabelled"]["image"]).square().mean()


class Watched(ImageSet):
    """Images whose labels of some may be read, and say which were."""

    def __init__(self, whole: ImageSet, allowed: set[int]) -> None:
        self.names, self.has_labels = whole.names, whole.has_labels
        self.whole, self.allowed, self.read = whole, allowed, set[int]()

    def image(self, index: int) -> Pixels:
        return self.whole.image(index)

    def label(self, index: int) -> Pixels:
        assert index in self.allowed, f"the label of image {index} was read"
        self.read.add(index)
        return self.whole.label(index)


class Photographs(Domain):
    """MiniCity's target with further images, of whose training labels only those of the budget may be read."""

    name = "photographs"

    def __init__(self, allowed: set[int], further: int) -> None:
        city = MiniCity("target", train=8, val=2, test=3, size=tiny.SIZE)
        self.label_space = city.label_space
        more = MiniCity("target", train=8 + further, val=2, test=3, size=tiny.SIZE).images("train", Path())
        self.train = Watched(city.images("train", Path()), allowed)
        self.city, self.more = city, Watched(JoinedImages([(more, range(8, 8 + further))]), set()) if further else None

    def images(self, split: Split, root: Path) -> ImageSet:
        return self.train if split == "train" else self.city.images(split, root)

    def unlabelled(self, root: Path) -> ImageSet | None:
        return self.more


def budget_of(count: int) -> set[int]:
    data = tiny.data(target_labels=count)
    return {int(i) for i in data._labelled_target()}


def everything() -> Everything:
    torch.manual_seed(0)
    return Everything(label_space=MiniCity("target", size=tiny.SIZE).label_space, network=tiny.NETWORK)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("further", [0, 5])
@pytest.mark.parametrize("labels", [3, 8])
def test_labels_of_exactly_the_budget_are_read(labels: int, further: int) -> None:
    target = Photographs(budget_of(labels), further)
    data = tiny.data(target=target, target_labels=labels)
    trainer = tiny.trainer(4)
    trainer.fit(everything(), datamodule=data)
    assert target.train.read == budget_of(labels)
    rest = 8 - labels + further or 8  # where there are no others, the labelled ones serve again
    assert data.counts()["target/labelled"] == labels and data.counts()["target/unlabelled"] == rest


@pytest.mark.filterwarnings("ignore")
def test_a_label_beyond_the_budget_would_be_noticed() -> None:
    target = Photographs(budget_of(3), 0)
    with pytest.raises(AssertionError, match="was read"):
        tiny.trainer(4).fit(everything(), datamodule=tiny.data(target=target, target_labels=4))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("slug", ["minent", "self-training"])
def test_methods_without_target_labels_read_none_and_see_all(slug: str) -> None:
    target = Photographs(set(), 5)
    data = tiny.data(target=target)
    tiny.trainer(2).fit(tiny.method(slug), datamodule=data)
    counts = data.counts()
    assert counts["target/unlabelled"] == 13 and "target/labelled" not in counts


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 4), max_size=4), data=st.data())
def test_joined_images_are_those_of_their_parts(sizes: list[int], data: st.DataObject) -> None:
    city = MiniCity("target", train=8, val=2, test=3, size=tiny.SIZE).images("train", Path())
    parts = [data.draw(st.lists(st.integers(0, 7), min_size=size, max_size=size)) for size in sizes]
    joined = JoinedImages([(city, part) for part in parts])
    expected = [index for part in parts for index in part]
    assert len(joined) == len(expected) and not joined.has_labels
    for position, index in enumerate(expected):
        np.testing.assert_array_equal(joined.image(position), city.image(index))


def write(folder: Path, count: int, shade: int, masks: bool = True) -> None:
    for i in range(count):
        pixels = np.full((*SIZE, 3), shade + 3 * i, np.uint8)
        labels = np.zeros(SIZE, np.uint8)
        labels[:, i % 9 : 12] = 1
        for name, content in (("image", pixels), *([("mask", labels)] if masks else [])):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(folder / name / f"{i}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "synthetic", 4, 10)
    for split, count, shade in (("train", 4, 50), ("val", 2, 90), ("test", 3, 120)):
        write(tmp_path / "photos" / split, count, shade)
    write(tmp_path / "more/of/them", 5, 160, masks=False)
    return tmp_path


def module(root: Path, **options: Any) -> DomainDataModule:
    settings = {"label_space": CLASSES, "size": SIZE, "num_workers": 0, "batch_size": 2}
    return from_folders(root / "synthetic", root / "photos", **(settings | options))


@pytest.mark.parametrize(
    ("place", "inner"), [("photos/unlabelled", "image"), ("photos/Unlabeled", "summer"), ("elsewhere", "image")]
)
def test_the_folder_is_found_beside_the_splits_or_named(root: Path, place: str, inner: str) -> None:
    assert module(root).further_images() is None
    (root / place).mkdir(parents=True)
    (root / "more/of/them/image").rename(root / place / inner)
    data = module(root, **({} if "photos" in place else {"unlabelled": root / place}))
    further = data.further_images()
    assert further is not None and len(further) == 5 and not further.has_labels
    assert [int(further.image(i)[0, 0, 0]) for i in range(5)] == [160 + 3 * i for i in range(5)]
    with pytest.raises(DataError, match="no mask"):
        further.label(0)


def test_masks_beside_unlabelled_images_are_not_taken_for_images(root: Path) -> None:
    write(root / "photos/unlabelled", 5, 160)
    further = module(root).further_images()
    assert further is not None and len(further) == 5


@pytest.mark.filterwarnings("ignore")
def test_photographs_without_a_train_split_are_enough_for_methods_without_labels(root: Path) -> None:
    for split in ("train", "val"):
        (root / "photos" / split).rename(root / split)
    with pytest.raises(DataError, match="no train/"):
        module(root)
    (root / "more").rename(root / "photos/unlabelled")
    data = module(root)
    method = tiny.method("minent")
    method = type(method)(label_space=data.label_space, network=tiny.NETWORK)
    tiny.trainer(1).fit(method, datamodule=data)
    assert data.counts() | {"source/train": 0} == {"source/train": 0, "target/train": 0, "target/unlabelled": 5}
    assert len(data.scored("test") or ()) == 3 and data.scored("val") is None
    assert data.panel_batch("target", 2)["image"].shape == (2, 3, *SIZE)
    with pytest.raises(
        ConfigError, match=r"has no train split; .*beside its other folders, or .* `data.target.split_folders`"
    ):
        tiny.trainer(1).fit(Everything(label_space=data.label_space, network=tiny.NETWORK), datamodule=module(root))


@pytest.mark.filterwarnings("ignore")
def test_the_opening_and_the_counts_say_what_is_used(root: Path) -> None:
    def line(labels: int | None, method: Any, **options: Any) -> str:
        data = module(root, target_labels=labels, **options)
        trainer = tiny.trainer(1)
        trainer.fit(method(label_space=data.label_space, network=tiny.NETWORK), datamodule=data)
        return opening_lines(trainer, trainer.lightning_module, root)[2]

    further = {"unlabelled": root / "more"}
    end = "source 4 images; target "
    assert end + "3 of 4 images labelled, 1 unlabelled" in line(3, Everything)
    assert end + "3 of 4 images labelled, 6 unlabelled" in line(3, Everything, **further)
    assert end + "4 images, 5 unlabelled" in line(None, Everything, **further)
    assert end + "4 images, the same ones without labels" in line(None, Everything)
    assert end + "9 images, without labels" in line(3, type(tiny.method("minent")), **further)
    assert end + "3 of 4 images labelled" == line(3, JointTraining, **further).partition(", ")[2]


def test_scored_images_among_the_unlabelled_ones_are_noticed(root: Path) -> None:
    (root / "more/9.png").write_bytes((root / "photos/test/image/2.png").read_bytes())
    data = module(root, unlabelled=root / "more")
    streams = Everything(label_space=data.label_space, network=tiny.NETWORK).streams
    (warning,) = data.check_labels(streams, ["val", "test"])
    assert warning.startswith("target/test and target/unlabelled share images (1 of the 3 ")
    streams = JointTraining(label_space=data.label_space, network=tiny.NETWORK).streams
    assert module(root, unlabelled=root / "more").check_labels(streams, ["val", "test"]) == []


@pytest.mark.filterwarnings("ignore")
def test_a_training_goes_on_only_with_the_same_unlabelled_images(root: Path) -> None:
    from segzoo.callbacks import SameData

    def fit(steps: int, **options: Any) -> Any:
        data = module(root, unlabelled=root / "more")
        method = Everything(label_space=data.label_space, network=tiny.NETWORK, optimizer={"schedule": "constant"})
        trainer = tiny.trainer(steps, callbacks=[SameData()])
        trainer.fit(method, datamodule=data, **options)
        return trainer

    fit(1).save_checkpoint(root / "last.ckpt")
    go_on = {"ckpt_path": root / "last.ckpt", "weights_only": True}
    assert fit(2, **go_on).global_step == 2
    (root / "more/of/them/image/4.png").unlink()
    with pytest.raises(CheckpointError, match="unlabelled target images"):
        fit(3, **go_on)


@pytest.mark.filterwarnings("ignore")
def test_a_training_sees_the_photographs_without_a_mask_among_the_others(root: Path) -> None:
    write(root / "flat", 9, 60)
    for i in range(4, 9):
        (root / f"flat/mask/{i}.png").unlink()
    data = from_folders(
        root / "synthetic",
        (root / "flat/image", root / "flat/mask"),
        label_space=CLASSES,
        size=SIZE,
        unlabelled=root / "flat",
        blocks=(0.5, 0.25, 0.25),
        num_workers=0,
        batch_size=2,
    )
    trainer = tiny.trainer(1)
    trainer.fit(Everything(label_space=data.label_space, network=tiny.NETWORK), datamodule=data)
    assert data.counts() == {"source/train": 4, "target/train": 2, "target/labelled": 2, "target/unlabelled": 5}
    further = data.further_images()
    assert further is not None and [path.stem for path in further.files] == ["4", "5", "6", "7", "8"]


def test_a_folder_for_a_domain_is_given_to_the_domain(root: Path) -> None:
    with pytest.raises(ConfigError, match="give the folder to it"):
        from_folders(
            root / "synthetic",
            MiniCity("target", size=tiny.SIZE),
            label_space=CLASSES,
            size=SIZE,
            unlabelled=root / "more",
        )
    with pytest.raises(DataError, match="nowhere does not exist"):
        module(root, unlabelled=root / "nowhere").further_images()
