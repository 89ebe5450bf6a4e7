"""What image and mask files store: depths, orientations, pages, and formats that do not keep ids."""

import struct
import tracemalloc
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from segzoo.data.folders import FolderImages, PairedFolders
from segzoo.data.image_files import read_image, sizes_of
from segzoo.errors import ConfigError, DataError

IDS = np.array([[0, 1, 2], [9, 10, 255]], np.uint8)
RAMP = np.array([[0, 16, 1600], [2047, 3000, 4095]], np.uint16)
"""Values of 12 bits."""


def write_tiff(path: Path, pixels: npt.NDArray[np.generic], tags: dict[int, int], width: int | None = None) -> None:
    """A TIFF of one strip with exactly these tags; ``pixels`` are the rows as stored, ``width`` that of packed ones."""
    height, data = pixels.shape[0], pixels.tobytes()
    bits = {"bits": 8 * pixels.itemsize}["bits"]
    shape = {256: width or pixels.shape[1], 257: height, 258: bits, 259: 1, 262: 1, 277: 1, 278: height, 279: len(data)}
    entries = sorted((shape | tags | {273: 0}).items())
    start = 8 + 2 + 12 * len(entries) + 4
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, value in entries:
        head += struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value)
    path.write_bytes(head + bytes(4) + data)


def pairs(root: Path, **options: object) -> FolderImages:
    """One pair of image and mask, which are written by the test or are these."""
    for name in ("images", "masks"):
        (root / name).mkdir(exist_ok=True)
    if not any((root / "images").iterdir()):
        Image.new("RGB", (3, 2), (9, 9, 9)).save(root / "images/0.png")
    if not any((root / "masks").iterdir()):
        Image.fromarray(IDS).save(root / "masks/0.png")
    settings = {"images": "images", "masks": "masks", "label_space": "camvid11"} | options
    return PairedFolders(**settings).images("train", root)  # type: ignore[arg-type]


def refusal(images: FolderImages, what: str) -> str:
    with pytest.raises(DataError) as error:
        getattr(images, what)(0)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    return tmp_path


def write_deep(path: Path, values: npt.NDArray[np.uint16], channels: int) -> None:
    colours = values if channels == 1 else np.dstack([values] * channels)
    assert cv2.imwrite(str(path), colours)


@pytest.mark.fault("images-of-12-bits")
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_images_of_12_bits_are_scaled_by_their_depth(ending: str, channels: int, root: Path) -> None:
    write_deep(root / f"images/0.{ending}", RAMP, channels)
    message = refusal(pairs(root), "image")
    assert (
        "none that was looked at holds more than 4095 of 65535; set image_bits (`data.DOMAIN.image_bits`) to 12"
        in message
    )
    pixels = pairs(root, image_bits=12).image(0)
    np.testing.assert_array_equal(pixels, np.repeat((RAMP >> 4).astype(np.uint8)[..., None], 3, axis=2))
    assert pixels.max() == 255
    assert pairs(root, image_bits=16).image(0).max() == 15, "said to be that dark"


@pytest.mark.fault("images-of-12-bits")
def test_depth_is_of_the_set_and_not_of_the_image(root: Path) -> None:
    for i, largest in enumerate((300, 65535, 20000)):
        write_deep(root / f"images/{i}.png", np.linspace(0, largest, 6).reshape(2, 3).astype(np.uint16), 1)
        Image.fromarray(IDS).save(root / f"masks/{i}.png")
    images = pairs(root)
    assert [int(images.image(i).max()) for i in range(3)] == [300 >> 8, 255, 20000 >> 8]


@pytest.mark.fault("images-of-12-bits")
def test_colours_keep_their_order(root: Path) -> None:
    bgr = np.zeros((2, 3, 3), np.uint16)
    bgr[..., 0], bgr[..., 1], bgr[..., 2] = 1023, 512, 256
    cv2.imwrite(str(root / "images/0.png"), bgr)
    assert pairs(root, image_bits=10).image(0)[0, 0].tolist() == [64, 128, 255]


@pytest.mark.fault("images-of-12-bits")
def test_packed_12_bits_say_so_themselves(root: Path) -> None:
    packed = np.array([[0xFF, 0xF0, 0x01, 0x80, 0x00], [0] * 5], np.uint8)
    write_tiff(root / "images/0.tif", packed, {258: 12}, width=3)
    assert pairs(root).image(0)[0, :, 0].tolist() == [255, 0, 128]


