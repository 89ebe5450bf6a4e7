"""MiniFaces: reproducible, varied, and labelled as drawn."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segzoo.data import MiniFaces
from segzoo.data.label_spaces import load_class_map, load_label_space
from segzoo.data.minifaces import CLASSES, GENERATOR_VERSION, draw, generate
from segzoo.data.minifaces.drawing import BROWS, EYES, HAIR, MOUTH, NOSE, SKIN
from segzoo.errors import ConfigError


@pytest.fixture(scope="module")
def faces() -> tuple[np.ndarray, np.ndarray]:
    """A hundred images and labels."""
    drawn = [draw(100, i) for i in range(100)]
    return np.stack([image for image, _ in drawn]), np.stack([label for _, label in drawn])


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    first=st.integers(0, 10**7),
    size=st.tuples(st.integers(32, 80), st.integers(32, 80)),
)
def test_an_image_depends_on_seed_index_and_size_only(seed: int, first: int, size: tuple[int, int]) -> None:
    three, alone = generate(seed, 3, size, first=first), generate(seed, 1, size, first=first + 2)
    np.testing.assert_array_equal(three.image(2), alone.image(0))
    np.testing.assert_array_equal(three.label(2), alone.label(0))
    assert three.image(0).shape == (*size, 3) and three.label(0).shape == size
    assert three.image(0).dtype == three.label(0).dtype == np.uint8
    assert three.names[2] == alone.names[0] and len(set(three.names)) == 3
    assert (three.image(0) != three.image(1)).mean() > 0.5


def test_pixels_are_as_ever() -> None:
    """Weights are trained on them: whoever changes a pixel raises the version, and trains anew."""
    image, label = draw(0, 0)
    assert GENERATOR_VERSION == 1
    assert image.mean() == pytest.approx(157.427, abs=0.01)  # a rounding may fall the other way elsewhere
    np.testing.assert_allclose(np.bincount(label.ravel(), minlength=7), [2064, 899, 959, 55, 34, 40, 45], atol=3)


def test_splits_share_no_face() -> None:
    domain = MiniFaces(train=3, val=3, test=3)
    names = [name for split in ("train", "val", "test") for name in domain.images(split, Path()).names]  # type: ignore[arg-type]
    assert len(set(names)) == 9
    assert (domain.images("train", Path()).image(0) != MiniFaces(seed=1).images("train", Path()).image(0)).any()


def test_classes_frequencies_and_label_space(faces: tuple[np.ndarray, np.ndarray]) -> None:
    _, labels = faces
    share = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
    assert labels.max() < len(CLASSES)
    assert share[SKIN] > 0.2 and share[HAIR] > 0.12
    for part in (EYES, BROWS, NOSE, MOUTH):  # small, but in every face
        assert 0.004 < share[part] < 0.03
        assert ((labels == part).sum((1, 2)) > 3).all()
    space = load_label_space("minifaces")
    assert space.classes == CLASSES and space.subsets["foreground"] == tuple(range(1, 7))


def test_parts_are_where_a_face_has_them(faces: tuple[np.ndarray, np.ndarray]) -> None:
    _, labels = faces
    rows = np.arange(64)[None, :, None]
    height = {
        part: ((labels == part) * rows).sum((1, 2)) / (labels == part).sum((1, 2))
        for part in (EYES, BROWS, NOSE, MOUTH)
    }
    for upper, lower in ((BROWS, EYES), (EYES, NOSE), (NOSE, MOUTH)):
        assert (height[upper] < height[lower]).all()


def test_faces_vary(faces: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = faces
    skin = np.stack([image[label == SKIN].mean(0) for image, label in zip(images, labels, strict=True)])
    assert skin.mean(1).std() > 25
    columns = np.arange(64)[None, None, :]
    nose = ((labels == NOSE) * columns).sum((1, 2)) / (labels == NOSE).sum((1, 2))
    assert nose.std() > 2
    assert (labels == HAIR).mean((1, 2)).std() > 0.05


def test_a_colour_does_not_give_the_class_away(faces: tuple[np.ndarray, np.ndarray]) -> None:
    """Skin and hair overlap: the nearest mean colour is no segmenter."""
    images, labels = faces
    x, y = images[:, ::2, ::2].reshape(-1, 3).astype(float), labels[:, ::2, ::2].ravel()
    means = np.stack([x[y == c].mean(0) for c in range(len(CLASSES))])
    nearest = np.linalg.norm(x[:, None] - means, axis=-1).argmin(1)
    assert (nearest == y).mean() < 0.55


@pytest.mark.parametrize("options", [{"seed": -1}, {"train": -1}, {"size": (64, 31)}])
def test_what_cannot_work_is_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match="MiniFaces"):
        MiniFaces(**options)


def test_the_published_protocol_of_celebamask() -> None:
    left_right = [f"{side}_{part}" for part in ("eye", "brow", "ear") for side in "lr"]
    names = ["background", "skin", "nose", "eyeglasses", *left_right, "mouth", "u_lip", "l_lip", "hair"]
    names += ["hat", "ear_r", "neck_l", "neck", "cloth"]
    parts = {"eye": "eye", "brow": "brow", "ear": "ear"} | {name: name for name in ("skin", "nose", "mouth", "hair")}
    parts |= {"eyeglasses": "skin", "u_lip": "mouth", "l_lip": "mouth"}
    space = load_label_space("celebamask8")
    lut = load_class_map(space, "celebamask").lut
    for raw, name in enumerate(names):
        expected = parts.get(name) or parts.get(name.removeprefix("l_").removeprefix("r_"), "background")
        assert space.classes[lut[raw]] == expected, name
    assert (lut[len(names) : 255] == -1).all() and lut[255] == 255
    assert space.subsets["foreground"] == tuple(range(1, 8))


def test_real_masks_of_celebamask_are_understood(shared: Path) -> None:
    from segzoo.data import PairedFolders

    folder = shared / "data" / "celebamask"
    images = PairedFolders("image", "label", "celebamask8", "celebamask").images("train", folder)
    labels = np.stack([images.label(i) for i in range(40)])
    assert labels.max() == 7 and set(np.unique(labels)) == set(range(8))
