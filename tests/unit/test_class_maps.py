"""Class maps: every way to write one, what they say about ids and colours that they do not know, and that nothing leaks."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segzoo.configs import config_names
from segzoo.data.class_maps import IGNORE_INDEX, ClassMap, packed, unpacked
from segzoo.data.label_spaces import LabelSpace, load_class_map, load_label_space
from segzoo.data.map_entries import read_map
from segzoo.data.mask_files import read_mask
from segzoo.data.transforms import evaluation_transform, training_transform
from segzoo.errors import ConfigError, DataError

CLASSES = ("road", "sky", "car")
COLOURS = st.tuples(*[st.integers(0, 255)] * 3)
TWO = LabelSpace("cracks", ("wall", "crack"), ((9, 9, 9), (255, 0, 0)))


def class_map(entries: Any) -> ClassMap:
    return read_map(entries, CLASSES, "map 'm'", "m", "mine")


def defined(found: ClassMap) -> dict[int, int]:
    return {raw: int(label) for raw, label in enumerate(found.lut) if label >= 0}


def unknown(found: ClassMap, pixels: Any) -> str:
    with pytest.raises(DataError) as error:
        found.apply(packed(np.array(pixels, np.uint8)), "some/mask.png")
    assert "\n" not in str(error.value)
    return str(error.value)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.integers(0, 300), st.sampled_from([*CLASSES, "ignore"]), min_size=1), st.randoms())
def test_ids_first_and_classes_first_are_one_map_in_any_order(table: dict[int, str], random: Any) -> None:
    by_class: dict[str, list[Any]] = {}
    for raw, name in table.items():
        by_class.setdefault(name, []).append(random.choice([raw, str(raw), f"{raw}-{raw}"]))
    for entries in (table, by_class):
        shuffled = list(entries.items())
        random.shuffle(shuffled)
        # What stands in a file is read as it was meant.
        found = class_map(yaml.safe_load(yaml.safe_dump(dict(shuffled), sort_keys=False)))
        labels = {raw: CLASSES.index(name) if name in CLASSES else 255 for raw, name in table.items()}
        assert defined(found) == {255: 255} | labels
        assert found.void_listed == (255 in table)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(COLOURS, st.sampled_from([*CLASSES, "ignore"]), min_size=1), st.booleans(), st.randoms())
def test_colours_are_exact_however_they_are_written(
    table: dict[tuple[int, int, int], str], with_others: bool, random: Any
) -> None:
    by_class: dict[str, list[Any]] = {}
    by_colour: dict[Any, str] = dict(table)
    for (r, g, b), name in table.items():
        forms = [[r, g, b], f"{r} {g} {b}", f"{r},{g}, {b}", f"#{r:02x}{g:02X}{b:02x}"]
        by_class.setdefault(name, []).append(random.choice(forms))
    near = [(r ^ 1, g, b) for r, g, b in table]
    for entries in (by_colour, by_class):
        found = class_map(entries | ({"others": "ignore"} if with_others else {}))
        pixels = packed(np.array([[*table, *near]], np.uint8))
        expected = [label(table.get(colour, "ignore" if with_others else "none")) for colour in (*table, *near)]
        if -1 in expected:
            assert not found.defines(pixels) and found.defines(pixels[:, : len(table)])
            pixels, expected = pixels[:, : len(table)], expected[: len(table)]
        assert found.apply(pixels, "mask.png").tolist() == [expected]
        assert pickle.loads(pickle.dumps(found)).apply(pixels, "mask.png").tolist() == [expected]


def label(name: str) -> int:
    return {**{one: number for number, one in enumerate(CLASSES)}, "ignore": IGNORE_INDEX, "none": -1}[name]


@given(COLOURS)
def test_a_packed_colour_is_the_colour(colour: tuple[int, int, int]) -> None:
    value = int(packed(np.array(colour, np.uint8)))
    assert unpacked(value) == colour and f"{value:06x}" == "".join(f"{one:02x}" for one in colour)


@pytest.mark.parametrize("name", config_names("label_spaces"))
def test_pictures_of_labels_are_read_back_by_the_palette(name: str, tmp_path: Path) -> None:
    space = load_label_space(name)
    labels = np.random.default_rng(0).integers(0, space.num_classes + 1, (9, 12)).astype(np.uint8)
    labels[labels == space.num_classes] = IGNORE_INDEX
    palette = load_class_map(space, "palette")
    Image.fromarray(space.colorize(labels)).save(tmp_path / "0.png")
    Image.fromarray(space.colorize(labels)).quantize(256, dither=Image.Dither.NONE).save(tmp_path / "1.png")
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(palette.apply(read_mask(path, palette), path), labels)


def test_the_palette_of_a_space_of_fewer_classes_ignores_the_others() -> None:
    base, space = load_label_space("cityscapes"), load_label_space("cityscapes13")
    labels = np.arange(19, dtype=np.uint8)[None]
    expected = [space.classes.index(name) if name in space.classes else 255 for name in base.classes]
    found = load_class_map(space, "palette").apply(packed(base.colorize(labels)), "mask.png")
    assert found.tolist() == [expected] and set(expected) == {*range(13), 255}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (
            {"road": [128, 64, 128]},
            "128 is listed twice ([128, 64, 128] is three ids; a colour in a list is [[128, 64, 128]]",
        ),
        ({7: "road", "sky": "5-9"}, "'5-9' is listed twice"),
        ({"road": [7], "1 2 3": "sky"}, "it lists ids (7) and colours"),
        ({"#010203": "sky", "1 2 3": "sky"}, "'1 2 3' is listed twice"),
        ({"raod": [7]}, "unknown class 'raod'; did you mean 'road'?"),
        ({"1 2 256": "road"}, "'1 2 256' is no colour, expected red, green and blue with values 0 to 255"),
        ({"road": [[1, 2]]}, "[1, 2] is no colour"),
        ({"9-7": "road"}, "raw id '9-7', expected a whole number from 0 to 65535, a range such as '10-12'"),
        ({"road": "7-70000"}, "raw id '7-70000'"),
        ({"road": None}, "'road' lists nothing"),
        ({"road": 1.5}, "raw id 1.5"),
        ({}, "'#804080' has to be quoted, or YAML skips it"),
        (None, "it is empty"),
    ],
)
def test_a_wrong_map_is_one_line(entries: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        class_map(entries)
    assert str(error.value).startswith("map 'm': ") and expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.fault("unknown-colour")
def test_an_unknown_colour_is_named_with_its_share_and_its_neighbour() -> None:
    found = class_map({"128 64 128": "road", "70 130 180": "sky", "0 0 0": "ignore"})
    road = [128, 64, 128]
    message = unknown(found, [[road, road, road, [70, 130, 170]]])
    assert message.startswith(
        "unknown colour 70 130 170 (#4682aa) in some/mask.png (25 % of the pixels): of the 3 colours"
    )
    assert "class map 'm' (label space 'mine') the nearest is 70 130 180, 'sky'" in message
    assert "add it to the map, e.g. \"70 130 170\": CLASS, or 'others: ignore'" in message
    assert "(and 1 more unknown colours)" in unknown(found, [[road, [9, 200, 9], [9, 200, 9], [70, 130, 170]]])
    assert "unknown colour 9 200 9" in unknown(found, [[road, [9, 200, 9], [9, 200, 9], [70, 130, 170]]])


@pytest.mark.fault("unknown-colour")
def test_the_usual_reasons_for_unknown_colours_are_named() -> None:
    space = load_label_space("cityscapes")
    palette = load_class_map(space, "palette")
    labels = np.arange(19, dtype=np.uint8)[None]
    assert "with red and blue exchanged all of them are listed" in unknown(palette, space.colorize(labels)[..., ::-1])
    assert "if these greys are ids, choose a class_map of ids" in unknown(
        palette, np.repeat(labels[..., None], 3, axis=2)
    )
    assert "interpolation, smoothing and JPEG" in unknown(palette, space.colorize(labels) ^ 1)


def test_masks_of_0_and_255_are_binary() -> None:
    binary = load_class_map(TWO, "binary")
    assert binary.apply(np.array([[0, 1, 255]], np.uint8), "mask.png").tolist() == [[0, 1, 1]]
    assert binary.void_listed
    with pytest.raises(DataError, match=r"maps: \{mine: \{0: wall, 255: crack, others: ignore\}\}"):
        binary.apply(np.array([[0, 128, 255]], np.uint8), "mask.png")
    with pytest.raises(
        ConfigError, match=r"'binary' is of two classes and .* 19: .*maps: \{binary: \{0: road, 255: bicycle\}\}"
    ):
        load_class_map("cityscapes", "binary")


def test_a_map_of_ones_own_goes_before_the_one_that_need_not_be_written(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    classes = {"wall": [9, 9, 9], "crack": [255, 0, 0]}
    path.write_text(
        yaml.safe_dump(
            {"name": "mine", "classes": classes, "maps": {"binary": {0: "crack", 255: "wall"}}}, sort_keys=False
        )
    )
    assert defined(load_class_map(path, "binary")) == {0: 1, 255: 0}
    path.write_text(yaml.safe_dump({"name": "mine", "classes": classes, "maps": {"palette": {0: "crack"}}}))
    with pytest.raises(ConfigError, match="the map 'palette' exists in every label space"):
        load_label_space(path)


@pytest.mark.parametrize(
    "transform",
    [
        training_transform((13, 17), (0.3, 0.9), True, 0.4, blur=1.0),
        training_transform((40, 50), (1.0, 1.0), True, 0.4, crop_size=(20, 30)),
        evaluation_transform((13, 17)),
        evaluation_transform((61, 77)),
    ],
)
@pytest.mark.parametrize("entries", [{0: "road", 255: "sky"}, {0: "road", 7: "car", "others": "sky"}])
def test_255_never_leaks_through_a_transform(entries: dict[Any, str], transform: Any) -> None:
    """Where a map makes 255 a class no pixel is ignored afterwards, at no border and at no crop."""
    generator = np.random.default_rng(0)
    raw = generator.choice([raw for raw in (*entries, 255) if raw != "others"], (31, 43)).astype(np.uint8)
    labels = class_map(entries).apply(raw, "mask.png")
    for _ in range(20):
        out = transform(image=generator.integers(0, 256, (31, 43, 3), np.uint8), mask=labels)["mask"]
        assert set(np.unique(out)) <= set(np.unique(labels)) and IGNORE_INDEX not in out


def test_digests_differ_where_maps_do() -> None:
    maps = [
        {"1 2 3": "road"},
        {"1 2 3": "sky"},
        {"1 2 4": "road"},
        {"1 2 3": "road", "others": "sky"},
        {0: "road"},
        {0: "sky"},
    ]
    assert len({class_map(entries).digest() for entries in maps}) == len(maps)
    assert class_map(maps[0]).digest() == class_map({"road": ["#010203"]}).digest()
