"""`segzoo.data.from_folders`: layouts that are found, and what is said where none is."""

import inspect
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from PIL import Image

from segzoo.data import DomainDataModule, MiniCity, from_folders
from segzoo.data.layouts import find_layout
from segzoo.data.two_folders import DataOptions
from segzoo.errors import ConfigError, DataError
from tests import tiny

CLASSES = ["ground", "crack"]
SIZE = (16, 24)


def write(folder: Path, count: int = 4, ids: tuple[int, int] = (0, 1)) -> None:
    """Images below ``folder``, whose name is that of images, and masks in the folder of masks that belongs to it."""
    masks = Path(str(folder).replace("images", "masks").replace("Image", "Label"))
    for i in range(count):
        for path, pixels in (
            (folder, np.full((*SIZE, 3), 20 * i, np.uint8)),
            (masks, np.full(SIZE, ids[i % 2], np.uint8)),
        ):
            path.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path / f"{i}.png")


def module(source: Any, target: Any, **options: Any) -> DomainDataModule:
    return from_folders(source, target, **({"label_space": CLASSES, "size": SIZE, "num_workers": 0} | options))


@pytest.mark.parametrize(
    ("folders", "masks"),
    [
        (["{}/images"], True),
        (["images/{}"], True),
        (["{}/Image"], True),
        (["{}"], False),
    ],
)
def test_a_folder_for_every_split_is_found(tmp_path: Path, folders: list[str], masks: bool) -> None:
    write(tmp_path / "synthetic" / "images")
    for split, count in (("train", 4), ("valid", 2), ("Test", 3)):
        for folder in folders:
            write(tmp_path / "photos" / folder.format(split), count)
    data = module(tmp_path / "synthetic", str(tmp_path / "photos"))
    assert data.name == "synthetic_to_photos" and data.label_space.classes == ("ground", "crack")
    assert len(data.images("source", "train")) == 4 and data.images("source", "train").has_labels
    assert len(data.images("target", "train")) == 4
    for split, count in (("val", 2), ("test", 3)):
        scored = data.scored(split)  # type: ignore[arg-type]
        assert (scored is not None) == masks
        assert len(data.images("target", split)) == count  # type: ignore[arg-type]


def test_splits_that_are_not_there_are_no_mistake(tmp_path: Path) -> None:
    write(tmp_path / "synthetic" / "images")
    write(tmp_path / "photos" / "train" / "images")
    data = module(tmp_path / "synthetic", tmp_path / "photos")
    assert data.scored("val") is None and data.lacking("test").startswith("the target has no test split")


def test_splits_may_be_without_masks(tmp_path: Path) -> None:
    write(tmp_path / "synthetic" / "images")
    write(tmp_path / "photos" / "train" / "images")
    write(tmp_path / "photos" / "test" / "images", 2)
    for mask in (tmp_path / "photos" / "train" / "masks").iterdir():
        mask.unlink()
    (tmp_path / "photos" / "train" / "masks").rmdir()
    data = module(tmp_path / "synthetic", tmp_path / "photos")
    assert not data.images("target", "train").has_labels and len(data.scored("test") or ()) == 2


def test_one_folder_is_divided_by_blocks(tmp_path: Path) -> None:
    write(tmp_path / "synthetic" / "images")
    write(tmp_path / "photos" / "images", 10)
    data = module(tmp_path / "synthetic", tmp_path / "photos", blocks=(0.5, 0.2, 0.3), target_labels=2)
    assert [list(data.images("target", split).names) for split in ("train", "val", "test")] == [  # type: ignore[arg-type]
        ["0", "1", "2", "3", "4"],
        ["5", "6"],
        ["7", "8", "9"],
    ]
    assert data.target_labels == 2
    unscored = module(tmp_path / "synthetic", tmp_path / "photos", blocks=(1, 0, 0))
    assert unscored.scored("test") is None and len(unscored.images("target", "train")) == 10
    pair = tmp_path / "photos" / "images", tmp_path / "photos" / "masks"
    for target in (tmp_path / "photos", pair):
        with pytest.raises(ConfigError, match="are in one folder: give `blocks`"):
            module(tmp_path / "synthetic", target)


def test_pairs_of_folders(tmp_path: Path) -> None:
    write(tmp_path / "a" / "images")
    write(tmp_path / "b" / "images", 6)
    images = str(tmp_path / "b" / "images")
    data = module((tmp_path / "a" / "images", str(tmp_path / "a" / "masks")), (images, None))
    assert data.images("source", "train").has_labels and not data.images("target", "train").has_labels
    assert data.scored("test") is None
    for split in ("train", "test"):
        write(tmp_path / "c" / split / "images", 2)
    by_split = tuple(str(tmp_path / "c" / "{split}" / kind) for kind in ("images", "masks"))
    assert len(module(tmp_path / "a", by_split).scored("test") or ()) == 2


