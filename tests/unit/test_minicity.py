"""MiniCity: reproducible, recognisably two domains, wrong where it says so and nowhere else."""

from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segzoo.data.domains import ImageSet
from segzoo.data.label_spaces import load_label_space
from segzoo.data.minicity import CLASSES, Flaws, MiniCity, MiniCityImages, generate, sets
from segzoo.data.minicity.sets import FIRST_INDEX, DomainName
from segzoo.errors import ConfigError

SMALL = (48, 80)
DOMAINS: list[DomainName] = ["source", "target"]
RARE = ("pole", "sign", "pedestrian")


@lru_cache
def sample(domain: DomainName, flaws: float = 1.0) -> MiniCityImages:
    """Fifty images of the default size, drawn once for all tests."""
    return generate(domain, 100, 50, first=FIRST_INDEX["val"], flaws=Flaws().scaled(flaws))


def stack(images: MiniCityImages) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels and wrong masks of a whole set."""
    every = range(len(images))
    return (
        np.stack([images.image(i) for i in every]),
        np.stack([images.label(i) for i in every]),
        np.stack([images.wrong(i) for i in every]),
    )


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGZOO_CACHE", str(tmp_path))
    return tmp_path


@settings(max_examples=12, deadline=None)
@given(
    domain=st.sampled_from(DOMAINS),
    seed=st.integers(0, 2**40),
    first=st.integers(0, 10**7),
    size=st.tuples(st.integers(32, 70), st.integers(32, 110)),
)
def test_an_image_depends_on_seed_domain_and_index_only(
    domain: DomainName, seed: int, first: int, size: tuple[int, int]
) -> None:
    three = generate(domain, seed, 3, size, first=first)
    alone = generate(domain, seed, 1, size, first=first + 2)
    for one, other in zip(stack(three), stack(alone), strict=True):
        np.testing.assert_array_equal(one[2], other[0])
    images, labels, wrong = stack(three)
    assert images.shape == (3, *size, 3) and labels.shape == wrong.shape == (3, *size)
    assert images.dtype == labels.dtype == np.uint8 and wrong.dtype == np.bool_
    assert set(np.unique(labels)) <= {*range(len(CLASSES)), 255}
    assert (images[0] != images[1]).mean() > 0.05  # another index is another image
    assert three.names[2] == alone.names[0] and len(set(three.names)) == 3
    if domain == "target":
        assert not wrong.any()


def test_seeds_and_domains_differ() -> None:
    a, b, c = (
        generate("source", 0, 1, SMALL),
        generate("source", 1, 1, SMALL),
        generate("target", 0, 1, SMALL),
    )
    assert (a.image(0) != b.image(0)).any() and (a.image(0) != c.image(0)).mean() > 0.5


def test_the_label_space_has_the_classes_in_order() -> None:
    space = load_label_space("minicity")
    assert space.classes == CLASSES and MiniCity("source").label_space == space


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_class_occurs_and_some_are_rare(domain: DomainName) -> None:
    _, labels, _ = stack(sample(domain, 0.0))
    share = dict(zip(CLASSES, np.bincount(labels.ravel(), minlength=256)[: len(CLASSES)] / labels.size, strict=True))
    assert min(share.values()) > 0.001
    assert all(share[name] < 0.05 for name in RARE), share
    assert share["road"] + share["building"] > 0.5
    assert (labels == 255).mean() < 0.01


def test_the_domains_have_other_class_frequencies() -> None:
    source, target = (stack(sample(domain, 0.0))[1] for domain in DOMAINS)
    car, person, tree = (CLASSES.index(name) for name in ("car", "pedestrian", "tree"))
    assert (target == car).mean() > 1.6 * (source == car).mean()
    assert (target == person).mean() > 1.4 * (source == person).mean()
    assert (source == tree).mean() > 1.5 * (target == tree).mean()


def test_the_domains_have_other_colours() -> None:
    """The rendered domain is colourful; the photo-like one is dull, and its classes overlap."""
    source, target = (stack(sample(domain, 0.0)) for domain in DOMAINS)

    def saturation(images: np.ndarray) -> float:
        return float((images.max(-1).astype(float) - images.min(-1)).mean())

    assert saturation(source[0]) > 1.6 * saturation(target[0])

    def separation(images: np.ndarray, labels: np.ndarray, one: str, other: str) -> float:
        """Distance of the two classes' mean colours in units of their spread."""
        a, b = (images[labels == CLASSES.index(name)].astype(float) for name in (one, other))
        return float(np.linalg.norm(a.mean(0) - b.mean(0)) / np.sqrt(a.var(0).sum() + b.var(0).sum()))

    for pair in (("building", "road"), ("tree", "building"), ("tree", "car"), ("road", "pavement")):
        assert separation(*source[:2], *pair) > 1.3 * separation(*target[:2], *pair), pair


def test_the_wrong_share_of_the_source_is_as_documented() -> None:
    _, claimed, wrong = stack(sample("source"))
    _, true, none = stack(sample("source", 0.0))
    assert not none.any()
    assert 0.2 < wrong.mean() < 0.32
    assert wrong[claimed != true].all()  # a label that is not the true one is always marked
    for name, low, high in (
        ("sign", 0.4, 0.75),
        ("pedestrian", 0.4, 0.75),
        ("building", 0.2, 0.5),
        ("sky", 0, 0.1),
    ):
        share = wrong[true == CLASSES.index(name)].mean()
        assert low <= share <= high, (name, share)
    assert not stack(sample("target"))[2].any()


