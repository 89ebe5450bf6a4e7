"""Mask files: colours, one channel of several, arrays; what is read, and one line for what is not."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from PIL import Image

from segzoo.data.class_maps import ClassMap, packed
from segzoo.data.folders import FolderImages, PairedFolders
from segzoo.data.label_spaces import load_class_map, load_label_space
from segzoo.data.mask_files import check_head, find_masks, mask_size, read_colours, read_ids, read_mask
from segzoo.data.pairing import NONE, Affixes
from segzoo.errors import ConfigError, DataError

IDS = np.array([[0, 1, 2], [9, 10, 255]], np.uint8)
SPACE = load_label_space("camvid11")
PALETTE, IDENTITY = load_class_map(SPACE, "palette"), load_class_map(SPACE, "identity")
COLOURS = SPACE.colorize(IDS)


def pairs(root: Path, **options: Any) -> FolderImages:
    """One image, and the mask that the test writes."""
    (root / "images").mkdir(exist_ok=True)
    Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3)).save(root / "images/0.png")
    settings = {"images": "images", "masks": "masks", "label_space": "camvid11"} | options
    return PairedFolders(**settings).images("train", root)  # type: ignore[return-value]


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    (tmp_path / "masks").mkdir()
    return tmp_path / "masks"


def refusal(path: Path, class_map: ClassMap = IDENTITY, channel: Any = None) -> str:
    """The line about a file, which its head alone gives, too."""
    with pytest.raises(DataError) as error:
        read_mask(path, class_map, channel)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(DataError, match=r".") as early:
        check_head(path, class_map, channel)
    assert str(early.value) == str(error.value)
    return str(error.value)


def with_alpha(alpha: Any) -> np.ndarray:
    return np.dstack([COLOURS, np.broadcast_to(np.array(alpha, np.uint8), IDS.shape)])


@pytest.mark.parametrize(
    ("mode", "ending"),
    [(mode, ending) for mode in ("RGB", "RGBA", "P") for ending in ("png", "tif")] + [("RGB", "bmp")],
)
def test_colours_in_any_lossless_file(mode: str, ending: str, masks: Path) -> None:
    picture = Image.fromarray(COLOURS)
    picture = picture.quantize(8, dither=Image.Dither.NONE) if mode == "P" else picture.convert(mode)
    picture.save(masks / f"0.{ending}")
    images = pairs(masks.parent, class_map="palette")
    images.check()
    label, raw = images.label_and_ids(0)
    np.testing.assert_array_equal(label, IDS)
    np.testing.assert_array_equal(raw, packed(COLOURS))
    assert mask_size(masks / f"0.{ending}") == (3, 2)


def test_a_palette_holds_ids_or_colours_as_the_map_says(masks: Path) -> None:
    """GTA5: indices and the colours of Cityscapes, in one file."""
    picture = Image.fromarray(IDS % 11)
    picture.putpalette([value for colour in SPACE.palette for value in colour])
    picture.save(masks / "0.png")
    np.testing.assert_array_equal(pairs(masks.parent).label(0), IDS % 11)
    np.testing.assert_array_equal(pairs(masks.parent, class_map="palette").label(0), IDS % 11)


@settings(max_examples=25, deadline=None)
@given(arrays(np.uint8, (3, 4, 3)))
def test_every_colour_is_read_as_it_is(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("colours") / "0.png"
    cv2.imwrite(str(path), pixels[..., ::-1])
    r, g, b = (pixels[..., channel].astype(int) for channel in range(3))
    assert (read_colours(path) == r * 65536 + g * 256 + b).all()
    for channel, name in enumerate(("red", "green", "blue")):
        assert (read_ids(path, channel=name) == pixels[..., channel]).all()  # type: ignore[arg-type]


@pytest.mark.fault("half-transparent-mask")
def test_transparency_is_no_class(masks: Path) -> None:
    path = masks / "0.png"
    Image.fromarray(with_alpha([[255, 0, 255], [0, 255, 255]])).save(path)
    np.testing.assert_array_equal(pairs(masks.parent, class_map="palette").label(0), IDS)
    Image.fromarray(with_alpha([[255, 127, 255], [0, 255, 255]])).save(path)
    with pytest.raises(DataError, match=r"half transparent in 16.7 % of its pixels, where borders were smoothed"):
        read_mask(path, PALETTE)
    # A channel of ids has no borders of mixed colours, and alpha may hold anything.
    np.testing.assert_array_equal(read_ids(path, channel="green"), COLOURS[..., 1])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_three_equal_channels_are_ids(mode: str, masks: Path) -> None:
    Image.fromarray(IDS).convert(mode).save(masks / "0.png")
    images = pairs(masks.parent)
    images.check()
    np.testing.assert_array_equal(images.label(0), IDS)


@pytest.mark.fault("class-in-one-channel")
def test_the_class_in_one_channel(masks: Path) -> None:
    """CARLA's raw export: the class in red, instances in green and blue."""
    raw = np.dstack([IDS, np.arange(6).reshape(2, 3) * 40, np.full((2, 3), 7), np.full((2, 3), 255)]).astype(np.uint8)
    Image.fromarray(raw).save(masks / "0.png")
    message = refusal(masks / "0.png")
    assert "holds colours (6 of them: 0 0 7 (16.7 %)" in message
    assert "set channel (`data.DOMAIN.channel`) to red, whose values are ids of this class_map in 0.png" in message
    images = pairs(masks.parent, channel="red")
    images.check()
    np.testing.assert_array_equal(images.label(0), IDS)
    Image.fromarray(IDS).save(masks / "0.png")
    assert "has one channel (mode L), and channel (`data.DOMAIN.channel`) is 'red'" in refusal(
        masks / "0.png", channel="red"
    )
    with pytest.raises(ConfigError, match="'rot': expected red, green, blue, or null"):
        pairs(masks.parent, channel="rot")
    with pytest.raises(ConfigError, match="the class_map 'palette' lists colours; remove channel"):
        pairs(masks.parent, channel="red", class_map="palette")


