"""Paired folders: pairing, splits, what is read from which file, and the one-line errors of bad input."""

import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from jsonargparse import ArgumentParser
from PIL import Image

from segzoo.configs import config_path
from segzoo.data.domains import Domain, Split
from segzoo.data.folders import FolderImages, PairedFolders
from segzoo.data.label_spaces import load_class_map
from segzoo.data.pairing import Affixes
from segzoo.dataprep.places import find_places
from segzoo.errors import ConfigError, DataError

SHARED = Path(os.environ.get("SEGZOO_SHARED", Path(__file__).parents[2].parent / "shared")) / "data"
IDS = np.array([[0, 1, 2], [9, 10, 255]], np.uint8)


def write_image(path: Path, size: tuple[int, int] = (3, 2), color: tuple[int, int, int] = (200, 100, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def write_mask(path: Path, ids: np.ndarray = IDS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)
    return path


def write_raw_png(path: Path, bit_depth: int, color_type: int, rows: list[bytes], size: tuple[int, int]) -> None:
    """A PNG of exactly this bit depth, which PIL cannot write for every depth."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *size, bit_depth, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def folders(**options: object) -> PairedFolders:
    defaults = {"images": "images", "masks": "masks", "label_space": "camvid10", "class_map": "camvid11"}
    return PairedFolders(**(defaults | options))  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pairs whose alphabetic order is not the numeric one."""
    for number in (2, 10, 9):
        write_image(tmp_path / f"images/frame_{number}.png", color=(number, 0, 0))
        write_mask(tmp_path / f"masks/frame_{number}.png")
    return tmp_path


def refused(root: Path, split: Split = "train", **options: object) -> str:
    with pytest.raises(DataError) as error:
        folders(**options).images(split, root)
    assert "\n" not in str(error.value)
    return str(error.value)


def unreadable(images: FolderImages, what: str) -> str:
    with pytest.raises(DataError) as error:
        getattr(images, what)(0)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pairs_in_natural_order(root: Path) -> None:
    images = folders().images("train", root)
    assert list(images.names) == ["frame_2", "frame_9", "frame_10"]
    assert len(images) == 3 and images.has_labels
    assert [int(images.image(i)[0, 0, 0]) for i in range(3)] == [2, 9, 10]
    np.testing.assert_array_equal(images.label(0), [[0, 1, 2], [9, 255, 255]])
    assert images.label(0).dtype == images.image(0).dtype == np.uint8


def test_set_survives_the_way_to_a_worker(root: Path) -> None:
    images = pickle.loads(pickle.dumps(folders(blocks=(0.5, 0.5, 0.0)).images("val", root)))
    assert len(images) == 1 and images.image(0).shape == (2, 3, 3) and images.label(0).shape == (2, 3)


def test_extensions_may_differ_in_kind_and_case(tmp_path: Path) -> None:
    for i, (image, mask) in enumerate(
        [("jpg", "png"), ("JPEG", "PNG"), ("Bmp", "bmp"), ("webp", "tif"), ("tiff", "TIFF")]
    ):
        write_image(tmp_path / f"images/{i}.{image}")
        write_mask(tmp_path / f"masks/{i}.{mask}")
    (tmp_path / "images/notes.txt").write_text("no image")
    (tmp_path / "images/._0.jpg").write_text("left behind by a file manager")
    write_image(tmp_path / "images/.checkpoints/0.jpg")
    images = folders().images("train", tmp_path)
    assert list(images.names) == ["0", "1", "2", "3", "4"]
    for i in range(5):
        assert abs(images.image(i).astype(int) - [200, 100, 50]).max() <= 6, "RGB, up to lossy compression"
        np.testing.assert_array_equal(images.label(i), [[0, 1, 2], [9, 255, 255]])


def test_nested_folders_with_suffixes(tmp_path: Path) -> None:
    """The layout of Cityscapes, where other files of the same frame lie beside the mask."""
    for stem in ("ulm/ulm_000001", "aachen/aachen_000010", "aachen/aachen_000009"):
        write_image(tmp_path / f"leftImg8bit/val/{stem}_leftImg8bit.png")
        write_mask(tmp_path / f"gtFine/val/{stem}_gtFine_labelIds.png", np.full((2, 3), 7, np.uint8))
        write_image(tmp_path / f"gtFine/val/{stem}_gtFine_color.png")
    domain = PairedFolders(
        *("leftImg8bit/{split}", "gtFine/{split}", "cityscapes", "cityscapes"),
        image_suffix="_leftImg8bit",
        mask_suffix="_gtFine_labelIds",
    )
    images = domain.images("val", tmp_path)
    assert domain.name == "leftImg8bit"
    assert list(images.names) == ["aachen/aachen_000009", "aachen/aachen_000010", "ulm/ulm_000001"]
    assert (images.label(2) == 0).all()
    (tmp_path / "gtFine/val/ulm/ulm_000001_gtFine_labelIds.png").unlink()
    with pytest.raises(
        DataError, match=r"ulm_000001_leftImg8bit.png has no mask: expected .*ulm_000001_gtFine_labelIds\.\*"
    ):
        domain.images("val", tmp_path)


def test_time_blocks(tmp_path: Path) -> None:
    for number in range(20):
        write_image(tmp_path / f"images/{number}.png")
        write_mask(tmp_path / f"masks/{number}.png")
    domain = folders(blocks=(0.5, 0.25, 0.25), gap=2)
    names = {split: [int(name) for name in domain.images(split, tmp_path).names] for split in ("train", "val", "test")}
    assert names == {"train": list(range(8)), "val": list(range(10, 14)), "test": list(range(16, 20))}
    assert "no test split: its share is 0" in refused(tmp_path, "test", blocks=(0.5, 0.5, 0.0))
    assert "20 frames are too few" in refused(tmp_path, "val", blocks=(0.5, 0.5, 0.0), gap=30)


def test_without_blocks_everything_is_train(root: Path) -> None:
    assert len(folders().images("train", root)) == 3
    message = refused(root, "val")
    assert "no val split" in message and "set blocks" in message and "{split}" in message


def test_folder_per_split(tmp_path: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        for number in range(count):
            write_image(tmp_path / f"photos/{split}/image/{number}.png")
            write_mask(tmp_path / f"photos/{split}/label/{number}.png")
    options = {"images": "photos/{split}/image", "masks": "photos/{split}/label"}
    assert folders(**options).name == "photos"
    assert [len(folders(**options).images(split, tmp_path)) for split in ("train", "val")] == [2, 1]
    message = refused(tmp_path, "test", **options)
    assert str(tmp_path / "photos/test/image") in message and "`data.root`" in message


def test_images_alone_need_no_masks(root: Path) -> None:
    images = folders(masks=None).images("train", root)
    assert not images.has_labels and images.image(2).shape == (2, 3, 3)
    assert "set masks" in unreadable(images, "label")


def test_images_are_read_without_opening_masks(root: Path) -> None:
    (root / "masks/frame_2.png").write_bytes(b"broken")
    images = folders().images("train", root)
    assert images.image(0).shape == (2, 3, 3)
    assert str(root / "masks/frame_2.png") in unreadable(images, "label")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"images": "a/{split}"}, "write {split} in both or in neither"),
        ({"images": "a/{split}", "masks": None, "blocks": (0.8, 0.1, 0.1)}, "remove blocks"),
        ({"gap": 3}, "needs blocks"),
        ({"blocks": (0.8, 0.1, 0.2)}, "sum to 1"),
        ({"label_space": "camvid"}, "unknown label space 'camvid'; did you mean 'camvid1"),
        ({"class_map": "camvid1"}, "did you mean 'camvid11'"),
    ],
)
def test_options_that_cannot_work(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        folders(**options)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("renders/rbg", "renders/rgb"),
        ("Rendres/rgb", "renders/rgb"),
        ("RENDERS/depth_map", "renders"),
        ("rendrs/{split}/x", "renders"),
        ("renders/a/{split}", None),
        ("renders/*/trian", None),
        ("renders/rgb.txt", None),
        ("renders/depht", "renders/depth"),
    ],
)
def test_a_misspelt_folder_gets_the_nearest_name(tmp_path: Path, typed: str, meant: str | None) -> None:
    for name in ("renders/rgb", "renders/depth", "renders/.rgb", "photos"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "renders/rgb.txt").touch()
    masks = typed if "{split}" in typed else None
    with pytest.raises(DataError) as error:
        folders(images=typed, masks=masks and "photos/{split}").images("train", tmp_path)
    assert str(error.value).partition("; did you mean")[2] == (f" '{meant}'?" if meant else "")
    (tmp_path / "photos/rgb").mkdir()
    with pytest.raises(DataError) as error:
        find_places(tmp_path / "photos/rgb", tmp_path / "photos/rbg")
    assert str(error.value).endswith(f"does not exist; did you mean '{tmp_path / 'photos/rgb'}'?")


