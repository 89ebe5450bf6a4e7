"""The packaged domains: every public set is read from the tree and the encodings of its archive, in miniature."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segzoo.configs import config_names, config_path
from segzoo.data import PairedFolders
from segzoo.data.domains import SPLITS
from segzoo.errors import ConfigError, DataError
from tests.data_sets import (
    CITYSCAPES,
    HEIGHT,
    WIDTH,
    drawn,
    write_colours,
    write_deep,
    write_ids,
    write_image,
    write_json,
    write_polygons,
    write_replicator,
    write_supervisely,
    write_tags,
)

DOMAINS = config_names("domains")
CAMVID = ("Road", "Building", "SignSymbol", "Sky", "Pedestrian", "Car")
IDS, TRAIN_IDS = (7, 11, 19, 23, 24, 26, 4), (0, 2, 6, 10, 11, 13, 255)
NAMES = (*CITYSCAPES, "static")
Write = Callable[[Path], None]


def plain(images: str, masks: str, write: Callable[..., None], values: Sequence[Any], **more: Any) -> Write:
    """Two images each of the splits that are named as ``{split}``; ``{}`` in both is the number."""

    def into(root: Path) -> None:
        for split in more.get("splits", [""]):
            for number in range(2):
                write_image(root / images.format(number, split=split), number)
                write(root / masks.format(number, split=split), number, values, **more.get("options", {}))

    return into


def cityscapes(suffix: str, write: Callable[..., None], values: Sequence[Any]) -> Write:
    place = "{split}/ulm/ulm_{:06}_000019"
    return plain(
        f"cityscapes/leftImg8bit/{place}_leftImg8bit.png",
        f"cityscapes/gtFine/{place}{suffix}",
        write,
        values,
        splits=("train", "val"),
    )


def mapillary(version: str, ids: Sequence[int]) -> Write:
    return plain(
        "mapillary/{split}/images/a-{}.jpg",
        f"mapillary/{{split}}/{version}/labels/a-{{}}.png",
        write_ids,
        ids,
        splits=("training", "validation"),
        options={"palette": True},
    )


def crosscity(root: Path) -> None:
    for number in range(2):
        write_image(root / f"nthu/Rome/Images/Train/pano_{number:05}_0_180.png", number)
        write_image(root / f"nthu/Rome/Images/Test/pano_{number:05}_1_0.png", number)
        write_ids(root / f"nthu/Rome/Labels/Test/pano_{number:05}_1_0_eval.png", number, IDS)


def dark_zurich(root: Path) -> None:
    pairs = root / "dark_zurich/corresp/train/night/GOPR0345_ref_day.csv"
    pairs.parent.mkdir(parents=True)
    for number in range(2):
        day = f"train/day/GOPR0340/GOPR0340_frame_{7 - number:06}"
        night = f"train/night/GOPR0345/GOPR0345_frame_{number:06}"
        with pairs.open("a") as file:
            file.write(f"{night},{day}\n")
        write_image(root / f"dark_zurich/rgb_anon/{day}_rgb_anon.png", 70 + number)
        write_image(root / f"dark_zurich/rgb_anon/{night}_rgb_anon.png", number)
        stem = f"val/night/GOPR0356/GOPR0356_frame_{number:06}"
        write_image(root / f"dark_zurich/rgb_anon/{stem}_rgb_anon.png", number)
        write_ids(root / f"dark_zurich/gt/{stem}_gt_labelTrainIds.png", number, TRAIN_IDS)
        write_ids(root / f"dark_zurich/gt/{stem}_gt_labelIds.png", number, IDS)


def acdc(root: Path) -> None:
    for condition, split in (("fog", "train"), ("snow", "train"), ("night", "val"), ("rain", "val")):
        stem = f"{condition}/{split}/GOPR0475/GOPR0475_frame_000041"
        number = condition in ("snow", "rain")
        write_image(root / f"acdc/rgb_anon/{stem}_rgb_anon.png", number)
        write_image(root / f"acdc/rgb_anon/{condition}/{split}_ref/GOPR0475/GOPR0475_frame_000041_ref_rgb_anon.png", 9)
        write_ids(root / f"acdc/gt/{stem}_gt_labelTrainIds.png", number, TRAIN_IDS)
        write_ids(root / f"acdc/gt/{stem}_gt_labelIds.png", number, IDS)


def idd(root: Path) -> None:
    for split in ("train", "val"):
        for number in range(2):
            write_image(root / f"idd/leftImg8bit/{split}/0/{number:06}_leftImg8bit.{('png', 'jpg')[number]}", number)
            path = root / f"idd/gtFine/{split}/0/{number:06}_gtFine_polygons.json"
            write_polygons(path, number, (*CITYSCAPES, "autorickshaw"), plate="")


def virtual_kitti2(root: Path) -> None:
    colours = [(100, 60, 100), (140,) * 3, (200, 200, 0), (90, 200, 255), (0, 199, 0), (0, 139, 139), (250, 100, 255)]
    for number in range(2):
        frames = root / f"vkitti2/Scene0{number + 1}/{('clone', 'fog')[number]}/frames"
        write_image(frames / "rgb/Camera_0/rgb_00000.jpg", number)
        write_colours(frames / "classSegmentation/Camera_0/classgt_00000.png", number, colours)


def replicator(root: Path) -> None:
    for number in range(2):
        write_replicator(root / "replicator", number, CITYSCAPES)
        write_json(root / f"replicator/camera_params_{number:04}.json", {})


def supervisely(root: Path) -> None:
    write_json(root / "supervisely/meta.json", {"classes": []})
    for number in range(2):
        write_image(root / f"supervisely/ds{number}/img/{number}.jpg", number)
        name = f"{number}.jpg.json" if number else f"{number}.json"  # as new and as old exports have it
        write_supervisely(root / f"supervisely/ds{number}/ann/{name}", number, CITYSCAPES)


def camvid(root: Path) -> None:
    colours = [(128, 0, 192), (64, 0, 64), (0, 64, 64), (128,) * 3, (192, 128, 64), (192, 128, 192), (0, 0, 0)]
    for number in range(10):
        write_image(root / f"camvid/701_StillsRaw_full/0016E5_{number:05}.png", number)
        write_colours(root / f"camvid/LabeledApproved_full/0016E5_{number:05}_L.png", number, colours)


CARLA = plain("carla/rgb/{:06}.png", "carla/seg/{:06}.png", write_tags, (24, 3, 7, 11, 12, 14, 25))
SETS: dict[str, tuple[Write, Sequence[str], set[str]]] = {
    # how it is written, the classes of the first six things, and the splits that are scored
    "gta5": (
        plain("gta5/images/{:05}.png", "gta5/labels/{:05}.png", write_ids, (*IDS[:6], 34), options={"palette": True}),
        CITYSCAPES,
        set(),
    ),
    "synthia": (
        plain("synthia/RGB/{:07}.png", "synthia/GT/LABELS/{:07}.png", write_deep, (3, 2, 15, 1, 10, 8, 0)),
        CITYSCAPES,
        set(),
    ),
    "cityscapes": (cityscapes("_gtFine_labelIds.png", write_ids, IDS), CITYSCAPES, {"val", "test"}),
    "cityscapes_polygons": (cityscapes("_gtFine_polygons.json", write_polygons, NAMES), CITYSCAPES, {"val", "test"}),
    "crosscity": (crosscity, CITYSCAPES, {"val", "test"}),
    "dark_zurich": (dark_zurich, CITYSCAPES, {"val", "test"}),
    "acdc": (acdc, CITYSCAPES, {"val", "test"}),
    "bdd100k": (
        plain(
            "bdd100k/images/10k/{split}/0a-{}.jpg",
            "bdd100k/labels/sem_seg/masks/{split}/0a-{}.png",
            write_ids,
            TRAIN_IDS,
            splits=("train", "val"),
        ),
        CITYSCAPES,
        {"val", "test"},
    ),
    "idd": (idd, CITYSCAPES, {"val", "test"}),
    "mapillary": (mapillary("v1.2", (24, 17, 48, 27, 19, 55, 65)), CITYSCAPES, {"val", "test"}),
    "mapillary_v2": (mapillary("v2.0", (44, 27, 93, 61, 31, 108, 123)), CITYSCAPES, {"val", "test"}),
    "kitti": (
        plain("kitti/training/image_2/{:06}_10.png", "kitti/training/semantic/{:06}_10.png", write_ids, IDS),
        CITYSCAPES,
        set(),
    ),
    "virtual_kitti2": (virtual_kitti2, (*CITYSCAPES[:4], "vegetation", "car"), set()),
    "urbansyn": (
        plain("urbansyn/rgb/rgb_{:04}.png", "urbansyn/ss/ss_{:04}.png", write_ids, (*TRAIN_IDS[:6], 19)),
        CITYSCAPES,
        set(),
    ),
    "camvid": (camvid, CAMVID, {"val", "test"}),
    "carla": (CARLA, CITYSCAPES, set()),
    "carla_0_9_13": (
        plain("carla/rgb/{:06}.png", "carla/seg/{:06}.png", write_tags, (6, 1, 18, 13, 4, 10, 21)),
        CITYSCAPES,
        set(),
    ),
    "replicator": (replicator, CITYSCAPES, set()),
    "supervisely": (supervisely, CITYSCAPES, set()),
}


def domain(name: str, **options: Any) -> PairedFolders:
    content = yaml.safe_load(config_path("domains", name).read_text())
    assert content["class_path"] == "segzoo.data.PairedFolders"
    return PairedFolders(**content["init_args"], **options)


def test_every_domain_has_a_miniature() -> None:
    assert sorted(SETS) == DOMAINS


@pytest.mark.parametrize("name", DOMAINS)
def test_labels_are_what_was_drawn(name: str, tmp_path: Path) -> None:
    write, classes, scored = SETS[name]
    write(tmp_path)
    read = domain(name)
    expected = np.array([*map(read.label_space.classes.index, classes), 255], np.uint8)
    splits = [split for split in SPLITS if read.has_split(split, tmp_path)]
    assert splits == [split for split in SPLITS if split == "train" or split in scored]
    for split in splits:
        images = read.images(split, tmp_path)
        assert images.has_labels == (split != "train" or name not in ("crosscity", "dark_zurich"))
        assert images.has_references == (split == "train" and name == "dark_zurich")
        images.check()
        for index in range(len(images) if images.has_labels else 0):
            number = index if name != "camvid" else int(images.names[index].rpartition("_")[2])
            assert np.array_equal(images.label(index), expected[drawn(number)]), images.names[index]
            assert images.image(index).shape[:2] == images.label(index).shape


def test_folders_with_a_star_give_names_by_what_it_stands_for(tmp_path: Path) -> None:
    acdc(tmp_path)
    assert domain("acdc").images("val", tmp_path).names == [
        "night/GOPR0475/GOPR0475_frame_000041",
        "rain/GOPR0475/GOPR0475_frame_000041",
    ]


@pytest.mark.parametrize("name", DOMAINS)
def test_the_head_says_what_stands_where(name: str) -> None:
    """The tree in the comment has the folders that are read."""
    text = config_path("domains", name).read_text()
    head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    options = yaml.safe_load(text)["init_args"]
    for path in (options["images"], options["masks"]):
        assert path.partition("/")[0] in head
    assert "DIR/" in head


# Masks whose objects have names


def annotated(root: Path, content: Any, names: Any = None) -> Any:
    """The label of one image of a label space of two classes, whose mask is this JSON."""
    write_image(root / "img/0.png", 0)
    write_json(root / "ann/0.json", content)
    space = {"name": "two", "classes": {"wall": [1, 1, 1], "crack": [2, 2, 2]}}
    if names is not None:
        space["maps"] = {"mine": {"names": names}}
    (root / "two.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    read = PairedFolders("img", "ann", str(root / "two.yaml"), "names" if names is None else "mine")
    return read.images("train", root).label(0)


def polygons(*objects: tuple[str, list[list[int]]]) -> dict[str, Any]:
    listed = [{"label": label, "polygon": polygon} for label, polygon in objects]
    return {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": listed}


SQUARE = [[2, 3], [7, 3], [7, 8], [2, 8]]


def test_later_objects_lie_over_earlier_ones_and_nothing_is_ignored_but_what_the_map_says(tmp_path: Path) -> None:
    content = polygons(
        ("Riss", SQUARE), ("plate", [[3, 4], [4, 4], [4, 5]]), ("moss", [[5, 5], [6, 5], [6, 6], [5, 6]])
    )
    names = {"Riss": "crack", "plate": None, "unlabeled": "wall", "others": "ignore"}
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[3:9, 2:8], expected[5:7, 5:7] = 1, 255
    assert np.array_equal(annotated(tmp_path, content, names), expected)


def test_without_a_map_names_are_those_of_the_classes_and_what_is_not_drawn_is_ignored(tmp_path: Path) -> None:
    expected = np.full((HEIGHT, WIDTH), 255, np.uint8)
    expected[3:9, 2:8] = 1
    assert np.array_equal(annotated(tmp_path, polygons(("crack", SQUARE))), expected)


BITMAP = {"classTitle": "crack", "geometryType": "bitmap", "bitmap": {"data": "eJwBAAD//wAAAAE=", "origin": [0, 0]}}
BROKEN: dict[str, tuple[Any, str]] = {
    "name": (
        polygons(("crak", SQUARE)),
        r"unknown name 'crak' in .*0\.json.*did you mean 'crack'\?.*names: \{crak: CLASS",
    ),
    "list": ([], r"0\.json holds a list, expected an annotation of one image"),
    "size": ({"objects": []}, r"0\.json does not say how large it is.*found the keys objects"),
    "objects": ({"imgHeight": 1, "imgWidth": 1}, r"0\.json has no list of 'objects'"),
    "key": (
        {"imgHeight": 1, "imgWidth": 1, "objects": [{"polygon": SQUARE}]},
        r"cannot read object 0 of the mask .*'label'",
    ),
    "bitmap": ({"size": {"height": 9, "width": 9}, "objects": [BITMAP]}, r"cannot read object 0 of the mask .*0\.json"),
    "line": (
        {"size": {"height": 9, "width": 9}, "objects": [{"classTitle": "crack", "geometryType": "line", "points": {}}]},
        r"object 0 of the mask .* is a 'line', which has no area",
    ),
    "image size": ({"imgHeight": 9, "imgWidth": 9, "objects": []}, r"0\.json is 9x9 .* but its image .* is 48x24"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_with_an_annotation_is_said(case: str, tmp_path: Path) -> None:
    content, message = BROKEN[case]
    with pytest.raises(DataError, match=f"(?s){message}"):
        annotated(tmp_path, content)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"crack": "crak"}, "unknown class 'crak'; did you mean 'crack'"),
        ({7: "crack"}, "found 7, expected a name"),
        ({"others": "ignore"}, "it lists no name"),
    ],
)
def test_a_map_of_names_that_is_wrong(names: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        annotated(tmp_path, polygons(), names)


def test_a_colour_without_a_name_in_its_own_frame_is_an_error(tmp_path: Path) -> None:
    write_replicator(tmp_path / "replicator", 0, CITYSCAPES)
    write_json(
        tmp_path / "replicator/semantic_segmentation_labels_0000.json", {"(0, 0, 0, 0)": {"class": "BACKGROUND"}}
    )
    images = domain("replicator").images("train", tmp_path)
    with pytest.raises(DataError, match=r"semantic_segmentation_0000\.png holds .* %.*labels_0000\.json does not name"):
        images.label(0)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_mask_of_replicator_without_colours_has_the_names_of_its_ids(depth: type, tmp_path: Path) -> None:
    write_replicator(tmp_path / "replicator", 0, CITYSCAPES)
    images = domain("replicator").images("train", tmp_path)
    expected = images.label(0)
    folder, numbers = tmp_path / "replicator", [7, 3, 200, 2, 9, 11, 0]
    Image.fromarray(np.array(numbers, depth)[drawn(0)]).save(folder / "semantic_segmentation_0000.png")
    entries = {str(i): {"class": name} for i, name in zip(numbers, (*CITYSCAPES, "BACKGROUND"), strict=True)}
    write_json(folder / "semantic_segmentation_labels_0000.json", entries)
    assert np.array_equal(domain("replicator").images("train", tmp_path).label(0), expected)


def test_the_fingerprint_follows_the_names_beside_a_mask(tmp_path: Path) -> None:
    write_replicator(tmp_path / "replicator", 0, CITYSCAPES)
    images = domain("replicator").images("train", tmp_path)
    before = images.fingerprint()
    write_json(tmp_path / "replicator/semantic_segmentation_labels_0000.json", {})
    assert before is not None and images.fingerprint() != before


def test_json_beside_a_map_of_ids_names_the_remedy(tmp_path: Path) -> None:
    supervisely(tmp_path)
    with pytest.raises(DataError, match=r"are JSON files, whose objects have names.*choose a class_map of names"):
        PairedFolders("supervisely/*/img", "supervisely/*/ann", "cityscapes").images("train", tmp_path)
