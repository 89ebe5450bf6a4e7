"""Colours that nobody chose: distinct, never black, and dark where there is nothing to look for."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segzoo.data import from_folders
from segzoo.data.class_colours import DISTINCT, NEUTRAL, class_colours, is_background
from segzoo.dataprep.classes import guess_classes
from segzoo.dataprep.mask_kinds import Stored

TWO = {"binary": Stored("binary", {0: 90, 255: 10}, 1), "ids": Stored("ids", {0: 90, 1: 10}, 1)}


def brightness(colour: tuple[int, int, int]) -> float:
    return max(colour)


@given(st.lists(st.sampled_from(["background", "Void", "bg", "other", *(f"c{i}" for i in range(250))]), unique=True))
def test_colours_differ_and_backgrounds_are_the_dark_ones(names: list[str]) -> None:
    colours = class_colours(names)
    assert len(set(colours)) == len(names) and (0, 0, 0) not in colours
    assert all(0 <= value <= 255 for colour in colours for value in colour)
    for name, colour in list(zip(names, colours, strict=True))[: 20 if len(names) > 2 else 0]:
        grey = max(colour) - min(colour) <= 20 and max(colour) < 120
        assert not grey or is_background(name) or name == "other"


def lab(colours: Sequence[tuple[int, int, int]]) -> npt.NDArray[np.float64]:
    return np.asarray(cv2.cvtColor(np.array([colours], np.float32) / 255, cv2.COLOR_RGB2LAB)[0], np.float64)


def test_the_first_colours_are_as_far_apart_as_a_greedy_choice_gets_them() -> None:
    grid = [c for c in itertools.product(range(0, 256, 15), repeat=3) if max(c) >= 128 and max(c) - min(c) >= 60]
    places, chosen = lab(grid), [(0, 0, 0), (255, 255, 255), NEUTRAL]
    nearest = np.linalg.norm(places[:, None] - lab(chosen), axis=-1).min(axis=1)
    for _ in DISTINCT:
        chosen.append(grid[int(nearest.argmax())])
        nearest = np.minimum(nearest, np.linalg.norm(places - lab(chosen[-1:]), axis=1))
    assert tuple(chosen[3:]) == DISTINCT


@pytest.mark.parametrize("names", [[f"c{i}" for i in range(20)], ["background", *(f"c{i}" for i in range(19))]])
def test_no_two_of_the_first_colours_and_black_look_alike(names: list[str]) -> None:
    places = lab([*class_colours(names), (0, 0, 0)])
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(places, 2)) > 35
    assert class_colours(names) == class_colours([*names, "more"])[:20]
    assert len(set(class_colours([*names, *(f"d{i}" for i in range(235))]))) == 255


@pytest.mark.parametrize(
    ("names", "dark"),
    [
        (["background", "crack"], 0),
        (["crack", "background"], 1),
        (["ground", "crack"], 0),
        (["crack", "no crack"], 0),
        (["car", "Hintergrund"], 1),
        (["sky", "void", "road"], 1),
        (["sky", "building", "road"], None),
    ],
)
def test_the_class_that_is_not_looked_for_is_dark(names: list[str], dark: int | None) -> None:
    colours = class_colours(names)
    assert [colour == NEUTRAL for colour in colours] == [position == dark for position in range(len(names))]
    assert all(brightness(colour) >= 128 for position, colour in enumerate(colours) if position != dark)


@pytest.mark.parametrize("kind", TWO)
def test_from_folders_shows_the_first_of_two_classes_dark(kind: str, tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((4, 4, 3)[: 3 if folder == "images" else 2], np.uint8)).save(
            tmp_path / folder / "1.png"
        )
    more = {"source_map": "binary", "target_map": "binary"} if kind == "binary" else {}
    space = from_folders(
        tmp_path, tmp_path, label_space=["ground", "crack"], size=(32, 32), blocks=(1, 0, 0), **more
    ).label_space  # type: ignore[arg-type]
    assert brightness(space.palette[0]) < 128 < brightness(space.palette[1])


@pytest.mark.parametrize("kind", TWO)
def test_the_yaml_of_a_look_shows_the_background_dark(kind: str) -> None:
    stored = {"source": TWO[kind]}
    assert class_colours(["background", "foreground"]) == tuple(guess_classes(stored).colours)
    swapped = guess_classes(stored, ["crack", "background"])
    assert brightness(swapped.colours[1]) < 128 < brightness(swapped.colours[0])
    assert "most pixels would be 'crack': exchange the names" in " ".join(swapped.notes)
    assert not guess_classes(stored, ["background", "crack"]).notes
    three = Stored("ids", {0: 80, 1: 10, 2: 10}, 1)
    assert guess_classes({"source": three}).colours[0] == NEUTRAL
    assert guess_classes({"source": three}, ["a", "b", "c"]).colours[0] == DISTINCT[0]