def test_missing_and_empty_folders(root: Path) -> None:
    assert refused(root, images="nowhere").startswith(f"the folder {root / 'nowhere'} does not exist; set `data.root`")
    assert "did you mean" not in refused(root, images="nowhere")
    assert str(root / "nomasks") in refused(root, masks="nomasks")
    assert "is not a folder" in refused(root, masks="images/frame_2.png")
    (root / "empty").mkdir()
    assert f"no images in {root / 'empty'}: expected files of type .jpg" in refused(root, images="empty")
    write_image(root / "lossy/frame_2.jpg")
    message = refused(root, masks="lossy")
    assert f"the masks in {root / 'lossy'} are .jpg files, such as frame_2.jpg: JPEG and WebP change" in message
    (root / "none").mkdir()
    message = refused(root, masks="none")
    assert f"no masks in {root / 'none'}" in message and ".png" in message and ".jpg" not in message
    assert "whose stem ends in '_ids'" in refused(root, mask_suffix="_ids")


def test_partners_are_required_both_ways(root: Path) -> None:
    alone = write_image(root / "images/frame_77.jpg")
    assert refused(root).startswith(f"the image {alone} has no mask: expected {root / 'masks/frame_77'}.*")
    write_image(root / "images/frame_78.jpg")
    assert "(and 1 more images without one)" in refused(root)
    for number in (77, 78):
        (root / f"images/frame_{number}.jpg").unlink()
    alone = write_mask(root / "masks/frame_5.png")
    assert refused(root).startswith(f"the mask {alone} has no image: expected {root / 'images/frame_5'}.*")


