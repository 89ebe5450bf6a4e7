"""Folders as people have them: names in two forms of Unicode, what systems leave behind, files that were copied in part."""

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segzoo.data.files import LEFTOVERS, letters, spelled, walk
from segzoo.data.folders import PairedFolders
from segzoo.data.label_spaces import load_label_space
from segzoo.data.layouts import find_layout
from segzoo.data.references import read_pairs
from segzoo.data.turning import turned_images
from segzoo.dataprep.places import find_places, pair_files
from segzoo.errors import ConfigError, DataError

NAME = "Straße ä é 1"
FORMS = ("NFC", "NFD")


def write(path: Path, mask: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((2, 3) if mask else (2, 3, 3), np.uint8)).save(path)
    return path


def form(kind: str, text: str) -> str:
    return unicodedata.normalize(kind, text)  # type: ignore[arg-type]


def own(**options: object) -> PairedFolders:
    return PairedFolders(**({"images": "images", "masks": "masks", "label_space": "minicity"} | options))  # type: ignore[arg-type]


@pytest.mark.fault("names-in-two-forms")
@pytest.mark.parametrize("kind", FORMS)
def test_names_of_two_forms_belong_together(kind: str, tmp_path: Path) -> None:
    other = FORMS[kind == "NFC"]
    write(tmp_path / "images" / form(kind, "à") / form(kind, f"{NAME}_ü.png"))
    write(tmp_path / "masks" / form(other, "à") / form(other, f"{NAME}_ö.png"), mask=True)
    images = own(image_suffix=form("NFC", "_ü"), mask_suffix=form("NFD", "_ö")).images("train", tmp_path)
    assert len(images) == 1 and images.label(0).shape == (2, 3)
    pairs = pair_files(find_places(tmp_path / "images", tmp_path / "masks"))
    assert len(pairs.masks) == 1 and not pairs.unpaired


@pytest.mark.fault("names-in-two-forms")
def test_two_forms_of_one_name_are_one_name(tmp_path: Path) -> None:
    for kind in FORMS:
        write(tmp_path / "images" / form(kind, "ä.png"))
    with pytest.raises(DataError, match="the same letters, in two forms of Unicode"):
        own(masks=None).images("train", tmp_path)


@pytest.mark.fault("names-in-two-forms")
@pytest.mark.parametrize("kind", FORMS)
def test_a_folder_is_found_in_the_other_form(kind: str, tmp_path: Path) -> None:
    written, typed = (tmp_path / form(one, "Fotos für é") / form(one, "ü") for one in (kind, FORMS[kind == "NFC"]))
    write(written / "images" / "1.png")
    assert spelled(typed / "new") == written / "new"
    assert find_places(typed, None).images == str(written / "images")
    pattern = f"{typed.relative_to(tmp_path)}/images"
    assert len(own(images=pattern, masks=None).images("train", tmp_path)) == 1


@given(st.lists(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=5)))
def test_a_path_that_is_not_there_stays_as_it_is(parts: list[str]) -> None:
    path = Path("nowhere", *parts)
    assert spelled(path) == path and spelled(path.absolute()) == path.absolute()
    assert letters(str(path)) == unicodedata.normalize("NFC", str(path))


@pytest.mark.fault("folders-that-systems-add")
def test_what_systems_leave_behind_is_no_image(tmp_path: Path) -> None:
    kept = write(tmp_path / "a" / "1.png")
    for name in (*LEFTOVERS, ".ipynb_checkpoints"):
        write(tmp_path / "a" / name / "1.png" / "SYNOPHOTO_THUMB_M.jpg")
    assert list(walk(tmp_path)) == [kept]


@pytest.mark.fault("empty-file")
def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").touch()
    with pytest.raises(DataError, match=r"1\.jpg: it is empty \(0 bytes\)"):
        own(masks=None).images("train", tmp_path).image(0)


