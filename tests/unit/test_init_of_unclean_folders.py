"""`segzoo data init` on folders as people have them: images and masks side by side, few images, empty and broken ones."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segzoo.data.folders import PairedFolders
from segzoo.data.layouts import Layout
from segzoo.data.splits import time_blocks
from segzoo.dataprep.describe import Found, data_yaml, said_of_splits
from segzoo.dataprep.mask_kinds import what_is_stored
from segzoo.dataprep.places import Pairs, find_places, pair_files
from segzoo.errors import DataError
from segzoo.yaml_files import parse_yaml


def write(path: Path, mask: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ones((2, 3) if mask else (2, 3, 3), np.uint8)).save(path)
    return path


def side_by_side(folder: Path, image: str, mask: str, count: int = 3) -> None:
    for i in range(count):
        write(folder / image.format(i))
        write(folder / mask.format(i), mask=True)


@pytest.mark.fault("images-and-masks-side-by-side")
@pytest.mark.parametrize(
    ("image", "mask", "ends"),
    [
        ("img {}.JPG", "img {}_mask.png", ("", "_mask")),
        ("{}.png", "{}_mask.png", ("", "_mask")),
        ("{}_rgb.png", "{}_ids.png", ("rgb", "ids")),
        ("{}_image.png", "{}_mask.png", ("image", "mask")),
        ("a/{}.png", "a/{}-seg.png", ("", "-seg")),
        ("{}.png", "{}_b.png", ("", "_b")),
    ],
)
def test_images_and_masks_side_by_side(image: str, mask: str, ends: tuple[str, str], tmp_path: Path) -> None:
    side_by_side(tmp_path, image, mask)
    pairs = pair_files(find_places(tmp_path, tmp_path))
    assert pairs.count == len(pairs.masks) == 3 and not pairs.unpaired
    assert (pairs.image_suffix.lstrip("_"), pairs.mask_suffix.lstrip("_")) == tuple(end.lstrip("_") for end in ends)
    assert all(image is not None and image != mask for image, mask in pairs.files["train"])
    read = PairedFolders(".", ".", "minicity", image_suffix=pairs.image_suffix, mask_suffix=pairs.mask_suffix).images(
        "train", tmp_path
    )
    assert len(read) == 3
    assert list(zip(read.files, read.mask_files, strict=True)) == list(pairs.files["train"])


@pytest.mark.parametrize("splits", [("",), ("train", "val")])
def test_masks_among_the_images_are_found_by_their_names(splits: tuple[str, ...], tmp_path: Path) -> None:
    for split in splits:
        side_by_side(tmp_path / split, "{}.jpg", "{}_Mask.png")
    pairs = pair_files(find_places(tmp_path, None))
    assert pairs.count == len(pairs.masks) == 3 * len(splits)
    write(tmp_path / splits[0] / "another.jpg")
    assert not pair_files(find_places(tmp_path, None)).masks, "not each second file is a mask: photographs"


def test_a_folder_for_every_image_is_refused(tmp_path: Path) -> None:
    side_by_side(tmp_path, "{}/img.jpg", "{}/mask.png")
    with pytest.raises(
        DataError, match="every image has a folder of its own, in which it is called 'img' and its mask 'mask'"
    ):
        pair_files(find_places(tmp_path, tmp_path))


def domain(folder: Path, blocks_of: int) -> str:
    for i in range(blocks_of):
        write(folder / "images" / f"{i}.jpg")
        write(folder / "masks" / f"{i}.png", mask=True)
    found = Found(pair_files(find_places(folder, None)), None, "identity")
    return data_yaml("mine", {"source": found, "target": found}, "classes.yaml", "", "")


@pytest.mark.fault("few-images-to-divide")
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 30, 40])
def test_few_images_are_divided_so_that_no_split_is_empty(count: int, tmp_path: Path) -> None:
    text = domain(tmp_path, count)
    options = parse_yaml(text, "data.yaml")["data"]["target"]["init_args"]
    assert ("blocks" in options) == (count > 1) and ("one image is trained on" in text) == (count == 1)
    if count > 1:
        assert all(
            bool(block) == (share > 0)
            for block, share in zip(time_blocks(count, options["blocks"]), options["blocks"], strict=True)
        )
    assert (options.get("blocks") == [0.7, 0.1, 0.2]) == (count == 40)


@given(st.integers(2, 300))
def test_shares_fit_any_number_of_images(count: int) -> None:
    from segzoo.dataprep.describe import _blocks

    shares = _blocks(count)
    assert shares is not None
    train, val, test = time_blocks(count, shares)
    assert train and test and (val or count == 2)
    assert shares[1] >= 0.25 or count == 2 or count >= 40


@given(st.integers(1, 300), st.booleans())
def test_few_images_to_score_on_are_counted(count: int, numbered: bool) -> None:
    names = [Path(f"{7 * i * i if not numbered else i}.png") for i in range(count)]
    layout = Layout("images", "masks")
    pairs = Pairs(layout, "", "", {"train": [(name, name) for name in names]}, [])
    said = said_of_splits(Found(pairs, None, "identity"))
    numbers = [int(number) for number in re.findall(r"\d+", said)]
    if count == 1 or not said:
        blocks = (0.7, 0.1, 0.2)
        assert count == 1 or min(map(len, time_blocks(count, blocks, 5 if numbered and count >= 100 else 0))) >= 20
        return
    assert numbers[0] == count and numbers[4] == 20 and min(numbers[2:4]) < 20
    assert sum(numbers[1:4]) == count - (10 if numbered and count >= 100 else 0)
    assert not said_of_splits(Found(replace(pairs, layout=replace(layout, splits={"train": "a"})), None, "identity"))
    assert not said_of_splits(Found(replace(pairs, layout=Layout("images", None)), None, "identity"))


@pytest.mark.fault("empty-file")
def test_an_image_that_cannot_be_read_does_not_end_the_look(tmp_path: Path) -> None:
    domain(tmp_path, 5)
    (tmp_path / "images" / "1.jpg").write_bytes(b"")
    assert "1 cannot be read, which `data check` names" in domain(tmp_path / ".." / tmp_path.name, 0)
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="0 bytes"):
        domain(tmp_path, 0)


@pytest.mark.fault("empty-file")
def test_masks_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    masks = [write(tmp_path / f"{i}.png", mask=True) for i in range(4)]
    for path in masks[1:]:
        path.write_bytes(b"")
    with pytest.raises(
        DataError, match=r"1\.png: it is empty .* \(and 2 more of the 4 that were looked at are wrong\)"
    ):
        what_is_stored(masks)


@pytest.mark.fault("few-images-to-divide")
@pytest.mark.parametrize("what", ["images", "masks"])
def test_an_empty_folder_of_a_split_says_what_to_do(what: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / split / "images" / "1.jpg")
        write(tmp_path / split / "masks" / "1.png", mask=True)
    next((tmp_path / "test" / what).iterdir()).unlink()
    with pytest.raises(DataError, match=f"no {what} in .*test/{what}: .* or remove the folder of that split"):
        pair_files(find_places(tmp_path, None))


def test_a_split_without_its_folder_of_images_says_so(tmp_path: Path) -> None:
    write(tmp_path / "train" / "images" / "1.jpg")
    (tmp_path / "test").mkdir()
    with pytest.raises(
        DataError, match=r"there is no folder .*test/images, and there is one of the test split; make it"
    ):
        pair_files(find_places(tmp_path, None))
