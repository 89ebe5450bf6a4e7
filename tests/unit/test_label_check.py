"""The look at the labels before a training: what it refuses, what it says, and that it says nothing when all is well."""

import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image

from segzoo.data import DomainDataModule, PairedFolders, Stream
from segzoo.data.domains import Domain, ImageSet, Pixels, Split
from segzoo.data.label_spaces import LabelSpace
from segzoo.errors import ConfigError, DataError
from tests import tiny

Masks = Callable[[int], npt.NDArray[np.generic]]
CLASSES = {"background": [90, 90, 200], "crack": [255, 0, 0], "paint": [0, 255, 0]}
TWO = {"background": [90, 90, 200], "crack": [255, 0, 0]}
BOTH = {"source": Stream("source"), "target": Stream("target")}


def areas(*ids: int, shares: tuple[int, ...] = ()) -> Masks:
    """Masks of 20 x 20 pixels with these ids, each over so many rows."""
    rows = shares or tuple(20 // len(ids) for _ in ids)
    column = np.repeat(np.array(ids), rows)
    column = np.append(column, np.full(20 - len(column), ids[0]))
    return lambda _: np.repeat(column[:, None], 20, axis=1).astype(np.uint8 if max(ids) < 256 else np.uint16)


GOOD = areas(0, 1, 2)


class Written:
    """Folders of a source and a target, and their DataModule."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, masks: Masks, count: int = 3, image: Masks | None = None) -> None:
        for kind in ("image", "mask"):
            (self.root / name / kind).mkdir(parents=True)
        for i in range(count):
            mask = masks(i)
            pixels = (
                image(i)
                if image
                else np.random.default_rng([i, *name.encode()]).integers(0, 256, (*mask.shape[:2], 3), np.uint8)
            )
            Image.fromarray(mask).save(self.root / name / "mask" / f"{i}.png")
            Image.fromarray(pixels).save(self.root / name / "image" / f"{i}.png")

    def domain(
        self, name: str, classes: Mapping[str, list[int]] = CLASSES, maps: Any = None, **options: Any
    ) -> PairedFolders:
        content = {"name": "mine", "classes": dict(classes)} | ({"maps": maps} if maps else {})
        (self.root / "space.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        masks = options.pop("masks", f"{name}/mask")
        return PairedFolders(f"{name}/image", masks, str(self.root / "space.yaml"), **options)

    def data(self, source: Masks = GOOD, target: Masks = GOOD, **options: Any) -> DomainDataModule:
        self.write("source", source)
        for split in ("train", "val", "test"):
            self.write(f"target/{split}", target)
        return self.module(**options)

    def module(self, **options: Any) -> DomainDataModule:
        domains = {"source": self.domain("source", **options), "target": self.domain("target/{split}", **options)}
        return DomainDataModule(**domains, root=str(self.root), size=(32, 32), batch_size=2, num_workers=0)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def said(
    data: DomainDataModule, streams: dict[str, Stream] = BOTH, scored: tuple[Split, ...] = ("val", "test")
) -> list[str]:
    found = data.check_labels(streams, scored)
    assert not any("\n" in warning for warning in found)
    assert data.check_labels(streams, scored) == [], "once"
    return found


def refused(data: DomainDataModule, streams: dict[str, Stream] = BOTH) -> str:
    with pytest.raises(DataError) as error:
        data.check_labels(streams, ("val", "test"))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_good_labels_pass_in_silence(written: Written) -> None:
    assert said(written.data()) == []


def test_the_embedded_data_pass_in_silence() -> None:
    assert said(tiny.data()) == []


@pytest.mark.fault("foreground-of-255")
def test_a_foreground_of_255_is_named(written: Written) -> None:
    message = refused(written.data(areas(0, 255, shares=(19, 1)), areas(0, 255)))
    assert message.startswith(
        "all of source/train: the masks hold 0 and 255 (95.0 % and 5.0 % of the pixels) and nothing else"
    )
    assert "maps: {binary: {0: background, 255: crack}}" in message and "class_map to binary" in message


@pytest.mark.fault("foreground-of-255")
def test_a_foreground_of_255_is_seen_in_the_target_alone(written: Written) -> None:
    assert refused(written.data(target=areas(0, 255))).startswith("all of target/train: the masks hold 0 and 255")
    assert refused(written.module(), {"source": Stream("source")}).startswith("all of target/val: ")


@pytest.mark.fault("foreground-of-255")
def test_255_is_void_where_a_map_or_other_ids_say_so(written: Written) -> None:
    data = written.data(
        areas(0, 255), areas(0, 1, 2, 255), maps={"m": {0: "background", 255: "crack", 1: "paint", 2: "paint"}}
    )
    data = written.module(class_map="m", maps={"m": {0: "background", 1: "crack", 2: "paint", 255: "ignore"}})
    assert said(data) == [
        "all of source/train: every pixel that is not ignored is 'background' (50.0 % are ignored; the masks hold 0, 255)"
    ]
    # A split of few masks may well hold a single class, when others of the domain hold more.
    (written.root / "target/test/mask/2.png").unlink()
    (written.root / "target/test/image/2.png").unlink()
    for i in range(2):
        Image.fromarray(areas(0, 255)(i)).save(written.root / f"target/test/mask/{i}.png")
    data = written.module()
    assert said(data, {"target": Stream("target")}) == [
        "all of target/test: every pixel that is not ignored is 'background' (50.0 % are ignored; the masks hold 0, 255)"
    ]


@pytest.mark.fault("foreground-of-255")
def test_others_do_not_say_what_255_is(written: Written) -> None:
    maps = {"m": {0: "background", 1: "crack", "others": "ignore"}}
    assert "set class_map to binary" in refused(written.data(areas(0, 255), class_map="m", maps=maps))
    maps = {"m": {0: "background", 255: "ignore", "others": "ignore"}}
    assert said(written.module(class_map="m", maps=maps), {"source": Stream("source")}, ()) == [
        "all of source/train: every pixel that is not ignored is 'background' (50.0 % are ignored; the masks hold 0, 255)"
    ]


@pytest.mark.fault("foreground-of-255")
def test_a_foreground_of_255_is_seen_beside_blurred_borders(written: Written) -> None:
    maps = {"m": {0: "background", 1: "crack", "others": "ignore"}}
    message = refused(written.data(areas(0, 128, 255, shares=(17, 1, 2)), class_map="m", maps=maps, classes=TWO))
    assert "the masks hold 0, 128 and 255 (85.0 %, 5.0 % and 10.0 % of the pixels)" in message
    assert "maps: {binary: {0: background, 255: crack, others: ignore}}" in message


@pytest.mark.fault("foreground-of-255")
def test_a_foreground_of_255_is_seen_in_a_single_split(written: Written) -> None:
    data = written.data(areas(0, 1), areas(0, 1), classes=TWO)
    for i in range(3):
        Image.fromarray(areas(0, 255)(i)).save(written.root / f"target/test/mask/{i}.png")
    assert refused(data).startswith("all of target/test: the masks hold 0 and 255")
    maps = {"m": {0: "background", 1: "crack", 255: "ignore"}}
    assert len(said(written.module(class_map="m", maps=maps, classes=TWO))) == 1


@pytest.mark.fault("foreground-mixed-with-255")
def test_masks_of_which_some_store_the_foreground_as_255(written: Written) -> None:
    data = written.data(lambda i: areas(0, 255 if i else 1)(i), areas(0, 1), classes=TWO)
    (warning,) = said(data)
    assert warning.startswith(
        "source: of the masks that were looked at, 2 hold 255 and at most one class, 1 hold both classes and no 255"
    )
    maps = {"m": {0: "background", 1: "crack", 255: "ignore"}}
    assert not said(written.module(class_map="m", maps=maps, classes=TWO))
    Image.fromarray(areas(0, 1, 255)(0)).save(written.root / "source/mask/0.png")  # void beside both: it is void
    assert not said(written.module(classes=TWO))


@pytest.mark.fault("scored-on-images-of-the-training")
def test_images_that_are_trained_on_and_scored_on(written: Written) -> None:
    data = written.data()
    assert not said(data)
    shutil.copy(
        written.root / "target/train/image/1.png", written.root / "target/val/image/2.png"
    )  # under another name
    image = written.root / "target/val/image/2.png"
    twin = written.root / "target/train/image/1.png"
    assert said(written.module()) == [
        f"target/val and target/train share images (1 of the 3 that were looked at; {image} is {twin}): scores on images of "
        "the training say nothing of new ones"
    ]
    assert not said(written.module(), {"source": Stream("source")})  # not trained on
    target = written.domain("target/{split}", split_folders={"test": "train"})
    data = DomainDataModule(written.domain("source"), target, root=str(written.root), size=(32, 32))
    (warning,) = said(data, scored=("test",))
    assert warning.startswith("target/test and target/train share images (3 of the 3 ") and "is in both" in warning
    assert not said(data, scored=("test",))  # said once


@pytest.mark.fault("class-maps-of-source-and-target-differ")
def test_ids_shifted_by_one_among_many_classes(written: Written) -> None:
    """The shares of CARLA and CamVid, in twentieths."""
    classes = {f"c{i}": [i + 1, 9, 9] for i in range(6)}
    right, shifted = areas(0, 1, 2, 3, 4, shares=(5, 5, 5, 3, 2)), areas(1, 2, 3, 4, 5, shares=(2, 5, 6, 3, 4))
    warnings = said(written.data(shifted, right, classes=classes))
    assert "shifted by one id they would be more alike" in warnings[-1]
    for path in (written.root / "source/mask").iterdir():
        Image.fromarray(areas(0, 1, 2, 3, 4, shares=(2, 5, 6, 3, 4))(0)).save(path)
    assert not any("shifted" in warning for warning in said(written.module(classes=classes)))


@pytest.mark.fault("labels-all-ignored")
@pytest.mark.parametrize("name", ["source/train", "target/train", "target/val", "target/test"])
def test_labels_that_are_all_ignored_are_refused(name: str, written: Written) -> None:
    data = written.data()
    for path in (written.root / name.replace("source/train", "source") / "mask").iterdir():
        Image.fromarray(np.full((20, 20), 255, np.uint8)).save(path)
    message = refused(data)
    assert message.startswith(
        f"all of {name}: every pixel is ignored by the class_map 'identity' of the label space 'mine'"
    )
    assert "the masks hold 255, classes are 0, 1, 2" in message


@pytest.mark.fault("labels-all-ignored")
def test_a_class_map_that_fits_nothing_is_refused(written: Written) -> None:
    options = {"maps": {"m": {7: "background", 8: "crack", "others": "ignore"}}, "class_map": "m"}
    message = refused(written.data(**options))
    assert "ignored by the class_map 'm'" in message and "the masks hold 0, 1, 2, classes are 7, 8" in message


@pytest.mark.fault("labels-all-ignored")
def test_one_mask_of_void_is_no_fault(written: Written) -> None:
    assert said(written.data(lambda i: GOOD(i) if i else np.full((20, 20), 255, np.uint8))) == []


@pytest.mark.fault("class-never-occurs")
def test_a_class_that_never_occurs_is_named(written: Written) -> None:
    assert said(written.data(areas(0, 1, shares=(15, 5)), areas(0, 2, shares=(15, 5)))) == [
        "all of source/train: no pixel is 'paint'",
        "all of target/train: no pixel is 'crack'",
        "all of target/val: no pixel is 'crack'",
        "all of target/test: no pixel is 'crack'",
    ]


@pytest.mark.fault("class-never-occurs")
def test_a_rare_class_is_looked_for_in_more_masks() -> None:
    read: list[int] = []

    class Rare(ImageSet):
        names = tuple(str(i) for i in range(1000))

        def image(self, index: int) -> Pixels:
            return np.zeros((4, 4, 3), np.uint8)

        def label(self, index: int) -> Pixels:
            read.append(index)
            return np.full((4, 4), 2 if index == 1000 * 3 // 256 else index % 2, np.uint8)

    class Everywhere(Domain):
        name, label_space = "rare", LabelSpace("s", ("a", "b", "c"), ((1, 0, 0), (2, 0, 0), (3, 0, 0)))

        def images(self, split: Split, root: Path) -> ImageSet:
            return Rare()

    data = DomainDataModule(Everywhere(), Everywhere())
    assert said(data, {"source": Stream("source")}, ()) == [], (
        "the one image with the class 'c' is in the larger sample"
    )
    assert len(set(read)) < 64 + 256


@pytest.mark.fault("one-class-above-99-percent")
def test_one_class_of_nearly_all_pixels_is_named(written: Written) -> None:
    def nearly(_: int) -> npt.NDArray[np.uint8]:
        mask = np.zeros((20, 20), np.uint8)
        mask[0, :2] = 1, 2
        return mask

    found = said(written.data(nearly), {"source": Stream("source")}, ())
    assert found == ["all of source/train: 99.50 % of the labelled pixels are 'background'"]


@pytest.mark.fault("class-maps-of-source-and-target-differ")
def test_shares_that_cannot_be_of_the_same_classes_stand_side_by_side(written: Written) -> None:
    (found,) = said(written.data(areas(0, 1, 2, shares=(14, 4, 2)), areas(1, 2, 0, shares=(14, 4, 2))))
    assert "'background' 70.0 % and 10.0 %, 'crack' 20.0 % and 70.0 %" in found and "shifted by one id" in found


@pytest.mark.fault("photographs-as-masks")
def test_photographs_given_as_masks_are_refused(written: Written) -> None:
    options: dict[str, Any] = {
        "maps": {"m": {0: "background", 1: "crack", 2: "paint", "others": "ignore"}},
        "class_map": "m",
    }
    grey = lambda i: np.random.default_rng(i).integers(0, 256, (20, 20), np.uint8)  # noqa: E731
    assert "different ids, as photographs do" in refused(written.data(grey, **options))


@pytest.mark.fault("photographs-as-masks")
def test_a_copy_of_the_images_is_no_mask(written: Written) -> None:
    written.write("source", GOOD, image=GOOD)
    for split in ("train", "val", "test"):
        written.write(f"target/{split}", GOOD)
    assert "the mask of '0' is its image" in refused(written.module())


@pytest.mark.fault("ids-above-255")
def test_ids_above_255_are_classes_when_the_map_lists_them(written: Written) -> None:
    masks = areas(0, 300, 65535)
    assert "unknown label id 300" in refused(written.data(masks, masks, class_map="m", maps={"m": {0: "background"}}))
    maps = {"m": {0: "background", 300: "crack", 65535: "paint"}}
    data = written.module(class_map="m", maps=maps)
    assert said(data) == []
    assert np.unique(data.images("source", "train").label(0)).tolist() == [0, 1, 2]


def test_labels_outside_the_budget_stay_unread(written: Written) -> None:
    data = written.data()
    (written.root / "target/train/mask/0.png").write_bytes(b"broken")
    assert said(data, {"source": Stream("source"), "target": Stream("target", labelled=False)}) == []
    data = written.module()
    data.target_labels, data.labelled_order = 2, "sorted"
    assert "target/train/mask/0.png" in refused(data)
    data.target_labels = 0
    assert said(data) == []


@pytest.mark.fault("labels-checked-by-every-trainer")
@pytest.mark.parametrize("slug", ["joint", "target-only", "metapix", "maxsquare"])
def test_a_plain_trainer_looks_too(slug: str, written: Written) -> None:
    data = written.data(areas(255), areas(255))
    with pytest.raises(DataError, match="every pixel is ignored"):
        tiny.trainer(1).fit(tiny.method(slug), datamodule=data)


@pytest.mark.fault("labels-checked-by-every-trainer")
def test_a_plain_trainer_warns_and_tests_after_a_look(written: Written) -> None:
    data = written.data(areas(0, 1))
    module = tiny.method("source-only")
    with pytest.warns(UserWarning, match="all of source/train: no pixel is 'paint'"):
        tiny.trainer(1).fit(module, datamodule=data)
    for path in (written.root / "target/test/mask").iterdir():
        Image.fromarray(np.full((20, 20), 255, np.uint8)).save(path)
    with pytest.raises(DataError, match="all of target/test: every pixel is ignored"):
        tiny.trainer(1).test(module, datamodule=data, verbose=False)


@pytest.mark.fault("no-split-to-score")
def test_one_folder_of_photographs_is_train(written: Written) -> None:
    written.write("source", GOOD)
    written.write("photos", GOOD)
    target = written.domain("photos", masks=None)
    data = DomainDataModule(written.domain("source"), target, root=str(written.root), size=(32, 32), num_workers=0)
    module = tiny.method("maxsquare")
    trainer = tiny.trainer(2, limit_val_batches=1.0, val_check_interval=1, check_val_every_n_epoch=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=data)
    assert trainer.global_step == 2 and data.counts()["target/train"] == 3
    batch = data.panel_batch("target")
    assert batch["name"] == ["0", "1", "2"] and "label" not in batch
    for run in (trainer.test, trainer.validate):
        with pytest.raises(
            ConfigError, match=r"the target has no (test|val) split .* to score against; use `segzoo predict`"
        ):
            run(module, datamodule=data, verbose=False)


@pytest.mark.fault("label-space-of-one-class")
def test_one_class_is_none(written: Written) -> None:
    with pytest.raises(
        ConfigError, match="has the one class 'crack', and there is nothing to tell it from; add the background"
    ):
        written.data(areas(0), areas(0), classes={"crack": [255, 0, 0]})


@pytest.mark.fault("images-of-12-bits")
def test_images_without_labels_are_looked_at_too(written: Written) -> None:
    data = written.data()
    for path in (written.root / "target/train/image").iterdir():
        Image.fromarray(np.full((20, 20), 4095, np.uint16)).save(path)
    assert "target/train/image are dark" in refused(data, {"target": Stream("target", labelled=False)})


def test_looking_draws_nothing(written: Written) -> None:
    data = written.data()
    L.seed_everything(3, verbose=False)
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    said(data)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]