def test_a_split_can_have_another_folder_and_no_masks(tmp_path: Path) -> None:
    for folder, count in (("Train", 3), ("Test", 2)):
        for number in range(count):
            write_image(tmp_path / f"Rome/Images/{folder}/{number}.png")
    for number in range(2):
        write_mask(tmp_path / f"Rome/Labels/Test/{number}_eval.png")
    options = {"images": "Rome/Images/{split}", "masks": "Rome/Labels/{split}", "mask_suffix": "_eval"}
    names = {"train": "Train", "val": "Test", "test": "Test"}
    domain = folders(**options, split_folders=names, splits_without_masks=("train",))
    train, val, test = (domain.images(split, tmp_path) for split in ("train", "val", "test"))
    assert (len(train), train.has_labels, train.fingerprint()) == (3, False, None)
    assert (len(val), val.has_labels) == (len(test), test.has_labels) == (2, True)
    np.testing.assert_array_equal(val.label(0), test.label(0))
    assert str(tmp_path / "Rome/Labels/Train") in refused(tmp_path, **options, split_folders=names)
    # A split that is not named has the folder of its own name.
    message = refused(tmp_path, "test", **options, split_folders={"train": "Train", "val": "Test"})
    assert str(tmp_path / "Rome/Images/test") in message


def test_what_has_no_masks_may_have_no_folder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_image(tmp_path / f"{split}/images/1.png")
        write_mask(tmp_path / f"{split}/masks/1.png")
    options = {"images": "{split}/images", "masks": "{split}/masks"}
    assert "splits_without_masks` to its name, e.g. '[val]'" in refused(tmp_path, "val", **options)
    domain = folders(**options, splits_without_masks=("val",))
    assert [split for split in ("train", "val", "test") if domain.has_split(split, tmp_path)] == ["train", "test"]  # type: ignore[arg-type]
    write_image(tmp_path / "val/images/1.png")
    assert domain.has_split("val", tmp_path) and not domain.images("val", tmp_path).has_labels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_folders": {"test": "val"}}, r"need a folder per split: write \{split\} in 'images'"),
        ({"splits_without_masks": ("train",)}, r"need a folder per split: write \{split\} in 'images'"),
        ({"images": "{split}/a", "masks": "{split}/b", "split_folders": {"tset": "val"}}, "found 'tset'"),
        ({"images": "{split}/a", "masks": "{split}/b", "splits_without_masks": ("trian",)}, "found 'trian'"),
        ({"unlabelled": ["train"]}, "expected a folder of photographs; .* listed as splits_without_masks"),
        ({"unlabelled": "{split}/more"}, "name one folder"),
    ],
)
def test_split_options_that_cannot_work(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        folders(**options)


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_two_files_of_one_stem(kind: str, root: Path) -> None:
    write_mask(root / kind / "frame_9.bmp")
    message = refused(root)
    assert (
        "same stem" in message
        and str(root / kind / "frame_9.bmp") in message
        and str(root / kind / "frame_9.png") in message
    )


@pytest.mark.parametrize(
    "content", [b"", b"no image", "truncated", "flipped"], ids=["empty", "text", "truncated", "flipped"]
)
@pytest.mark.parametrize(("kind", "what"), [("images", "image"), ("masks", "label")])
def test_corrupt_file_is_named(kind: str, what: str, content: bytes | str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 10, (64, 64), np.uint8)
    write_mask(tmp_path / "images/0.png", noise)
    write_mask(tmp_path / "masks/0.png", noise)
    path = tmp_path / kind / "0.png"
    good = path.read_bytes()
    broken = bytearray(good)
    broken[60:90] = bytes(30)
    path.write_bytes(
        content if isinstance(content, bytes) else good[: len(good) // 2] if content == "truncated" else broken
    )
    message = unreadable(folders().images("train", tmp_path), what)
    assert message.startswith("cannot read the ") and message.count(str(path)) == 1


def test_what_the_files_heads_tell_is_known_early(root: Path) -> None:
    folders().images("train", root).check()
    write_mask(root / "masks/frame_2.png", np.zeros((3, 2), np.uint8))
    with pytest.raises(DataError, match=r"masks/frame_2.png is 2x3 .*images/frame_2.png is 3x2"):
        folders().images("train", root).check()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(root / "masks/frame_2.png")
    with pytest.raises(DataError, match="holds colours"):
        folders().images("train", root).check()
    folders(masks=None).images("train", root).check()


def test_mask_of_another_size(root: Path) -> None:
    path = write_mask(root / "masks/frame_2.png", np.zeros((3, 2), np.uint8))
    message = unreadable(folders().images("train", root), "label")
    assert f"{path} is 2x3 (width x height) but its image {root / 'images/frame_2.png'} is 3x2" in message


def test_unknown_id(root: Path) -> None:
    path = write_mask(root / "masks/frame_2.png", np.full((2, 3), 11, np.uint8))
    message = unreadable(folders().images("train", root), "label")
    assert f"unknown label id 11 in {path} (6 pixels)" in message and "'camvid11'" in message


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colour_mask_is_refused_where_ids_are_expected(mode: str, root: Path) -> None:
    Image.new("RGB", (3, 2), (128, 64, 128)).convert(mode).save(root / "masks/frame_2.png")
    message = unreadable(folders().images("train", root), "label")
    assert "frame_2.png holds colours (1 of them: 128 64 128 (100 %)), and the class_map lists ids" in message
    assert "set class_map to palette" in message and "set channel (`data.DOMAIN.channel`)" in message


def label_of(root: Path) -> np.ndarray:
    return folders(label_space="camvid11", class_map="identity").images("train", root).label(0)


def test_palette_masks_are_ids(root: Path) -> None:
    mask = Image.fromarray(IDS).convert("P")
    mask.putdata(IDS.ravel().tolist())
    mask.putpalette([255 - value // 3 for value in range(768)])  # colours that have nothing to do with the ids
    mask.save(root / "masks/frame_2.png", transparency=1)
    np.testing.assert_array_equal(label_of(root), IDS)


def test_16_bit_masks_are_ids(root: Path) -> None:
    write_mask(root / "masks/frame_2.png", IDS.astype(np.uint16))
    np.testing.assert_array_equal(label_of(root), IDS)
    path = write_mask(root / "masks/frame_2.png", IDS.astype(np.uint16) * 256)
    message = unreadable(folders().images("train", root), "label")
    assert f"unknown label id 256 in {path}" in message and "more unknown ids" in message


def test_16_bit_colour_masks_hold_the_class_in_red(root: Path) -> None:
    """SYNTHIA's own labels: class, instance, nothing."""
    path, pixels = root / "masks/frame_2.png", np.zeros((2, 3, 3), ">u2")
    pixels[..., 0], pixels[..., 1] = IDS, 40000
    write_raw_png(path, 16, 2, [row.tobytes() for row in pixels], (3, 2))
    np.testing.assert_array_equal(label_of(root), IDS)
    pixels[0, 0, 0] = 256
    write_raw_png(path, 16, 2, [row.tobytes() for row in pixels], (3, 2))
    assert "unknown label id 256" in unreadable(folders().images("train", root), "label")
    path.write_bytes(path.read_bytes()[:60])
    message = unreadable(folders().images("train", root), "label")
    assert message.startswith(f"cannot read the mask {path}")


@pytest.mark.parametrize("color_type", [0, 3], ids=["greyscale", "palette"])
@pytest.mark.parametrize(
    ("bits", "row", "ids"), [(1, 0b01000000, [0, 1, 0]), (2, 0b00011100, [0, 1, 3]), (4, 0x09A0, [0, 9, 10])]
)
def test_masks_of_few_bits_are_ids(bits: int, row: int, ids: list[int], color_type: int, root: Path) -> None:
    """Decoders stretch such greyscale to 0..255 by default."""
    path = root / "masks/frame_2.png"
    if color_type == 3:
        mask = Image.new("P", (3, 2))
        mask.putpalette([17 * (value % 15) for value in range(3 * 2**bits)])
        mask.putdata(ids * 2)
        mask.save(path, bits=bits)
    else:
        write_raw_png(path, bits, color_type, [row.to_bytes(2 if bits == 4 else 1, "big")] * 2, (3, 2))
    assert path.read_bytes()[24:26] == bytes([bits, color_type])
    np.testing.assert_array_equal(label_of(root), [ids, ids])


def test_every_kind_of_image_becomes_rgb(root: Path) -> None:
    def read(image: Image.Image, **options: object) -> list[int]:
        image.save(root / "images/frame_2.png", **options)  # type: ignore[arg-type]
        pixels = folders().images("train", root).image(0)
        assert pixels.shape == (2, 3, 3) and pixels.dtype == np.uint8 and pixels.flags.writeable
        return [int(value) for value in pixels[1, 2]]

    assert read(Image.new("RGB", (3, 2), (1, 2, 3))) == [1, 2, 3]
    assert read(Image.new("L", (3, 2), 77)) == [77, 77, 77]
    assert read(Image.new("1", (3, 2), 1)) == [255, 255, 255]
    assert read(Image.new("RGBA", (3, 2), (9, 8, 7, 0))) == [9, 8, 7], "alpha is dropped, not composited"
    assert read(Image.new("LA", (3, 2), (9, 0))) == [9, 9, 9]
    assert read(Image.new("RGB", (3, 2), (4, 5, 6)).convert("P", palette=Image.Palette.ADAPTIVE)) == [4, 5, 6]
    assert read(Image.fromarray(np.full((2, 3), 0x8040, np.uint16))) == [0x80, 0x80, 0x80], (
        "16 bits are scaled, not clipped"
    )


def test_exif_orientation_is_ignored_as_masks_have_none(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees"
    Image.new("RGB", (3, 2)).save(root / "images/frame_2.jpg", exif=exif)
    (root / "images/frame_2.png").unlink()
    images = folders().images("train", root)
    assert images.image(0).shape == (2, 3, 3)
    assert images.label(0).shape == (2, 3)


def from_yaml(name: str, domain: str) -> Domain:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Domain, "domain")
    content = yaml.safe_load(config_path("data", name).read_text())["data"]
    parsed = parser.instantiate_classes(parser.parse_object({"domain": content[domain]}))
    assert isinstance(parsed.domain, Domain)
    return parsed.domain


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # instantiate_classes: its successor is missing in jsonargparse 4.45
@pytest.mark.parametrize("name", ["carla_to_camvid", "airsim_to_camvid", "folders"])
def test_packaged_yaml_describes_two_domains_of_one_label_space(name: str) -> None:
    source, target = from_yaml(name, "source"), from_yaml(name, "target")
    assert source.label_space == target.label_space and source.name != target.name


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_source_of_celebamask_holds_no_image_of_its_test(tmp_path: Path) -> None:
    for i in range(220):
        for folder, pixels in (("image", np.zeros((8, 8, 3), np.uint8)), ("label", np.zeros((8, 8), np.uint8))):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{i:03d}.png")
    source, target = from_yaml("celebamask", "source"), from_yaml("celebamask", "target")
    test = target.images("test", tmp_path).names
    assert test == [f"{i:03d}" for i in range(120, 220)]
    assert source.images("train", tmp_path).names == target.images("train", tmp_path).names


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real images at {SHARED}; set SEGZOO_SHARED")
@pytest.mark.parametrize("name", ["carla_to_camvid", "airsim_to_camvid"])
def test_real_data(name: str) -> None:
    """Every tenth pair of every split is read; sizes and classes are what the data's description says."""
    source, target = from_yaml(name, "source"), from_yaml(name, "target")
    sizes = {"carla_to_camvid": (422, 47), "airsim_to_camvid": (458, 51)}
    for domain, split, count in [
        (source, "train", sizes[name][0]),
        (source, "val", sizes[name][1]),
        (target, "train", 367),
        (target, "val", 101),
        (target, "test", 233),
    ]:
        images = domain.images(split, SHARED)  # type: ignore[arg-type]
        assert len(images) == count
        seen: set[int] = set()
        for i in range(0, count, 10):
            assert images.image(i).shape == (192, 256, 3)
            seen.update(np.unique(images.label(i)).tolist())
        assert seen <= {*range(10), 255} and len(seen) >= 8


@pytest.mark.fault("masks-with-a-suffix")
def test_masks_with_another_ending_name_the_option(tmp_path: Path) -> None:
    for folder, end in (("image", ""), ("mask", "_label")):
        (tmp_path / folder).mkdir()
        for i in (1, 11):
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / folder / f"{i:04}{end}.png")
    class_map = load_class_map("minicity", "identity")
    with pytest.raises(DataError, match=r"masks that end in '_label' need `data\.DOMAIN\.mask_suffix` _label"):
        FolderImages(tmp_path / "image", tmp_path / "mask", class_map)
    with pytest.raises(DataError, match=r"images that end in '_label' need `data\.DOMAIN\.image_suffix` _label"):
        FolderImages(tmp_path / "mask", tmp_path / "image", class_map)
    assert len(FolderImages(tmp_path / "image", tmp_path / "mask", class_map, of_masks=Affixes("_label"))) == 2


@pytest.mark.fault("masks-with-a-suffix")
def test_files_of_two_endings_name_both_options(tmp_path: Path) -> None:
    for name in ("image/a_000_leftImg8bit", "mask/a_000_gtFine_instanceIds", "mask/a_000_gtFine_labelIds"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{name}.png")
    class_map = load_class_map("minicity", "identity")
    options = r"image_suffix` _leftImg8bit and `data\.DOMAIN\.mask_suffix` _gtFine_labelIds"
    with pytest.raises(DataError, match=options):
        FolderImages(tmp_path / "image", tmp_path / "mask", class_map)
    assert (
        len(
            FolderImages(
                tmp_path / "image", tmp_path / "mask", class_map, Affixes("_leftImg8bit"), Affixes("_gtFine_labelIds")
            )
        )
        == 1
    )