@pytest.mark.fault("brighter-than-image-bits")
def test_an_image_brighter_than_its_bits_is_refused(root: Path) -> None:
    write_deep(root / "images/0.png", RAMP, 1)
    assert "holds the value 4095, which 10 bits cannot" in refusal(pairs(root, image_bits=10), "image")
    with pytest.raises(ConfigError, match="image_bits 20: expected 8 to 16"):
        pairs(root, image_bits=20)


def test_16_bit_colours_cut_short_are_refused(root: Path) -> None:
    path = root / "images/0.png"
    write_deep(path, np.random.default_rng(0).integers(0, 65535, (64, 64), np.uint16), 3)
    path.write_bytes(path.read_bytes()[:-9000])
    assert refusal(pairs(root), "image").startswith(f"cannot read the image {path}")


def write_turned(path: Path, pixels: npt.NDArray[np.uint8], orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=100, subsampling=0)


@pytest.mark.fault("exif-turn-and-upright-mask")
def test_an_image_is_turned_where_only_the_turned_one_fits_its_mask(root: Path) -> None:
    upright = np.zeros((24, 16, 3), np.uint8)
    upright[:8] = 200
    write_turned(root / "images/0.jpg", np.rot90(upright).copy(), 6)  # 6: turn by 90 degrees clockwise
    Image.fromarray(np.zeros((24, 16), np.uint8)).save(root / "masks/0.png")
    images = pairs(root)
    images.check()
    assert images.label(0).shape == (24, 16)
    assert np.abs(images.image(0).astype(int) - upright).max() < 40
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(root / "masks/0.png")
    assert pairs(root).image(0).shape == (16, 24, 3), "the mask was drawn on the pixels as they are stored"
    Image.fromarray(np.zeros((16, 23), np.uint8)).save(root / "masks/0.png")
    assert "both must agree" in refusal(pairs(root), "label")


@pytest.mark.fault("exif-turn-and-upright-mask")
@pytest.mark.parametrize(("orientation", "size"), [(3, (16, 24)), (6, (16, 16)), (2, (16, 24))])
def test_where_both_fit_the_user_says_which(orientation: int, size: tuple[int, int], root: Path) -> None:
    stored = np.zeros((*size, 3), np.uint8)
    stored[:4, :4] = 255
    write_turned(root / "images/0.jpg", stored, orientation)
    Image.fromarray(np.zeros(size, np.uint8)).save(root / "masks/0.png")
    for what in ("image", "label"):
        message = refusal(pairs(root), what)
        assert f"EXIF orientation {orientation}" in message and "`data.DOMAIN.upright`" in message
    with pytest.raises(DataError, match="set upright"):
        pairs(root).check()
    corners = {2: (0, -1), 3: (-1, -1), 6: (0, -1)}
    turned, as_stored = pairs(root, upright=True).image(0), pairs(root, upright=False).image(0)
    assert turned[corners[orientation]].min() > 200 and as_stored[0, 0].min() > 200
    assert turned[0, 0].max() < 50 and pairs(root, upright=True).label(0).shape == size


@pytest.mark.fault("exif-turn-and-upright-mask")
def test_where_both_fit_the_other_images_say_which(root: Path) -> None:
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:4, :4] = 255
    for name, orientation in (("0", 3), ("1", 6), ("2", 1)):
        write_turned(root / f"images/{name}.jpg", stored, orientation)
        shape = (24, 16) if orientation == 6 else (16, 24)
        Image.fromarray(np.zeros(shape, np.uint8)).save(root / f"masks/{name}.png")
    images = pairs(root)
    images.check()
    assert images.image(0)[-1, -1].min() > 200 and images.image(2)[0, 0].min() > 200
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(root / "masks/1.png")
    assert pairs(root).image(0)[0, 0].min() > 200
    write_turned(root / "images/3.jpg", stored, 8)
    Image.fromarray(np.zeros((24, 16), np.uint8)).save(root / "masks/3.png")
    assert "may have been drawn on either" in refusal(pairs(root), "image"), "one of each kind"


@pytest.mark.fault("turned-tiff")
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_is_turned_by_its_own_tag(compression: str, orientation: int, root: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(with_exif(IDS, exif)))
    Image.fromarray(IDS).save(root / "masks/0.tif", compression=compression, tiffinfo={274: orientation})
    Image.fromarray(IDS).save(root / "images/0.tif", compression=compression, tiffinfo={274: orientation})
    images = pairs(root)
    images.check()
    np.testing.assert_array_equal(images.label(0), expected)
    np.testing.assert_array_equal(images.image(0)[..., 0], expected)