def test_masks_may_hold_other_ids(tmp_path: Path) -> None:
    write(tmp_path / "a" / "images")
    write(tmp_path / "b" / "images", ids=(0, 255))
    options = {"blocks": (0.5, 0, 0.5), "target_map": {0: "ground", 255: "crack"}}
    data = module(tmp_path / "a", tmp_path / "b", **options)
    assert [data.images("target", "train").label(i).max() for i in range(2)] == [0, 1]
    assert [data.images("source", "train").label(i).max() for i in range(2)] == [0, 1]
    with pytest.raises(ConfigError, match="target_map: unknown class 'crock'"):
        module(tmp_path / "a", tmp_path / "b", blocks=(1, 0, 0), target_map={0: "crock"})


def test_the_working_directory_and_other_domains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "photos" / "train" / "images")
    monkeypatch.chdir(tmp_path)
    data = module(MiniCity("source", 8, 2, 3, size=tiny.SIZE), "photos", label_space="minicity")
    monkeypatch.chdir("/")
    assert len(data.images("target", "train").image(0)) == SIZE[0] and data.label_space.name == "minicity"


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ([], r"synthetic does not exist; expected images/ and masks/; or train/, val/ and test/ with these two"),
        (["synthetic/"], r"synthetic holds nothing; expected images/ and masks/"),
        (
            ["synthetic/pictures/0.png", "synthetic/notes.txt"],
            r"synthetic holds notes.txt, pictures/; expected images/",
        ),
        (["synthetic/val/images/0.png"], r"synthetic holds val/, and no train/ beside val/"),
        (
            ["synthetic/train/pictures/0.png"],
            r"train holds pictures/; expected images/ and masks/, or image files alone",
        ),
        (["synthetic/images/0.png", "synthetic/masks/"], r"no masks in .*synthetic/masks: expected files of type .png"),
        (["synthetic/images/0.png", "synthetic/masks/1.png"], r"the image .*images/0.png has no mask: expected"),
    ],
)
def test_what_was_looked_for_and_what_was_found(tmp_path: Path, there: list[str], message: str) -> None:
    write(tmp_path / "photos" / "train" / "images")
    for name in there:
        path = tmp_path / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"")
    with pytest.raises(DataError, match=message):
        module(tmp_path / "synthetic", tmp_path / "photos")


def test_folders_of_labelled_photographs_are_those_of_the_training(tmp_path: Path) -> None:
    for name in ("labelled/img", "labelled/seg", "validation/img", "test/img"):
        write(tmp_path / name)
    layout = find_layout(tmp_path)
    assert layout.splits == {"train": "labelled", "val": "validation", "test": "test"} and not layout.said
    assert layout.masks == f"{tmp_path}/{{split}}/seg" and layout.without_masks == ("val", "test")


@pytest.mark.parametrize(("images", "pattern"), [("train/images", "{}/images"), ("images/train", "images/{}")])
def test_a_folder_of_images_whose_name_says_no_split_is_named(tmp_path: Path, images: str, pattern: str) -> None:
    write(tmp_path / images)
    for name in ("some more", "unlabelled", ".cache"):
        write(tmp_path / pattern.format(name))
    (tmp_path / "notes").mkdir()
    with pytest.warns(UserWarning, match=r"not used, as the name says no split: .*some more.*; .*train, labelled, val"):
        module(tmp_path, tmp_path)
    assert find_layout(tmp_path).unused == (str(tmp_path / pattern.format("some more")),)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.zip is a file; expected"):
        find_layout(tmp_path / "a.zip")


@pytest.mark.parametrize(
    "classes", [["ground", 3], ["ground", "ignore"], ["ground", " "], ["ground", "ground"], ["ground"]]
)
def test_names_of_classes(tmp_path: Path, classes: list[Any]) -> None:
    write(tmp_path / "a" / "images")
    with pytest.raises(ConfigError, match=r"names of classes|distinct class names|has the one class"):
        module(tmp_path / "a", tmp_path / "a", label_space=classes, blocks=(1, 0, 0))


def test_classes_by_name_have_colours_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "a" / "images")
    names = [f"c{i}" for i in range(255)]
    palette = module(tmp_path / "a", tmp_path / "a", label_space=names, blocks=(1, 0, 0)).label_space.palette
    assert len(set(palette)) == 255 and (0, 0, 0) not in palette and palette[:2] == ((0, 0, 255), (0, 255, 0))


def test_every_option_of_the_data_module_can_be_given() -> None:
    own = inspect.signature(from_folders).parameters
    full = inspect.signature(DomainDataModule).parameters
    others = set(full) - set(own) - {"root"}
    assert set(DataOptions.__annotations__) == others
    hints = get_type_hints(DomainDataModule.__init__)
    for name, kind in get_type_hints(DataOptions).items():
        assert kind == hints[name], name
    for name in ("size", "target_labels", "batch_size", "num_workers", "seed"):
        assert get_type_hints(from_folders)[name] == hints[name]
        assert name == "size" or own[name].default == full[name].default
