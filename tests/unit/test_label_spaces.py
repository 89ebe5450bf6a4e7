"""Label spaces and class maps: the packaged facts, the checks on one's own YAML, unknown ids."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from segzoo.configs import config_names
from segzoo.data.label_spaces import IGNORE_INDEX, LabelSpace, load_class_map, load_label_space
from segzoo.errors import ConfigError, DataError

# Written down a second time, from the papers' code: a slip in the YAML must not go unseen.
GTA5 = "7:0 8:1 11:2 12:3 13:4 17:5 19:6 20:7 21:8 22:9 23:10 24:11 25:12 26:13 27:14 28:15 31:16 32:17 33:18"
SYNTHIA = "3:0 4:1 2:2 21:3 5:4 7:5 15:6 9:7 6:8 16:9 1:10 10:11 17:12 8:13 18:14 19:15 20:16 12:17 11:18"


def defined(space: str, name: str) -> dict[int, int]:
    lut = load_class_map(load_label_space(space), name).lut
    return {raw: int(label) for raw, label in enumerate(lut) if label >= 0}


@pytest.mark.parametrize("name", config_names("label_spaces"))
def test_packaged_space_is_consistent(name: str) -> None:
    space = load_label_space(name)
    assert space.name == name
    assert len(set(space.palette)) == space.num_classes, "two classes of one colour cannot be told apart in pictures"
    assert LabelSpace.from_dict(json.loads(json.dumps(space.to_dict(), sort_keys=True))) == space
    for map_name in ("identity", *space.maps):
        class_map = load_class_map(space, map_name)
        lut = class_map.lut
        assert set(np.unique(lut)) <= {-1, *range(space.num_classes), IGNORE_INDEX}
        if class_map.colours is not None or map_name == "palette":
            assert class_map.colours is not None and lut.shape == class_map.colours.shape
            continue
        if class_map.names is not None or map_name == "names":  # one entry more: all other names
            assert class_map.names is not None and len(lut) == len(class_map.names) + 1
            continue
        assert lut.shape == (256,) and lut.dtype == np.int16
        assert lut[IGNORE_INDEX] == IGNORE_INDEX or map_name == "binary", "255 is ignored but where a map names it"


def test_street_spaces() -> None:
    eleven, ten = load_label_space("camvid11"), load_label_space("camvid10")
    names = "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"
    assert eleven.classes == tuple(names.split())
    assert (ten.classes, ten.palette) == (eleven.classes[:10], eleven.palette[:10])
    assert defined("camvid11", "identity") == {**{i: i for i in range(11)}, 255: 255}
    assert defined("camvid10", "camvid11") == {**{i: i for i in range(10)}, 10: 255, 255: 255}
    assert 10 not in defined("camvid10", "identity")


@pytest.mark.parametrize(("name", "pairs"), [("gta5", GTA5), ("synthia", SYNTHIA)])
def test_synthetic_maps_of_cityscapes(name: str, pairs: str) -> None:
    expected = dict.fromkeys(range(256), 255) | {int(a): int(b) for a, b in (pair.split(":") for pair in pairs.split())}
    assert defined("cityscapes", name) == expected


def test_cityscapes_subsets_drop_the_customary_classes() -> None:
    space = load_label_space("cityscapes")
    assert set(range(19)) - set(space.subsets["synthia16"]) == {9, 14, 16}
    assert set(range(19)) - set(space.subsets["synthia13"]) == {3, 4, 5, 9, 14, 16}


@pytest.mark.parametrize("dropped", [{9, 14, 16}, {3, 4, 5, 9, 14, 16}])
def test_cityscapes_of_fewer_classes(dropped: set[int]) -> None:
    base = load_label_space("cityscapes")
    kept = [number for number in range(19) if number not in dropped]
    space = load_label_space(f"cityscapes{len(kept)}")
    assert space.classes == tuple(base.classes[number] for number in kept)
    assert space.palette == tuple(base.palette[number] for number in kept)
    assert space.maps.keys() - {"palette", "names"} == base.maps.keys() >= {"trainids", "gta5", "synthia", "cityscapes"}
    for name in base.maps:
        expected = {raw: kept.index(old) if old in kept else 255 for raw, old in defined("cityscapes", name).items()}
        assert defined(space.name, name) == expected
    assert defined(space.name, "identity") == {i: i for i in range(len(kept))} | {255: 255}
    # The 16 and the 13 classes of a 19-class model, of a 16-class model, and of a 13-class model.
    thirteen = [base.classes[number] for number in base.subsets["synthia13"]]
    assert [space.classes[number] for number in space.subsets["synthia13"]] == thirteen
    assert ("synthia16" in space.subsets) == (len(kept) == 16)


def test_the_13_classes_within_the_16() -> None:
    assert load_label_space("cityscapes16").subsets["synthia13"] == (0, 1, 2, *range(6, 16))


def test_own_space_of_fewer_classes(tmp_path: Path) -> None:
    base = "classes: {a: [1, 0, 0], b: [2, 0, 0], c: [3, 0, 0]}\nmaps: {m: {5: a, 6: b, 7: c, 8: ignore}, n: {others: b}}\n"
    (tmp_path / "base.yaml").write_text(f"name: base\n{base}subsets: {{ends: [c, a], start: [a, b]}}\n")
    (tmp_path / "less.yaml").write_text("name: less\nextends: base.yaml\nkeep: [c, a]\n")
    space = load_label_space(tmp_path / "less.yaml")
    assert (space.name, space.classes, space.palette) == ("less", ("a", "c"), ((1, 0, 0), (3, 0, 0)))
    assert space.subsets == {"ends": (1, 0)}
    path = str(tmp_path / "less.yaml")
    assert defined(path, "m") == {5: 0, 6: 255, 7: 1, 8: 255, 255: 255}
    assert defined(path, "n") == dict.fromkeys(range(256), 255)
    with pytest.raises(DataError, match="unknown label id 9"):
        load_class_map(space, "m").apply(np.array([[9]]), "mask.png")
    (tmp_path / "least.yaml").write_text("name: least\nextends: less.yaml\nkeep: [c]\n")
    assert defined(str(tmp_path / "least.yaml"), "m") == {5: 255, 6: 255, 7: 0, 8: 255, 255: 255}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"extends": "cityscape", "keep": "synthia16"}, "unknown label space 'cityscape'; did you mean 'cityscapes'?"),
        ({"extends": "no.yaml", "keep": "synthia16"}, "no such file: "),
        (
            {"extends": "cityscapes", "keep": "synthia15"},
            "keep is 'synthia15', expected a subset of 'cityscapes' (synthia",
        ),
        ({"extends": "camvid11", "keep": "synthia16"}, "expected a subset of 'camvid11' (it has none) or a list"),
        ({"extends": "cityscapes"}, "keep is None, expected a subset"),
        ({"extends": "cityscapes", "keep": ["raod"]}, "keep: unknown class 'raod'; did you mean 'road'?"),
        ({"extends": "cityscapes", "keep": []}, "0 classes, expected 1 to 255"),
        ({"extends": "cityscapes", "keep": ["road"], "maps": {}}, "beside 'extends': unknown key 'maps'"),
        ({"keep": ["road"]}, "'extends', the space that classes are kept of"),
        ({"extends": "mine.yaml", "keep": ["road"]}, "extends 'mine.yaml', which extends this one"),
    ],
)
def test_wrong_space_of_fewer_classes_is_refused(content: dict[str, Any], expected: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", **content}))
    with pytest.raises(ConfigError) as error:
        load_label_space(path)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_cityscapes_equals_the_official_scripts() -> None:
    official = pytest.importorskip("cityscapesscripts.helpers.labels")
    space = load_label_space("cityscapes")
    evaluated = sorted(
        (label for label in official.labels if 0 <= label.trainId < 255), key=lambda label: label.trainId
    )
    assert space.classes == tuple(label.name for label in evaluated)
    assert space.palette == tuple(label.color for label in evaluated)
    label_ids = {label.id: label.trainId for label in official.labels if label.id >= 0}
    assert defined("cityscapes", "cityscapes") == label_ids | {255: 255}
    assert defined("cityscapes", "trainids") == {i: i for i in range(19)} | {255: 255}


def test_apply_maps_ids_of_any_type() -> None:
    class_map = load_class_map("camvid10", "camvid11")
    raw = np.array([[0, 9], [10, 255]])
    for dtype in (np.uint8, np.uint16, np.int32, ">u2"):
        labels = class_map.apply(raw.astype(dtype), "mask.png")
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, [[0, 9], [255, 255]])
    np.testing.assert_array_equal(class_map.apply(np.array([[True, False]]), "mask.png"), [[1, 0]])


@pytest.mark.parametrize("unknown", [11, 254, 256, 511, 40000, -1])
def test_unknown_id_is_an_error_that_names_file_id_and_map(unknown: int) -> None:
    raw = np.zeros((3, 4), np.int32)
    raw[1, 2] = unknown
    with pytest.raises(DataError) as error:
        load_class_map("camvid10", "camvid11").apply(raw, Path("some/mask.png"))
    message = str(error.value)
    assert message.startswith(f"unknown label id {unknown} in {Path('some/mask.png')} (1 pixels)")
    assert "\n" not in message
    assert "'camvid11'" in message and "'camvid10'" in message and "0-10, 255" in message


def test_others_do_not_swallow_ids_beyond_the_table() -> None:
    class_map = load_class_map("cityscapes", "gta5")
    assert class_map.apply(np.array([[99]]), "mask.png")[0, 0] == IGNORE_INDEX
    with pytest.raises(DataError, match="unknown label id 300"):
        class_map.apply(np.array([[300]], np.uint16), "mask.png")


def test_colorize() -> None:
    picture = load_label_space("camvid11").colorize(np.array([[0, 10, 255]], np.uint8))
    np.testing.assert_array_equal(picture, [[[128, 128, 128], [0, 128, 192], [0, 0, 0]]])
    assert picture.dtype == np.uint8


def test_class_map_survives_the_way_to_a_worker() -> None:
    class_map = pickle.loads(pickle.dumps(load_class_map("cityscapes", "gta5")))
    assert class_map.apply(np.array([[7]]), "mask.png")[0, 0] == 0


def test_own_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\n"
        "classes: {ground: [70, 130, 180], crack: [255, 0, 0]}\n"
        "maps: {scanner: {3: crack, 4: ignore, others: ground}}\n"
        "subsets: {defects: [crack]}\n"
    )
    space = load_label_space(path)
    assert (space.classes, space.num_classes, space.subsets) == (("ground", "crack"), 2, {"defects": (1,)})
    assert load_class_map(str(path), "scanner").lut.tolist() == [0, 0, 0, 1, 255] + [0] * 251


GOOD: dict[str, Any] = {"name": "mine", "classes": {"road": [1, 2, 3], "sky": [4, 5, 6]}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"maps": {"m": {0: "raod"}}}, "map 'm': unknown class 'raod'; did you mean 'road'?"),
        ({"maps": {"m": {"others": "Sky"}}}, "unknown class 'Sky'; did you mean 'sky'?"),
        ({"maps": {"m": {0: ["road"]}}}, "unknown class"),
        ({"maps": {"m": {65536: "road"}}}, "raw id 65536, expected a whole number from 0 to 65535"),
        ({"maps": {"m": {True: "road"}}}, "raw id True"),
        ({"maps": {"m": [1]}}, "expected a mapping"),
        ({"maps": {"identity": {0: "road"}}}, "'identity' exists in every label space"),
        ({"subsets": {"s": ["rod"]}}, "subset 's': unknown class 'rod'; did you mean 'road'?"),
        ({"subsets": {"s": "road"}}, "expected a list of class names"),
        ({"clases": {}}, "unknown key 'clases'; did you mean 'classes'?"),
        ({"classes": {"road": [1, 2]}}, "colour of 'road'"),
        ({"classes": {"road": [1, 2, 256]}}, "colour of 'road'"),
        ({"classes": {False: [1, 2, 3]}}, "quote it"),
        ({"classes": {"ignore": [1, 2, 3]}}, "other than 'ignore'"),
        ({"classes": {}}, "'classes'"),
        ({"classes": {"ground": [0, 0, 0]}}, "the colour of 'ground' is black, which means ignored in pictures"),
        ({"classes": {f"c{i}": [1, 0, 0] for i in range(256)}}, "256 classes, expected 1 to 255"),
        ({"name": 3}, "'name'"),
    ],
)
def test_wrong_yaml_is_refused(change: dict[str, Any], expected: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD | change, sort_keys=False))
    with pytest.raises(ConfigError) as error:
        load_label_space(str(path))
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_broken_yaml_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("classes: {a: [1\nb: :")
    with pytest.raises(ConfigError, match=r"the label space .* is not valid YAML: line 2") as error:
        load_label_space(path)
    assert "\n" not in str(error.value)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cityscapes'"):
        load_label_space("cityscape")
    with pytest.raises(ConfigError, match="no class map 'gta'; did you mean 'gta5'"):
        load_class_map("cityscapes", "gta")


def test_palette_must_fit_the_classes() -> None:
    with pytest.raises(ConfigError, match="one colour for each"):
        LabelSpace("x", ("a", "b"), ((0, 0, 0),))