def with_exif(pixels: npt.NDArray[np.uint8], exif: Image.Exif) -> Image.Image:
    """An image with an EXIF orientation, as a reader gives it."""
    content = BytesIO()
    Image.fromarray(pixels).save(content, "png", exif=exif)
    return Image.open(content)


@pytest.mark.fault("exif-of-photographs-without-masks")
def test_photographs_without_masks_are_turned(root: Path) -> None:
    write_turned(root / "images/0.jpg", np.zeros((16, 24, 3), np.uint8), 6)
    assert pairs(root, masks=None).image(0).shape == (24, 16, 3)
    assert pairs(root, masks=None, upright=False).image(0).shape == (16, 24, 3)


def test_a_deep_image_is_turned_as_any_other(root: Path) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 13000
        shallow = Image.fromarray((values >> 8).astype(np.uint8))
        Image.fromarray(values).save(root / "images/0.png", exif=exif)
        shallow.save(root / "deep.png", exif=exif)
        deep = read_image(root / "images/0.png", lambda _: 16, upright=True)
        np.testing.assert_array_equal(deep, read_image(root / "deep.png", lambda _: 16, upright=True))


@pytest.mark.fault("white-is-zero-mask")
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_ids_of_a_mask_whose_white_is_zero_are_those_that_fit(bits: int, root: Path) -> None:
    ids = np.array([[0, 1, 2], [9, 10, 3]])
    if bits == 4:
        write_tiff(root / "masks/0.tif", np.array([[0x01, 0x20], [0x9A, 0x30]], np.uint8), {262: 0, 258: 4}, width=3)
    else:
        write_tiff(root / "masks/0.tif", ids.astype(f"<u{bits // 8}"), {262: 0})
    np.testing.assert_array_equal(pairs(root).label(0), ids)
    # Stored by PIL or OpenCV, which invert such values when they write and when they read.
    if bits == 8:
        write_tiff(root / "masks/0.tif", (255 - ids).astype(np.uint8), {262: 0})
        np.testing.assert_array_equal(pairs(root).label(0), ids)


@pytest.mark.fault("white-is-zero-mask")
def test_a_mask_whose_white_is_zero_is_refused_where_both_fit(root: Path) -> None:
    write_tiff(root / "masks/0.tif", np.array([[0, 255, 0], [0, 0, 0]], np.uint8), {262: 0})
    assert "says that white is 0 (TIFF tag 262), and both its values and their inverse fit" in refusal(
        pairs(root), "label"
    )
    write_tiff(root / "masks/0.tif", np.array([[0b01000000], [0]], np.uint8), {262: 0, 258: 1}, width=3)
    assert "save it as a PNG" in refusal(pairs(root), "label")


@pytest.mark.fault("white-is-zero-image")
@pytest.mark.parametrize("bits", [8, 16])
def test_an_image_whose_white_is_zero_looks_as_it_should(bits: int, root: Path) -> None:
    stored = np.array([[0, 1, 2], [3, 4, 255]]) * (256 if bits == 16 else 1)
    write_tiff(root / "images/0.tif", stored.astype(f"<u{bits // 8}"), {262: 0})
    assert pairs(root).image(0)[..., 0].tolist() == [[255, 254, 253], [252, 251, 0]]


