"""Photographs that nobody labelled, as people have them: masks beside them, labelled ones among them, none at all."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from segzoo.data import DomainDataModule, PairedFolders, from_folders
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.layouts import IMAGES, MASKS, photographs_in
from segzoo.dataprep.photographs import find_photographs, look_like_masks, photographs_of
from segzoo.dataprep.places import find_places, guess_suffixes, pair_files
from segzoo.dataprep.sets import UNLABELLED, find_sets
from segzoo.dataprep.survey import survey
from segzoo.errors import DataError

SPACE = LabelSpace("two", ("ground", "crack"), ((90, 90, 90), (250, 160, 0)))
RNG = np.random.default_rng(0)


def photograph(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(RNG.integers(0, 255, (5, 7, 3), np.uint8))
    coarse.resize((60, 40), Image.Resampling.BICUBIC).save(path)
    return path


def mask(path: Path, colours: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.zeros((40, 60), np.uint8)
    ids[20:, RNG.integers(0, 30) :] = 1
    Image.fromarray(np.array([[0, 0, 0], [128, 64, 128]], np.uint8)[ids] if colours else ids).save(path)
    return path


def labelled(folder: Path, count: int, masked: int | None = None) -> None:
    for i in range(count):
        photograph(folder / "images" / f"{i}.jpg")
        if masked is None or i < masked:
            mask(folder / "masks" / f"{i}.png")


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("masks", [None, MASKS[0], "Labels"])
def test_masks_beside_the_photographs_are_not_taken(images: str, masks: str | None, tmp_path: Path) -> None:
    for i in range(3):
        photograph(tmp_path / images / f"{i}.png")
        if masks:
            mask(tmp_path / masks / f"{i}.png")
    found = find_photographs(tmp_path)
    assert (found.folder, found.count, found.warning) == (tmp_path / images, 3, "")
    assert photographs_in(tmp_path / images) == tmp_path / images


def test_those_of_all_splits_are_taken(tmp_path: Path) -> None:
    for split in ("train", "test"):
        labelled(tmp_path / split, 2)
    found = find_photographs(tmp_path)
    assert found.count == 4 and not found.warning
    target = PairedFolders("none", None, SPACE, unlabelled=str(found.folder))  # type: ignore[arg-type]
    images = target.unlabelled(tmp_path)
    assert images is not None and {path.parent.name for path in images.files} == {"images"}


def test_python_takes_no_masks_either(tmp_path: Path) -> None:
    labelled(tmp_path / "syn", 2)
    for split in ("train", "test"):
        labelled(tmp_path / "real" / split, 2)
    data = from_folders(
        tmp_path / "syn",
        tmp_path / "real",
        label_space=["ground", "crack"],
        size=(32, 32),
        unlabelled=tmp_path / "real/test",
        num_workers=0,
    )
    further = data.further_images()
    assert further is not None and [path.suffix for path in further.files] == [".jpg", ".jpg"]


@pytest.mark.parametrize(
    ("place", "colours", "alike"),
    [
        ("a/label/{}.png", False, True),
        ("a/gtFine/{}.png", True, True),
        ("a/{}_mask.png", False, True),
        ("a/other/{}.png", False, False),
        ("unlabelled/{}.png", False, False),
    ],
)
def test_files_that_look_like_masks_are_named(place: str, colours: bool, alike: bool, tmp_path: Path) -> None:
    for i in range(3):
        photograph(tmp_path / "a" / f"{i}.jpg")
        mask(tmp_path / place.format(i + 3 if "other" in place else i), colours)
    found = find_photographs(tmp_path)
    assert found.count == 6 and found.folder == tmp_path
    assert bool(found.warning) == alike
    if alike:
        assert found.warning.startswith("3 of the 6 photographs without masks look like masks")
        assert str((tmp_path / place).parent) in found.warning and "`data.target.unlabelled`" in found.warning


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["seg", "labels", "rgb", "drive", "ids", "unlabelled"]), max_size=3))
def test_photographs_look_like_no_masks_wherever_they_lie(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    tmp_path = tmp_path_factory.mktemp("photographs")
    files = {"/".join([*parts, f"{i}"]): photograph(tmp_path.joinpath(*parts, f"{i}.png")) for i in range(2)}
    assert not look_like_masks(files)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images in .* it is empty"):
        find_photographs(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"found 1 others, such as notes\.txt"):
        find_photographs(tmp_path)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(masked=st.sets(st.integers(0, 7), min_size=1, max_size=8), by_split=st.booleans())
def test_training_images_without_a_mask_are_photographs_where_their_folder_is_named(
    masked: set[int], by_split: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("mixed")
    pattern = "{split}/" if by_split else ""
    place = root / "train" if by_split else root
    for i in range(8):
        photograph(place / "images" / f"{i}_rgb.png")
        if i in masked:
            mask(place / "masks" / f"{i}_ids.png")
    named = str(place / "images")
    target = PairedFolders(
        f"{pattern}images",
        f"{pattern}masks",
        SPACE,  # type: ignore[arg-type]
        image_suffix="_rgb",
        mask_suffix="_ids",
        unlabelled=named,
    )
    assert target.images("train", root).names == [str(i) for i in sorted(masked)]
    further = target.unlabelled(root)
    assert list(further.names if further else ()) == [str(i) for i in sorted(set(range(8)) - masked)]
    if further is not None:
        assert further.image(0).shape == (40, 60, 3) and not further.has_labels
        lossy = place / "masks" / f"{further.names[0]}_ids.jpg"
        mask(lossy)  # someone labelled it: an error, and no photograph without a mask
        with pytest.raises(DataError, match=r"has no mask: found .*_ids\.jpg: JPEG changes ids, export it as PNG"):
            target.images("train", root)
        rest = target.unlabelled(root)
        assert len(rest or ()) == len(further) - 1


def test_a_mask_without_its_image_stays_an_error(tmp_path: Path) -> None:
    labelled(tmp_path, 4, masked=2)
    mask(tmp_path / "masks" / "9.png")
    target = PairedFolders("images", "masks", SPACE, unlabelled="images")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"masks/9\.png has no image"):
        target.images("train", tmp_path)


def test_images_of_a_scored_split_without_a_mask_stay_an_error(tmp_path: Path) -> None:
    labelled(tmp_path / "train", 4, masked=2)
    labelled(tmp_path / "test", 4, masked=2)
    target = PairedFolders("{split}/images", "{split}/masks", SPACE, unlabelled="train/images")  # type: ignore[arg-type]
    assert len(target.images("train", tmp_path)) == 2
    with pytest.raises(DataError, match=r"test/images/2\.jpg has no mask \(and 1 more"):
        target.images("test", tmp_path)


def test_the_error_of_a_missing_mask_names_three_ways(tmp_path: Path) -> None:
    labelled(tmp_path, 4, masked=2)
    with pytest.raises(DataError) as error:
        PairedFolders("images", "masks", SPACE).images("train", tmp_path)  # type: ignore[arg-type]
    assert "add it or remove the image; photographs to train on without masks: name their folder" in str(error.value)
    assert "`data.target.unlabelled`" in str(error.value) and "\n" not in str(error.value)


def test_what_is_found_of_the_photographs(tmp_path: Path) -> None:
    labelled(tmp_path, 5, masked=3)
    pairs = pair_files(find_places(tmp_path, None))
    found = photographs_of(pairs, None)
    assert found is not None and found.without_masks and (found.folder, found.count) == (tmp_path / "images", 2)
    assert photographs_of(pairs, tmp_path) == found, "their own folder"
    photograph(tmp_path / "unlabelled" / "7.png")
    beside = photographs_of(pair_files(find_places(tmp_path, None)), None)
    assert beside is not None and (beside.folder, beside.count) == (tmp_path / "unlabelled", 1)
    for i in (3, 4):
        mask(tmp_path / "masks" / f"{i}.png")
    with pytest.raises(DataError, match="every image in it has a mask"):
        photographs_of(pair_files(find_places(tmp_path, None)), tmp_path / "images")


def test_few_masks_of_many_images_are_found_by_their_ends() -> None:
    images = [f"img{i}" for i in range(3000)]
    assert guess_suffixes(images, [f"img{i}_mask" for i in (1, 77, 2999)]) == ("", "_mask")


def test_the_survey_says_what_unlabelled_masks_and_scored_photographs_do(tmp_path: Path) -> None:
    labelled(tmp_path / "syn", 3)
    for split in ("train", "test"):
        labelled(tmp_path / split, 3)
    source = PairedFolders("syn/images", "syn/masks", SPACE)  # type: ignore[arg-type]
    target = PairedFolders("{split}/images", "{split}/masks", SPACE, unlabelled="test", splits_without_masks=("val",))  # type: ignore[arg-type]
    data = DomainDataModule(source, target, root=str(tmp_path), size=(32, 32))
    warnings = survey(find_sets(data), SPACE, 2, lambda count: None).warnings
    (masks,) = [line for line in warnings if "look like masks" in line]
    assert masks.startswith(f"{UNLABELLED}: 3 of the 6 photographs without masks") and "test/masks" in masks
    (scored,) = [line for line in warnings if "are also in target/test" in line]
    assert scored.startswith("3 of the 6 images of target/unlabelled") and "is the same image as" in scored
    assert "on photographs that it is scored on, without their labels" in scored


def test_a_file_that_several_splits_share_is_counted_once(tmp_path: Path) -> None:
    labelled(tmp_path / "syn", 3)
    labelled(tmp_path, 12, masked=8)
    source = PairedFolders("syn/images", "syn/masks", SPACE)  # type: ignore[arg-type]
    target = PairedFolders("images", "masks", SPACE, blocks=(0.5, 0.25, 0.25))  # type: ignore[arg-type]
    data = DomainDataModule(source, target, root=str(tmp_path), size=(32, 32))
    found = find_sets(data)
    assert {name: len(lines) for name, lines in found.problems.items()} == {"target/train": 4}
    assert sum("`data.target.unlabelled`" in line for line in found.problems["target/train"]) == 1
    target = PairedFolders("images", "masks", SPACE, blocks=(0.5, 0.25, 0.25), unlabelled="images")  # type: ignore[arg-type]
    found = find_sets(DomainDataModule(source, target, root=str(tmp_path), size=(32, 32)))
    assert not found.problems and len(found.images[UNLABELLED]) == 4


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("jpg", "JPEG changes ids, export it as PNG"),
        ("JPEG", "JPEG changes ids, export it as PNG"),
        ("webp", "WebP changes ids, export it as PNG"),
        ("gif", "no mask is read from .gif files: export it as PNG"),
    ],
)
def test_a_mask_with_an_ending_that_is_not_read_is_named(ending: str, words: str, tmp_path: Path) -> None:
    labelled(tmp_path, 3)
    path = mask(tmp_path / "masks" / f"1.{ending}")
    (tmp_path / "masks" / "1.png").unlink()
    domain = PairedFolders("images", "masks", SPACE)  # type: ignore[arg-type]
    with pytest.raises(DataError) as error:
        domain.images("train", tmp_path)
    assert f"images/1.jpg has no mask: found {path}" in str(error.value) and str(error.value).endswith(words)
    lines: list[str] = []
    assert domain.images("train", tmp_path, lines).names == ["0", "2"] and lines == [str(error.value)]
    assert pair_files(find_places(tmp_path, None)).unread == {tmp_path / "images" / "1.jpg": path}