def test_without_flaws_the_rest_of_the_image_is_the_same() -> None:
    image, label, wrong = stack(sample("source"))
    clean_image, clean_label, _ = stack(sample("source", 0.0))
    np.testing.assert_array_equal(image[~wrong], clean_image[~wrong])
    np.testing.assert_array_equal(label[~wrong], clean_label[~wrong])
    assert (image != clean_image).any() and (label != clean_label).any()


@pytest.mark.parametrize("rule", [f.name for f in fields(Flaws) if f.name != "halo_width"])
def test_each_flaw_alone_makes_something_wrong(rule: str) -> None:
    none = {f.name: 0.0 for f in fields(Flaws) if f.name != "halo_width"}
    drawn = generate("source", 100, 4, SMALL, flaws=Flaws(**(none | {rule: 1.0})))
    clean = generate("source", 100, 4, SMALL, flaws=Flaws(**none))
    wrong = stack(drawn)[2]
    assert 0 < wrong.mean() < 0.8
    repaints = rule in ("green_building", "asphalt_car", "paved_road")
    np.testing.assert_array_equal((stack(drawn)[1] != stack(clean)[1]).any(), not repaints)
    np.testing.assert_array_equal((stack(drawn)[0] != stack(clean)[0]).any(), repaints)


def test_the_target_has_no_flaws_whatever_is_asked() -> None:
    spoilt = generate("target", 100, 2, SMALL, flaws=Flaws().scaled(10))
    for one, other in zip(stack(spoilt), stack(generate("target", 100, 2, SMALL)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_scaled_flaws() -> None:
    assert Flaws().scaled(0) == Flaws(**({f.name: 0.0 for f in fields(Flaws)} | {"halo_width": Flaws().halo_width}))
    assert Flaws().scaled(100).sign == 1.0 and Flaws().scaled(1) == Flaws()


def test_the_wrong_mask_is_not_part_of_the_data_interface() -> None:
    """A data module knows `ImageSet`; only an analysis that asks MiniCity by name gets the mask."""
    images = MiniCity("source", train=1, size=SMALL).images("train", Path())
    assert isinstance(images, ImageSet) and not hasattr(ImageSet, "wrong")
    assert images.image(0).shape == (*SMALL, 3) and images.label(0).shape == SMALL and images.wrong(0).shape == SMALL


def test_splits_are_apart_and_do_not_depend_on_each_others_size(own_cache: Path) -> None:
    city = MiniCity("target", train=2, val=2, test=2, size=SMALL)
    drawn = [city.images(split, Path()) for split in ("train", "val", "test")]
    names = [name for images in drawn for name in images.names]
    assert len(set(names)) == 6
    assert len({images.image(i).tobytes() for images in drawn for i in range(2)}) == 6
    longer = MiniCity("target", train=5, val=2, test=2, size=SMALL)
    np.testing.assert_array_equal(longer.images("train", Path()).image(1), drawn[0].image(1))
    assert longer.cache_path("train") != city.cache_path("train")


def no_drawing(*_: object, **__: object) -> None:
    raise AssertionError("drawn again although it is cached")


def test_the_cache_gives_back_what_was_drawn(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    city = MiniCity("source", train=3, size=SMALL)
    drawn = city.images("train", Path())
    assert [path.suffix for path in own_cache.rglob("*") if path.is_file()] == [".npz"]
    monkeypatch.setattr(sets, "draw", no_drawing)
    for one, other in zip(stack(drawn), stack(city.images("train", Path())), strict=True):
        np.testing.assert_array_equal(one, other)
    assert city.images("train", Path()).names == drawn.names


@pytest.mark.parametrize("change", [{"seed": 1}, {"train": 4}, {"size": (48, 96)}, {"flaws": 0.5}])
def test_other_parameters_have_another_cache(change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"train": 3, "size": SMALL}
    first, second = MiniCity("source", **base), MiniCity("source", **(base | change))
    assert first.cache_path("train") != second.cache_path("train")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_cache_is_drawn_again(damage: str) -> None:
    city = MiniCity("source", val=2, size=SMALL)
    drawn = city.images("val", Path())
    path = city.cache_path("val")
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        middle = len(whole) // 3
        path.write_bytes(
            whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 64]) + whole[middle + 64 :]
        )
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        more = MiniCity("source", val=3, size=SMALL)
        more.images("val", Path())
        path.write_bytes(more.cache_path("val").read_bytes())  # a sound file with another number of images
    for one, other in zip(stack(drawn), stack(city.images("val", Path())), strict=True):
        np.testing.assert_array_equal(one, other)
    assert path.read_bytes()[:2] == b"PK"  # and stored again


def test_a_cache_that_cannot_be_written_only_warns(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = own_cache / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("SEGZOO_CACHE", str(blocked))
    with pytest.warns(UserWarning, match="SEGZOO_CACHE"):
        assert len(MiniCity("target", val=1, size=SMALL).images("val", Path())) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domain": "real"}, "expected source or target"),
        ({"domain": "source", "seed": -1}, "seed is -1"),
        ({"domain": "source", "size": (8, 160)}, "at least 32"),
        ({"domain": "source", "val": -5}, "val is -5"),
        ({"domain": "source", "flaws": -0.1}, "flaws is -0.1"),
    ],
)
def test_impossible_parameters_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MiniCity(**arguments)
