"""Harmed labels: which images, which pixels, and that nothing else changes."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segzoo.data import Harmed, ImageSet, MiniCity, PairedFolders, SeveralDomains
from segzoo.data.domains import Domain, Pixels, Split
from segzoo.data.harm import HarmedImages
from segzoo.data.label_spaces import load_label_space
from segzoo.errors import ConfigError
from tests import tiny


class Few(ImageSet):
    """Images of one pixel colour and the given labels."""

    def __init__(self, labels: list[Pixels]) -> None:
        self.labels, self.names = labels, [str(i) for i in range(len(labels))]

    def image(self, index: int) -> Pixels:
        return np.zeros((*self.labels[index].shape, 3), np.uint8)

    def label(self, index: int) -> Pixels:
        return self.labels[index]


class Made(Domain):
    name, label_space = "made", load_label_space("minicity")

    def __init__(self, *labels: Pixels) -> None:
        self.set = Few(list(labels))

    def images(self, split: Split, root: Path) -> ImageSet:
        return self.set


def harmed(domain: Domain, split: Split = "train") -> HarmedImages:
    images = domain.images(split, Path())
    assert isinstance(images, HarmedImages)
    return images


def city(**options: Any) -> MiniCity:
    return MiniCity("source", train=8, val=2, test=2, size=tiny.SIZE, **options)


@given(st.integers(1, 6), st.integers(1, 6), st.floats(0, 1), st.lists(st.integers(0, 9), min_size=36, max_size=36))
def test_a_shift_is_that_of_every_pixel(height: int, width: int, amount: float, ids: list[int]) -> None:
    before = np.array([255 if i == 9 else i for i in ids[: height * width]], np.uint8).reshape(height, width)
    images = harmed(Harmed(Made(before), 1, "shifted", amount))
    after, wrong, by = images.label(0), images.wrong(0), round(amount * height)
    for y in range(height):
        for x in range(width):
            expected = before[y - by, x - by] if y >= by and x >= by else 255
            assert after[y, x] == expected
            assert wrong[y, x] == (expected not in (255, before[y, x]))


def test_two_classes_are_exchanged_and_the_others_stay() -> None:
    before = np.array([[0, 1, 2], [3, 2, 255]], np.uint8)
    images = harmed(Harmed(Made(before), 1, "exchanged", classes=("road", "sky")))
    np.testing.assert_array_equal(images.label(0), [[2, 1, 0], [3, 0, 255]])
    np.testing.assert_array_equal(images.wrong(0), [[True, False, True], [False, True, False]])


def test_a_smaller_share_is_a_part_of_a_larger_one() -> None:
    domain = Made(*[np.zeros((2, 2), np.uint8)] * 11)
    sets = [harmed(Harmed(domain, share / 10)).harmed for share in range(11)]
    assert [len(one) for one in sets] == [round(1.1 * k) for k in range(11)]
    assert all(small <= large for small, large in pairwise(sets))


def test_what_is_not_harmed_is_what_it_was() -> None:
    before, domain = city(), Harmed(city(), 0.5)
    images = harmed(domain)
    assert len(images.harmed) == 4 and images.names == before.images("train", Path()).names
    for i, name in enumerate(images.names):
        one = before.images("train", Path())
        np.testing.assert_array_equal(images.image(i), one.image(i), name)
        assert np.array_equal(images.label(i), one.label(i)) == (i not in images.harmed)
        assert (one.wrong(i) <= images.wrong(i)).all()  # MiniCity's own flaws stay known
    assert not isinstance(domain.images("val", Path()), HarmedImages)


def test_the_counted_labels_of_another_harm_are_not_taken_for_these(tmp_path: Path) -> None:
    from PIL import Image

    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / folder / "0.png")
    plain = PairedFolders(images="images", masks="masks", label_space="minicity")
    kinds = [plain, *(Harmed(plain, 1, "shifted", amount) for amount in (0.1, 0.5))]
    prints = [domain.images("train", tmp_path).fingerprint() for domain in kinds]
    assert None not in prints and len(set(prints)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 1.5}, "share"),
        ({"amount": -0.1}, "amount"),
        ({"kind": "exchanged"}, "classes` is nothing"),
        ({"kind": "exchanged", "classes": ("road", "road")}, "two different"),
        ({"kind": "exchanged", "classes": ("road", "boat")}, "road, boat"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Harmed(city(), **options)


def test_several_domains_are_harmed_one_by_one() -> None:
    with pytest.raises(ConfigError, match="one by one"):
        Harmed(SeveralDomains([city(), city(seed=1)]))