@pytest.mark.fault("jpeg-in-tiff-mask")
def test_lossy_tiff_masks_are_refused(root: Path) -> None:
    Image.fromarray(IDS).save(root / "masks/0.tif", compression="jpeg")
    assert "is a TIFF compressed as jpeg, which changes ids" in refusal(pairs(root), "label")
    with pytest.raises(DataError, match="which changes ids"):
        pairs(root).check()
    Image.fromarray(IDS).save(root / "masks/0.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(pairs(root).label(0), IDS)


@pytest.mark.fault("jpeg-named-png-mask")
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_masks_are_what_their_name_says(kind: str, root: Path) -> None:
    Image.fromarray(IDS).save(root / "masks/0.png", format=kind)
    assert f"is a {kind} file, whatever its name says" in refusal(pairs(root), "label")


@pytest.mark.fault("several-pages")
@pytest.mark.parametrize("ending", ["tif", "png"])
@pytest.mark.parametrize(("folder", "what"), [("images", "image"), ("masks", "label")])
def test_a_file_of_several_pages_is_refused(folder: str, what: str, ending: str, root: Path) -> None:
    pages = [Image.fromarray(IDS // (i + 1)) for i in range(3)]
    pages[0].save(root / folder / f"0.{ending}", save_all=True, append_images=pages[1:])
    assert "has 3 pages or frames, expected one" in refusal(pairs(root), what)
    with pytest.raises(DataError, match="3 pages or frames"):
        pairs(root).check()


def test_smaller_copies_for_viewers_are_no_pages(root: Path) -> None:
    copy = Image.fromarray(IDS[:1, :1])
    copy.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(IDS).save(root / "masks/0.tif", save_all=True, append_images=[copy])
    with Image.open(root / "masks/0.tif") as file:
        assert file.n_frames == 2  # type: ignore[attr-defined]
    np.testing.assert_array_equal(pairs(root).label(0), IDS)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_one_bit_is_0_and_1(ending: str, root: Path) -> None:
    Image.fromarray(IDS > 2).save(root / f"masks/0.{ending}")
    label, raw = pairs(root).label_and_ids(0)
    assert label.tolist() == raw.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert raw.dtype == np.uint8 and np.bincount(raw.ravel()).tolist() == [3, 3]


@pytest.mark.fault("ids-above-255")
@pytest.mark.parametrize("channels", [1, 3])
def test_ids_above_255_of_16_bits(channels: int, root: Path) -> None:
    (root / "space.yaml").write_text(
        "name: s\nclasses: {a: [1, 2, 3], b: [4, 5, 6]}\nmaps: {m: {7: a, 40000: b, 65535: ignore}}\n"
    )
    ids = np.array([[7, 40000, 65535], [255, 7, 7]], np.uint16)
    write_deep(root / "masks/0.png", ids, channels)
    images = pairs(root, label_space=str(root / "space.yaml"), class_map="m")
    assert images.label(0).tolist() == [[0, 1, 255], [255, 0, 0]]


@pytest.mark.fault("signed-mask")
def test_negative_ids_are_no_void(root: Path) -> None:
    write_tiff(root / "masks/0.tif", np.array([[0, 1, -1], [2, 3, 4]], np.int8), {339: 2})
    assert "unknown label id -1" in refusal(pairs(root), "label")
    write_tiff(root / "masks/0.tif", np.array([[0, 1, -1], [2, 3, 4]], "<i2"), {339: 2})
    assert "unknown label id -1" in refusal(pairs(root), "label")


@pytest.mark.fault("signed-mask")
def test_fractions_are_no_ids(root: Path) -> None:
    Image.fromarray(IDS.astype(np.float32)).save(root / "masks/0.tif")
    assert "holds floating-point numbers where class ids are expected" in refusal(pairs(root), "label")
    (root / "images/0.png").unlink()
    Image.fromarray(IDS.astype(np.int32)).save(root / "images/0.tif")
    assert "is a 32-bit image; convert it" in refusal(pairs(root), "image")


@pytest.mark.fault("large-image")
def test_a_large_image_is_opened(root: Path) -> None:
    path = root / "images/0.png"
    Image.new("1", (13500, 13500)).save(path, compress_level=1)
    assert sizes_of(path) == ((13500, 13500), 1)


@pytest.mark.fault("large-image")
def test_an_image_too_large_for_the_memory_names_the_remedy(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pairs(root)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    message = refusal(images, "image")
    assert "too large for the memory of this machine" in message and "cut it into tiles" in message


@pytest.mark.fault("one-folder-for-images-and-masks")
def test_one_folder_cannot_be_both() -> None:
    with pytest.raises(ConfigError, match="images and masks are both 'data': name the folder of the masks"):
        PairedFolders("data", "data", "camvid11")
    PairedFolders("data", "data", "camvid11", image_suffix="_rgb", mask_suffix="_ids")


@pytest.mark.fault("one-folder-for-images-and-masks")
def test_one_folder_of_two_names_cannot_be_both(root: Path) -> None:
    (root / "link").symlink_to(root / "images", target_is_directory=True)
    for masks in ("./images", "link"):
        with pytest.raises(DataError, match="are one folder; set masks"):
            pairs(root, masks=masks)


def test_reading_a_sample_keeps_no_pixels(root: Path) -> None:
    write_deep(root / "images/0.png", np.full((512, 512), 60000, np.uint16), 1)
    Image.fromarray(np.zeros((512, 512), np.uint8)).save(root / "masks/0.png")
    images = pairs(root)
    tracemalloc.start()
    images.image(0)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 512 * 512
