"""What is guessed from two folders: which files belong together, what masks store, which classes there are."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from segzoo.data.label_spaces import load_class_map, load_label_space
from segzoo.data.mask_files import read_colours, read_ids
from segzoo.dataprep.classes import classes_yaml, guess_classes, map_name, quoted
from segzoo.dataprep.mask_kinds import Stored, what_is_stored
from segzoo.dataprep.places import find_places, guess_suffixes, pair_files
from segzoo.errors import ConfigError, DataError
from segzoo.yaml_files import parse_yaml

CITY = [f"a/a_{i}_gtFine_{kind}" for i in range(3) for kind in ("color", "instanceIds", "labelIds")]


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        (["1", "2"], ["1", "2"], ("", "")),
        (["1", "2", "10"], ["1_mask", "2_mask", "10_mask"], ("", "_mask")),
        (["a/1", "b/1"], ["a/1-seg", "b/1-seg"], ("", "-seg")),
        (["f1_rgb", "f2_rgb"], ["f1_ids", "f2_ids"], ("rgb", "ids")),
        ([f"a/a_{i}_leftImg8bit" for i in range(3)], CITY, ("leftImg8bit", "gtFine_labelIds")),
        (["1", "2", "3"], ["2", "3"], ("", "")),
    ],
)
def test_suffixes_are_what_names_have_in_addition(
    images: list[str], masks: list[str], expected: tuple[str, str]
) -> None:
    found = guess_suffixes(images, masks)
    assert tuple(end.lstrip("_") if end.lstrip("_") in expected else end for end in found) == expected
    assert {stem.removesuffix(found[0]) for stem in images} & {stem.removesuffix(found[1]) for stem in masks}


def test_names_without_anything_in_common_are_refused() -> None:
    with pytest.raises(DataError, match=r"'img_1' and 'seg_1'"):
        guess_suffixes(["img_1", "img_2"], ["seg_1", "seg_2"])


def save(path: Path, pixels: object = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((4, 6), np.uint8) + np.uint8(pixels) if isinstance(pixels, int) else np.asarray(pixels)
    Image.fromarray(values).save(path)


SPLITS = ("train", "val", "test")


@pytest.mark.parametrize(
    ("files", "masks", "splits"),
    [
        (["rgb/1.jpg", "ids/1.png"], "ids", {}),
        (["rgb/train/1.jpg", "rgb/valid/2.jpg", "ids/train/1.png"], "ids", {"train": "train", "val": "valid"}),
        (["train/rgb/1.jpg", "test/rgb/2.jpg", "train/ids/1.png"], "train/ids", {"train": "train", "test": "test"}),
        (["train/rgb/1.jpg", "train/ids/1.png"], "train/ids", {}),
    ],
)
def test_folders_of_splits_are_found(tmp_path: Path, files: list[str], masks: str, splits: dict[str, str]) -> None:
    for name in files:
        save(tmp_path / name)
    layout = find_places(tmp_path / masks.replace("ids", "rgb"), tmp_path / masks)
    assert layout.splits == splits
    pairs = pair_files(layout)
    assert pairs.count == sum("rgb" in name for name in files)
    assert [path.name for path in pairs.masks] == ["1.png"] and not pairs.unpaired
    assert ("{split}" in layout.images) == bool(splits) == ("{split}" in str(layout.masks))
    assert set(layout.without_masks) == set(splits) - {"train"}


def test_files_without_a_partner_are_named(tmp_path: Path) -> None:
    for name in ("rgb/1.jpg", "rgb/2.jpg", "ids/2_m.png", "ids/3_m.png"):
        save(tmp_path / name)
    pairs = pair_files(find_places(tmp_path / "rgb", tmp_path / "ids"))
    assert [path.name for path in pairs.unpaired] == ["1.jpg", "3_m.png"] and pairs.mask_suffix == "_m"


def test_masks_that_lose_ids_are_refused(tmp_path: Path) -> None:
    for name in ("rgb/1.jpg", "ids/1.jpg"):
        save(tmp_path / name)
    with pytest.raises(DataError, match="JPEG"):
        pair_files(find_places(tmp_path / "rgb", tmp_path / "ids"))


RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 5, (20, 30)).astype(np.uint8)
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [128, 64, 128], [1, 2, 3], [9, 9, 9]], np.uint8)


def carla() -> np.ndarray:
    """A class in red, instances in green and blue."""
    return np.stack([IDS, *RNG.integers(0, 255, (2, 20, 30)).astype(np.uint8)], axis=2)


@pytest.mark.parametrize(
    ("make", "kind", "values"),
    [
        (lambda: IDS, "ids", [0, 1, 2, 3, 4]),
        (lambda: np.where(IDS == 4, np.uint8(255), IDS), "ids", [0, 1, 2, 3]),
        (lambda: IDS.astype(np.uint16) * 300, "ids", [0, 300, 600, 900, 1200]),
        (lambda: (IDS > 2).astype(np.uint8) * 255, "binary", [0, 255]),
        (lambda: np.repeat(IDS[..., None], 3, axis=2), "ids", [0, 1, 2, 3, 4]),
        (lambda: COLOURS[IDS], "colours", sorted(int(r) << 16 | int(g) << 8 | int(b) for r, g, b in COLOURS)),
        (carla, "red", [0, 1, 2, 3, 4]),
        (lambda: np.stack([IDS, IDS * 0, IDS * 0], axis=2), "red", [0, 1, 2, 3, 4]),
    ],
)
def test_what_masks_store_is_found(
    tmp_path: Path, make: Callable[[], np.ndarray], kind: str, values: list[int]
) -> None:
    save(tmp_path / "1.png", make())
    stored = what_is_stored([tmp_path / "1.png"])
    assert (stored.kind, stored.values) == (kind, values) and sum(stored.pixels.values()) == 600


@pytest.mark.parametrize("shape", [(40, 40), (40, 40, 3)])
def test_photographs_are_no_masks(tmp_path: Path, shape: tuple[int, ...]) -> None:
    save(tmp_path / "1.png", RNG.integers(0, 255, shape).astype(np.uint8))
    with pytest.raises(DataError, match="as photographs or smoothed masks do"):
        what_is_stored([tmp_path / "1.png"])


def compressed(pixels: np.ndarray, quality: int) -> np.ndarray:
    """What is left of a mask that was a JPEG once."""
    content = BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content))


@pytest.mark.fault("jpeg-masks-saved-as-png")
@pytest.mark.parametrize("quality", [75, 95])
def test_masks_of_two_values_that_were_jpeg_once_are_refused(tmp_path: Path, quality: int) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[13:42, 21:50] = 255
    save(tmp_path / "1.png", compressed(mask, quality))
    with pytest.raises(DataError, match=r"values next to these .*, as JPEG makes them along borders: .* from 128 on"):
        what_is_stored([tmp_path / "1.png"])
    with pytest.raises(DataError, match="lie around 0 and 255, as JPEG and smoothing leave them"):
        load_class_map("minicity", "identity").apply(compressed(mask, quality), "1.png")


@pytest.mark.parametrize("values", [[0, 255], [0, 1, 255], [0, 1, 254, 255], [*range(34), 255], [0, 128, 255]])
def test_ids_are_not_taken_for_what_jpeg_leaves(tmp_path: Path, values: list[int]) -> None:
    save(tmp_path / "1.png", np.array(values, np.uint8)[RNG.integers(0, len(values), (20, 30))])
    assert set(what_is_stored([tmp_path / "1.png"]).pixels) == set(values)


@pytest.mark.fault("class-in-the-transparency")
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (9, 200, 9)])
@pytest.mark.parametrize("alpha", [IDS * 60, (IDS > 2) * 255, IDS])
def test_a_class_in_the_transparency_alone_is_refused(
    tmp_path: Path, colour: tuple[int, ...], alpha: np.ndarray
) -> None:
    pixels = np.concatenate([np.full((20, 30, 3), colour, np.uint8), alpha[..., None].astype(np.uint8)], axis=2)
    save(tmp_path / "1.png", pixels)
    for read in (lambda path: what_is_stored([path]), read_ids, read_colours):
        with pytest.raises(
            DataError, match=r"1\.png has one colour everywhere .* only its transparency \(alpha\) differs"
        ):
            read(tmp_path / "1.png")
    pixels[0, 0, :3] = 7  # a second colour, and it is the colours that count
    save(tmp_path / "1.png", pixels)
    assert what_is_stored([tmp_path / "1.png"]).masks == 1


def test_a_255_that_may_be_a_class_is_a_guess(tmp_path: Path) -> None:
    def notes(*values: int) -> str:
        save(tmp_path / "1.png", np.array(values, np.uint8)[RNG.integers(0, len(values), (20, 30))])
        return " ".join(guess_classes({"source": what_is_stored([tmp_path / "1.png"])}).notes)

    assert "of the source's pixels) is taken for what is ignored; if it is a class" in notes(0, 128, 255)
    assert not notes(0, 1, 255) and not notes(*range(20), 255) and not notes(0, 7, 8, 11, 255) and not notes(0, 128)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(0, 40), st.integers(1, 10**6), min_size=1, max_size=6),
    st.sets(st.integers(0, 40)),
    st.sampled_from(["ids", "red", "colours"]),
    st.integers(1, 4),
)
def test_strays_are_rare_values_of_one_mask_among_others(
    pixels: dict[int, int], alone: set[int], kind: str, masks: int
) -> None:
    stored = Stored(kind, pixels, masks, {value: Path("7.png") for value in alone})  # type: ignore[arg-type]
    expected = {v for v, count in pixels.items() if v in alone and 10_000 * count < sum(pixels.values())}
    assert stored.strays.keys() == (expected if masks > 1 and len(pixels) > 2 else set())


@pytest.mark.parametrize("kind", ["ids", "colours", "red"])
def test_the_one_mask_of_a_value_is_known(tmp_path: Path, kind: str) -> None:
    masks = [np.full((20, 30), 3, np.uint8) for _ in range(3)]
    for i, mask in enumerate(masks):
        mask[:9] = 5
        if i == 1:
            mask[0, 0] = 7
        rest = {"colours": mask * 2, "red": RNG.integers(0, 255, mask.shape).astype(np.uint8)}.get(kind)
        save(tmp_path / f"{i}.png", mask if rest is None else np.stack([mask, rest, rest], axis=2))
    stored = what_is_stored([tmp_path / f"{i}.png" for i in range(3)])
    assert stored.kind == kind
    assert stored.alone == {0x070E0E if kind == "colours" else 7: tmp_path / "1.png"}


def test_what_the_other_domain_holds_is_no_stray() -> None:
    one = Stored("ids", {0: 10**6, 1: 10**6, 2: 5}, 9, {2: Path("7.png")})
    assert any("2 is probably a mistake" in note for note in guess_classes({"source": one, "target": one}).notes)
    other = Stored("ids", {0: 10**6, 1: 10**6, 2: 10**5}, 9)
    classes = guess_classes({"source": one, "target": other})
    assert not any("mistake" in note for note in classes.notes) and not any(classes.maps.values())
    assert "mistake" not in classes_yaml("mine", classes, {"source": one, "target": other})


def written(
    stored: dict[str, Stored], tmp_path: Path, *names: str
) -> tuple[tuple[str, ...], dict[str, dict[int, int]]]:
    """The classes of a label space that was written and read again, and the label of every stored value by domain."""
    classes = guess_classes(stored, names)
    path = tmp_path / "classes.yaml"
    path.write_text(classes_yaml("mine", classes, stored))
    space = load_label_space(path)
    maps = {d: load_class_map(space, map_name(d) if classes.maps[d] else "identity") for d in stored}
    return space.classes, {d: {v: int(maps[d].lut[v]) for v in one.pixels} for d, one in stored.items()}


def test_ids_that_are_label_ids_need_no_map(tmp_path: Path) -> None:
    both = {d: Stored("ids", {0: 5, 1: 3, 2: 1, 255: 9}, 1) for d in ("source", "target")}
    assert not any(guess_classes(both).maps.values())
    assert written(both, tmp_path)[1]["target"] == {0: 0, 1: 1, 2: 2, 255: 255}


def test_other_ids_get_a_map(tmp_path: Path) -> None:
    both = {"source": Stored("ids", {7: 5, 300: 3}, 1), "target": Stored("ids", {7: 5, 9: 1}, 1)}
    names, labels = written(both, tmp_path)
    assert names == ("class_0", "class_1", "class_2")
    assert labels == {"source": {7: 0, 300: 2}, "target": {7: 0, 9: 1}}
    assert "only the source's masks hold 300; only the target's masks hold 9" in guess_classes(both).notes[0]


def test_binary_masks_beside_ids_are_told_by_their_pixels(tmp_path: Path) -> None:
    both = {"source": Stored("binary", {0: 10, 255: 90}, 1), "target": Stored("ids", {0: 20, 1: 80}, 1)}
    names, labels = written(both, tmp_path, "wall", "crack")
    assert names == ("wall", "crack") and labels == {"source": {0: 0, 255: 1}, "target": {0: 0, 1: 1}}
    both["target"] = Stored("ids", {0: 80, 1: 20}, 1)  # 0 is what most pixels are, as 255 is in the source
    assert written(both, tmp_path, "wall", "crack")[1]["target"] == {0: 1, 1: 0}


def test_the_same_values_mean_the_same(tmp_path: Path) -> None:
    both = {"source": Stored("binary", {0: 10, 255: 90}, 1), "target": Stored("binary", {0: 80, 255: 20}, 1)}
    _, labels = written(both, tmp_path)
    assert labels == {"source": {0: 0, 255: 1}, "target": {0: 0, 255: 1}} and not guess_classes(both).notes


def test_colours_are_written_as_keys(tmp_path: Path) -> None:
    stored = {"target": Stored("colours", {0x804080: 6, 0x000000: 3, 0x0A0B0C: 1}, 1)}
    classes = guess_classes(stored, ("road", "sky", "car"))
    content = parse_yaml(classes_yaml("mine", classes, stored), "")
    assert content["maps"] == {"target_masks": {"128 64 128": "road", "0 0 0": "sky", "10 11 12": "car"}}
    assert content["classes"] == {"road": [128, 64, 128], "sky": [70, 70, 70], "car": [10, 11, 12]}
    assert "black" in classes.notes[0]
    (tmp_path / "mine.yaml").write_text(classes_yaml("mine", classes, stored))
    class_map = load_class_map(load_label_space(tmp_path / "mine.yaml"), "target_masks")
    assert [class_map.label_of(value) for value in stored["target"].pixels] == [0, 1, 2]


@pytest.mark.parametrize(
    ("stored", "names", "words"),
    [
        ({"source": Stored("ids", {0: 9}, 1)}, (), "one value"),
        ({"source": Stored("ids", {0: 9, 255: 9}, 1)}, (), "one value"),
        ({"source": Stored("ids", {0: 9, 1: 1}, 1)}, ("a", "b", "c"), "3 names of classes"),
        (
            {"source": Stored("ids", {0: 9, 1: 1, 2: 1}, 1), "target": Stored("binary", {0: 1, 255: 2}, 1)},
            (),
            "different",
        ),
    ],
)
def test_what_no_guess_can_bring_together(stored: dict[str, Stored], names: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        guess_classes(stored, names)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), min_size=1))
def test_texts_are_read_back_as_they_were(text: str) -> None:
    assume(text != "a")
    assert parse_yaml(f"a: {quoted(text)}\n{quoted(text)}: 1  # comment", "") == {"a": text, text: 1}