def test_one_channel_of_16_bits(masks: Path) -> None:
    deep = np.dstack([IDS, np.full((2, 3), 300), np.full((2, 3), 65535)]).astype(np.uint16)
    cv2.imwrite(str(masks / "0.png"), deep[..., ::-1])
    for channel, name in enumerate(("red", "green", "blue")):
        np.testing.assert_array_equal(read_ids(masks / "0.png", channel=name), deep[..., channel])  # type: ignore[arg-type]
    np.testing.assert_array_equal(pairs(masks.parent).label(0), IDS)
    assert "has 16 bits per channel" in refusal(masks / "0.png", PALETTE)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, ">u2", bool])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_ids(order: Any, dtype: Any, masks: Path) -> None:
    ids = (IDS if dtype is not bool else IDS > 1).astype(dtype, order=order)
    np.save(masks / "0.npy", ids)
    images = pairs(masks.parent)
    images.check()
    np.testing.assert_array_equal(images.label(0), ids)
    assert mask_size(masks / "0.npy") == (3, 2)


@pytest.mark.fault("array-that-is-no-mask")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (IDS.astype(np.float32), "has shape (2, 3) and type float32, expected whole numbers of shape (H, W)"),
        (COLOURS, "has shape (2, 3, 3) and type uint8"),
        (np.array([{"a": 1}], object), "it is no array of numbers"),
        (b"abc", "it is no array of numbers"),
        (b"", "cannot read the mask"),
        (b"\x93NUMPY\x01\x00", "cannot read the mask"),
    ],
)
def test_an_array_that_is_no_mask(content: Any, expected: str, masks: Path) -> None:
    path = masks / "0.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    assert expected in refusal(path)


def test_an_array_of_ids_has_no_colours(masks: Path) -> None:
    np.save(masks / "0.npy", IDS)
    for class_map, channel, expected in (
        (PALETTE, None, "the class_map lists colours"),
        (IDENTITY, "red", "remove channel"),
    ):
        with pytest.raises(DataError, match=expected):
            read_mask(masks / "0.npy", class_map, channel)  # type: ignore[arg-type]


def test_16_bits_are_no_colours(masks: Path) -> None:
    Image.fromarray(IDS.astype(np.uint16)).save(masks / "0.png")
    assert "has 16 bits per channel (mode I;16), and the class_map lists colours of 8" in refusal(
        masks / "0.png", PALETTE
    )
    Image.new("CMYK", (3, 2)).save(masks / "1.tif")
    assert "has the mode CMYK, expected ids, RGB or RGBA" in refusal(masks / "1.tif", PALETTE)


@pytest.mark.fault("jpeg-masks")
@pytest.mark.parametrize("ending", [".jpg", ".JPEG", ".webp"])
def test_lossy_masks_are_refused_with_the_reason(ending: str, masks: Path) -> None:
    Image.fromarray(COLOURS).save(masks / f"0{ending}")
    with pytest.raises(
        DataError, match=rf"are {ending} files, such as 0{ending}: JPEG and WebP change .* export .* as PNG"
    ):
        find_masks(masks, NONE)
    with pytest.raises(DataError, match=r"no masks in .* whose stem ends in '_ids'"):  # photographs of the same folder
        find_masks(masks, Affixes("_ids"))
    Image.fromarray(IDS).save(masks / "0.png")
    assert find_masks(masks, NONE) == {"0": masks / "0.png"}


@pytest.mark.fault("unknown-colour")
def test_a_colour_map_of_ones_own(masks: Path) -> None:
    classes = {"road": [1, 1, 1], "car": [2, 2, 2]}
    space = masks.parent / "mine.yaml"
    maps = {"painted": {"road": ["128 64 128", [244, 35, 232]], "#00008e": "car", "others": "ignore"}}
    space.write_text(yaml.safe_dump({"name": "mine", "classes": classes, "maps": maps}, sort_keys=False))
    pixels = np.array(
        [[[128, 64, 128], [244, 35, 232], [0, 0, 142]], [[0, 0, 255], [128, 64, 127], [0, 0, 0]]], np.uint8
    )
    Image.fromarray(pixels).save(masks / "0.png")
    images = pairs(masks.parent, label_space=str(space), class_map="painted")
    assert images.label(0).tolist() == [[0, 0, 1], [255, 255, 255]]
    before = images.fingerprint()
    maps["painted"]["others"] = "road"
    space.write_text(yaml.safe_dump({"name": "mine", "classes": classes, "maps": maps}, sort_keys=False))
    assert pairs(masks.parent, label_space=str(space), class_map="painted").fingerprint() != before
    del maps["painted"]["others"]
    space.write_text(yaml.safe_dump({"name": "mine", "classes": classes, "maps": maps}, sort_keys=False))
    with pytest.raises(DataError, match=r"unknown colour .* in .*0.png \(16.7 % of the pixels\)"):
        pairs(masks.parent, label_space=str(space), class_map="painted").label(0)
