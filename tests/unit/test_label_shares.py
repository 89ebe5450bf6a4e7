"""Whether source and target can hold the same classes: what is said of wrong orders, and nothing of right ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from segzoo.data import PairedFolders, from_folders
from segzoo.data.class_maps import BINARY, IGNORE_INDEX, ClassMap
from segzoo.data.domains import ImageSet, Pixels
from segzoo.data.label_check import check_labels, look_at_labels
from segzoo.data.label_shares import Looked, odd_pair, shares_table
from segzoo.data.label_spaces import LabelSpace, load_class_map
from segzoo.data.map_entries import read_map
from segzoo.errors import DataError
from tests.unit.test_label_check import BOTH, Written

STREET = LabelSpace("street", ("sky", "house", "tree", "road", "car"), tuple((i, 1, 1) for i in range(1, 6)))
TWO = LabelSpace("cracks", ("wall", "crack"), ((9, 9, 9), (255, 0, 0)))
GENERATOR = np.random.default_rng(0)


def street(rows: Sequence[int] = (6, 4, 3, 7)) -> Pixels:
    """Sky above houses above trees above a road with a car, over so many rows each."""
    label = np.repeat(np.repeat(np.arange(4), rows)[:, None], 30, axis=1).astype(np.uint8)
    label[-4:-1, 12:18] = 4
    return label


class Drawn(ImageSet):
    """Labels that stand in the memory, and the values that files would hold for them."""

    def __init__(
        self, labels: Sequence[Pixels], raw: Sequence[Any] | None = None, class_map: ClassMap | None = None
    ) -> None:
        self.names = [str(i) for i in range(len(labels))]
        self.labels, self.raw, self.class_map = labels, raw, class_map

    def image(self, index: int) -> Pixels:
        return GENERATOR.integers(0, 256, (*self.labels[index].shape, 3), np.uint8)

    def label(self, index: int) -> Pixels:
        return self.labels[index]

    def label_and_ids(self, index: int) -> tuple[Pixels, Any]:
        return self.labels[index], None if self.raw is None else self.raw[index]


def look(source: ImageSet, target: ImageSet, space: LabelSpace = STREET) -> list[Looked]:
    sets = {"source/train": source, "target/train": target}
    return look_at_labels({name: (images, range(len(images))) for name, images in sets.items()}, space)


SIMULATED = [street(), street((8, 4, 1, 7))]
REAL = [street((4, 7, 3, 6)), street((3, 8, 2, 7))]


def test_right_classes_pass_in_silence() -> None:
    assert odd_pair(look(Drawn(SIMULATED), Drawn(REAL)), STREET) == []
    assert odd_pair(look(Drawn(SIMULATED), Drawn([])), STREET) == []


@pytest.mark.fault("class-maps-of-source-and-target-differ")
@pytest.mark.parametrize(
    ("order", "how"),
    [
        ([1, 2, 3, 4, 0], "shifted by one id"),
        ([4, 0, 1, 2, 3], "shifted by one id"),
        ([4, 3, 2, 1, 0], "in the reverse order"),
        ([3, 1, 2, 0, 4], "with 'sky' and 'road' exchanged"),
    ],
)
def test_another_order_of_the_classes_is_named(order: list[int], how: str) -> None:
    wrong = [np.array(order, np.uint8)[label] for label in SIMULATED]
    for source, target in ((wrong, REAL), (REAL, wrong)):
        (warning,) = odd_pair(look(Drawn(source), Drawn(target)), STREET)
        assert f"; {how} they would be more alike: do the masks of both fit their class_map ('identity')?" in warning


@pytest.mark.fault("class-maps-of-source-and-target-differ")
def test_classes_of_equal_shares_are_told_apart_by_their_places() -> None:
    upright, upside_down = [street((7, 3, 3, 7))], [street((7, 3, 3, 7))]
    upside_down[0] = np.array([3, 1, 2, 0, 4], np.uint8)[upside_down[0]]
    (warning,) = odd_pair(look(Drawn(upright), Drawn(upside_down)), STREET)
    assert warning.startswith("source and target hold the classes at very different places or in different shares")
    assert "with 'sky' and 'road' exchanged" in warning


def test_a_class_that_one_domain_lacks_is_not_said_to_be_exchanged() -> None:
    label = street()
    assert (
        odd_pair(look(Drawn([np.where(label == 3, 0, label)]), Drawn([np.where(label == 0, 3, label)])), STREET) == []
    )


@pytest.mark.fault("class-maps-of-source-and-target-differ")
def test_class_maps_that_were_exchanged() -> None:
    names = STREET.classes
    first = read_map({10 + i: name for i, name in enumerate(names)} | {"others": "ignore"}, names, "first", "first")
    second = read_map(
        {(10 + 3 * i) % 15: name for i, name in enumerate(names)} | {"others": "ignore"}, names, "second", "second"
    )
    raw = {first: [label + 10 for label in SIMULATED], second: [(10 + 3 * label) % 15 for label in REAL]}

    def drawn(stored: ClassMap, read_by: ClassMap) -> Drawn:
        return Drawn([read_by.apply(ids, "mask.png") for ids in raw[stored]], raw[stored], read_by)

    assert odd_pair(look(drawn(first, first), drawn(second, second)), STREET) == []
    (warning,) = odd_pair(look(drawn(first, second), drawn(second, first)), STREET)
    assert "with their class maps exchanged they would be more alike" in warning and "('second' and 'first')" in warning


def test_shares_stand_side_by_side() -> None:
    labels = [np.array([[0, 0, 1, 255]], np.uint8)], [np.array([[0, 3, 3, 3]], np.uint8)]
    assert shares_table(look(Drawn(labels[0]), Drawn(labels[1])), STREET) == [
        "class      source  target",
        "sky        66.7 %  25.0 %",
        "house      33.3 %       -",
        "tree            -       -",
        "road            -  75.0 %",
        "car             -       -",
        "(ignored)  25.0 %   0.0 %",
    ]
    assert shares_table([], STREET) == []


def test_pixels_are_counted_as_one_by_one() -> None:
    label = GENERATOR.integers(0, 6, (17, 11)).astype(np.uint8)
    label[label == 5] = IGNORE_INDEX
    raw = GENERATOR.choice([0, 7, 70000, 2**24 - 1], (17, 11)).astype(np.uint32)
    (looked,) = look_at_labels({"source/train": (Drawn([label], [raw]), [0])}, STREET)
    rows, columns = ([i for i, part in enumerate(np.array_split(range(n), 3)) for _ in part] for n in label.shape)
    expected = np.zeros((256, 9), int)
    for i in range(17):
        for j in range(11):
            expected[label[i, j], 3 * rows[i] + columns[j]] += 1
    np.testing.assert_array_equal(looked.places, expected)
    assert looked.raw == {int(value): int((raw == value).sum()) for value in np.unique(raw)}


@pytest.mark.fault("binary-with-1-and-255")
def test_binary_masks_hold_1_or_255_but_not_both() -> None:
    binary = load_class_map(TWO, BINARY)

    def check(*ids: int) -> list[str]:
        raw = [np.repeat(np.array(ids, np.uint8)[:, None], 6, axis=1)] * 2
        drawn = Drawn([binary.apply(one, "mask.png") for one in raw], raw, binary)
        return check_labels({"source/train": (drawn, [0, 1])}, TWO)

    assert check(0, 0, 255) == check(0, 0, 1) == []
    with pytest.raises(
        DataError, match=r"the masks hold 1 \(33.3 % of the pixels\) and 255, and by the class_map binary both are"
    ):
        check(0, 1, 255)


@pytest.mark.fault("foreground-of-255")
def test_a_foreground_of_255_needs_no_map_of_ones_own() -> None:
    identity = load_class_map(TWO, "identity")
    raw = [np.repeat(np.array([0, 0, 255], np.uint8)[:, None], 6, axis=1)]
    with pytest.raises(
        DataError,
        match=r"if 255 is one too, set class_map to binary \(`data.source.class_map`, or source_map of from_folders\)",
    ):
        check_labels({"source/train": (Drawn([identity.apply(raw[0], "0.png")], raw, identity), [0])}, TWO)


def test_masks_in_colours_are_looked_at(tmp_path: Any) -> None:
    written = Written(tmp_path)
    colours = np.array([[90, 90, 200], [255, 0, 0], [0, 255, 0]], np.uint8)
    masks = lambda _: np.repeat(colours[np.arange(20) % 3][:, None], 20, axis=1)  # noqa: E731
    data = written.data(masks, masks, class_map="palette")
    assert data.check_labels(BOTH, ("val", "test")) == []
    assert sorted(data.looked["source/train"].raw) == [0x00FF00, 0x5A5AC8, 0xFF0000]
    photographs = Written(tmp_path / "b")
    noise = lambda i: np.random.default_rng(i).integers(0, 256, (20, 20, 3), np.uint8)  # noqa: E731
    maps = {"m": {"background": "90 90 200", "crack": [[255, 0, 0]], "others": "paint"}}
    data = photographs.data(noise, masks, class_map="m", maps=maps)
    with pytest.raises(DataError, match="different ids, as photographs do"):
        data.check_labels(BOTH, ())
    void = Written(tmp_path / "c")
    black = lambda _: np.zeros((20, 20, 3), np.uint8)  # noqa: E731
    with pytest.raises(
        DataError, match=r"every pixel is ignored .*: the masks hold 0 0 0, classes are 0 255 0, 90 90 200, 255 0 0"
    ):
        void.data(black, masks, class_map="palette").check_labels(BOTH, ())


def test_from_python_a_colour_may_be_a_tuple(tmp_path: Any) -> None:
    written = Written(tmp_path)
    masks = lambda _: np.tile(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8), (20, 10, 1))  # noqa: E731
    for name in ("source", "target"):
        written.write(name, masks)
    data = from_folders(
        (tmp_path / "source/image", tmp_path / "source/mask"),
        (tmp_path / "target/image", tmp_path / "target/mask"),
        label_space=["wall", "crack"],
        size=(32, 32),
        source_map={(0, 0, 0): "wall", "#ffffff": "crack"},
        target_map="binary",
        blocks=(1, 0, 0),
    )
    for domain in (data.source, data.target):
        assert isinstance(domain, PairedFolders)
        assert domain.images("train", tmp_path).label(0)[0, :2].tolist() == [0, 1]