def test_lists_of_pairs_as_spreadsheets_write_them(tmp_path: Path) -> None:
    text = "\ufeff# night, day\r\nC:\\night\\a.JPG,day/b.png\r\n \r\n" + form("NFD", "ä") + ".png, " + "ö\r\n,\r\n"
    (tmp_path / "pairs.csv").write_bytes(text.encode())
    assert read_pairs([tmp_path / "pairs.csv"], "") == {"a": "b", "ä": "ö"}
    (tmp_path / "pairs.csv").write_bytes("ä,b\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"pairs\.csv is not a text file .* save it as CSV in UTF-8"):
        read_pairs([tmp_path / "pairs.csv"], "")


def photographs(folder: Path, masks_upright: dict[int, bool | None]) -> PairedFolders:
    """Photographs of 3x2 pixels by EXIF orientation, whose masks fit the turned or the stored one; None: there is no tag."""
    for turn, upright in masks_upright.items():
        exif = Image.Exif()
        if upright is not None:
            exif[274] = turn
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(folder / "images" / f"{turn}.jpg", exif=exif)
        path = write(folder / "masks" / f"{turn}.png", mask=True)
        Image.fromarray(np.zeros((3, 2) if upright else (2, 3), np.uint8)).save(path)
    return own()


@pytest.mark.fault("exif-images-on-their-side")
@pytest.mark.parametrize(
    ("masks", "known", "words"),
    [
        ({1: None, 6: True, 8: True}, [None, True, True], ["only when they are turned", "2 of 3 in target/val ('6'"]),
        (
            {1: None, 6: False, 8: False},
            [None, False, False],
            ["2 of 3 in target/val ('6' is one)", "`data.target.upright`"],
        ),
        (
            {6: True, 8: False},
            [True, False],
            ["as they are stored: 1 of 2 in target/val ('8' is one)", "are read so: 1 of 2 in target/val ('6' is one)"],
        ),
        ({1: None, 3: False}, [None, None], []),
    ],
)
def test_photographs_that_fit_their_masks_one_way_only_are_named(
    masks: dict[int, bool | None], known: list[bool | None], words: list[str], tmp_path: Path
) -> None:
    images = photographs(tmp_path, masks).images("train", tmp_path)
    assert [images.drawn_upright(index) for index in range(len(images))] == known
    said = turned_images({"target/val": (images, range(len(images)))})
    assert bool(said) == bool(words) and all(word in " ".join(said) for word in words)
    side = turned_images({"target/val": (images, range(len(images)))}, as_they_should=False)
    assert len(side) == (len(said) if False in known else 0)
    chosen = PairedFolders("images", "masks", "minicity", upright=True).images("train", tmp_path)
    assert not turned_images({"target/val": (chosen, range(len(chosen)))}), "someone said how they lie"


def test_a_mask_that_lies_on_its_side_is_called_so(tmp_path: Path) -> None:
    images = photographs(tmp_path, {1: None}).images("train", tmp_path)
    Image.fromarray(np.zeros((3, 2), np.uint8)).save(tmp_path / "masks" / "1.png")
    with pytest.raises(DataError, match="one of them lies on its side: turn it by a quarter"):
        images.label(0)


@pytest.mark.fault("names-that-are-no-text")
def test_texts_are_utf_8_whatever_the_system_writes(tmp_path: Path) -> None:
    """Windows and old locales have encodings of their own; names of files may be bytes that are no text."""
    program = "import sys; from pathlib import Path; from segzoo.files import write_text; "
    program += r"write_text(Path(sys.argv[1]), 'Stra\u00dfe \U0001f600 \udcff')"
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a")], check=True, env=os.environ | plain)
    assert (tmp_path / "a").read_bytes() == "Straße 😀 ".encode() + b"\xff"


def test_classes_without_colours_are_answered_with_some(tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text("name: c\nclasses: [background, Straße]\n")
    with pytest.raises(ConfigError, match="each name with its colour") as caught:
        load_label_space(path)
    path.write_text(f"name: c\nclasses: {str(caught.value).partition('e.g. ')[2]}\n")
    assert load_label_space(path).classes == ("background", "Straße"), "what the line says works"
    path.write_text("name: c\nclasses:\n  street: wet: [1, 2, 3]\n")
    with pytest.raises(ConfigError, match=r"line 3: .*; a name with ': ' in it has to be quoted"):
        load_label_space(path)


def test_what_systems_leave_behind_is_no_split_that_was_forgotten(tmp_path: Path) -> None:
    for name in ("train", "val", "@eaDir", "old"):
        write(tmp_path / name / "1.png")
    assert [Path(folder).name for folder in find_layout(tmp_path).unused] == ["old"]
