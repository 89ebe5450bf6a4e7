"""Part data sets in miniature, laid out as they are downloaded."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from segzoo.data import PairedFolders
from segzoo.data.label_spaces import load_class_map
from segzoo.data.part_sets import (
    CELEBA_LAYERS,
    CGPART_MODELS,
    Example,
    _overlap,
    _square_crop,
    celebamask_hq,
    cgpart_car,
    datasetgan,
    pascal_part,
)
from segzoo.errors import DataError


def picture(path: Path, shape: tuple[int, int], value: int | None = None) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode())
    pixels = np.random.default_rng(seed).integers(0, 255, (*shape, 3), np.uint8)
    if value is not None:
        pixels[:] = value
    Image.fromarray(pixels).save(path)
    return np.asarray(Image.open(path))  # a JPEG is not what was saved


def voc(root: Path, stem: str, boxes: list[tuple[int, ...]], objects: list[dict], split: str = "train") -> np.ndarray:
    """One image of VOC2010 with Pascal-Part's annotation; boxes (xmin, ymin, xmax, ymax) count from 1."""
    pixels = picture(root / "JPEGImages" / f"{stem}.jpg", (60, 100))
    entries = [f"<object><name>{o['class']}</name>{box_xml(b)}</object>" for o, b in zip(objects, boxes, strict=True)]
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{''.join(entries)}</annotation>")
    folder = root / "part_segmentation" / "Annotations_Part"
    folder.mkdir(parents=True, exist_ok=True)
    named = np.array([(o["class"], 13, o["mask"], parts(o["parts"])) for o in objects], OBJECT)
    savemat(folder / f"{stem}.mat", {"anno": {"imname": stem, "objects": named}})
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    for name in ("train", "val"):
        with (lists / f"horse_{name}.txt").open("a") as file:
            file.write(f"{stem}  {1 if name == split else -1}\n")
    return pixels


OBJECT = [("class", "O"), ("class_ind", "O"), ("mask", "O"), ("parts", "O")]


def box_xml(box: tuple[int, ...]) -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    return f"<bndbox>{''.join(f'<{name}>{value}</{name}>' for name, value in corners)}</bndbox>"


def parts(masks: dict[str, np.ndarray]) -> np.ndarray:
    if not masks:
        return np.zeros((0, 0))
    return np.array([(n, m) for n, m in masks.items()], [("part_name", "O"), ("mask", "O")])


def area(left: int, top: int, right: int, bottom: int, shape: tuple[int, int] = (60, 100)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def horse(*box: int, **named: np.ndarray) -> dict:
    return {"class": "horse", "mask": area(*box), "parts": named}


def test_horses_are_cut_out_as_squares(tmp_path: Path) -> None:
    other = {"class": "person", "mask": area(0, 0, 9, 9), "parts": {"head": area(0, 0, 9, 9)}}
    legs = {"lfuleg": area(12, 40, 16, 44), "rbho": area(30, 40, 34, 44), "lear": area(10, 10, 14, 14)}
    pixels = voc(
        tmp_path,
        "2008_2",
        [(1, 1, 9, 9), (11, 11, 50, 44), (91, 1, 100, 9)],
        [other, horse(10, 10, 50, 44, torso=area(10, 14, 50, 40), **legs), horse(90, 0, 100, 9)],
    )
    (example,) = pascal_part(tmp_path, "horse", 32)  # the other horse is small
    assert (example.split, example.name) == ("train", "2008_2_0")
    crop, mask = example.read()
    # The box is 40 wide and 34 high: rows 7 to 46 of the image.
    assert isinstance(crop, Image.Image) and crop.size == (40, 40) and mask.shape == (40, 40)
    assert np.array_equal(np.asarray(crop), pixels[7:47, 10:50])
    expected = np.zeros((60, 100), np.uint8)
    expected[14:40, 10:50], expected[40:44, 12:16], expected[40:44, 30:34], expected[10:14, 10:14] = 2, 3, 3, 1
    assert np.array_equal(mask, expected[7:47, 10:50])


def test_which_horses_are_left_out(tmp_path: Path) -> None:
    whole = {"torso": area(0, 0, 100, 60)}
    voc(tmp_path, "a", [(1, 1, 40, 40), (30, 1, 80, 50)], [horse(0, 0, 40, 40, **whole), horse(29, 0, 80, 50, **whole)])
    voc(tmp_path, "b", [(1, 1, 60, 40)], [horse(0, 0, 60, 40, torso=area(0, 0, 6, 6))])  # 36 of 3600 pixels
    voc(tmp_path, "c", [(1, 1, 60, 40)], [horse(0, 0, 60, 40, torso=area(0, 0, 5, 7))])
    voc(tmp_path, "d", [(1, 1, 31, 40), (60, 1, 91, 32)], [horse(0, 0, 31, 40, **whole), horse(59, 0, 91, 32, **whole)])
    voc(tmp_path, "e", [(1, 1, 40, 40)], [horse(0, 0, 40, 40)], "val")  # without parts
    voc(tmp_path, "f", [(1, 1, 40, 40)], [horse(0, 0, 40, 40, neck=area(0, 0, 40, 40))], "val")
    found = [(e.split, e.name) for e in pascal_part(tmp_path, "horse", 32)]
    assert found == [("train", "b_0"), ("train", "d_1"), ("test", "f_0")]


def test_the_181st_crop_validates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segzoo.data.part_sets.PASCAL_TRAIN", 1)
    for stem in ("2", "1"):
        voc(tmp_path, stem, [(1, 1, 40, 40)], [horse(0, 0, 40, 40, tail=area(0, 0, 20, 20))])
    assert [(e.split, e.name) for e in pascal_part(tmp_path, "horse", 32)] == [("train", "1_0"), ("val", "2_0")]


def test_numbered_parts_and_unknown_ones(tmp_path: Path) -> None:
    plane = {"class": "aeroplane", "mask": area(0, 0, 40, 40)}
    named = {"engine_2": area(0, 0, 20, 10), "wheel_11": area(0, 20, 20, 40), "lwing": area(30, 0, 40, 40)}
    voc(tmp_path, "a", [(1, 1, 40, 40)], [plane | {"parts": named}])
    for name in ("train", "val"):
        path = tmp_path / "ImageSets" / "Main" / f"horse_{name}.txt"
        path.rename(path.with_name(f"aeroplane_{name}.txt"))
    (example,) = pascal_part(tmp_path, "aeroplane", 32)
    assert np.unique(example.read()[1]).tolist() == [0, 3, 4, 5]
    voc(tmp_path, "a", [(1, 1, 40, 40)], [plane | {"parts": {"mane": area(0, 0, 9, 9)}}])
    with pytest.raises(DataError, match="unknown part 'mane' of aeroplane"):
        list(pascal_part(tmp_path, "aeroplane", 32))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    voc(tmp_path, "a", [(1, 1, 40, 40)], [horse(0, 0, 40, 40, tail=area(0, 0, 20, 20))])
    for path in (tmp_path / "part_segmentation/Annotations_Part/a.mat", tmp_path / "Annotations/a.xml"):
        path.write_bytes(b"torn")
        with pytest.raises(DataError, match=rf"cannot read .*{path.name}"):
            list(pascal_part(tmp_path, "horse", 32))


@pytest.mark.parametrize(
    ("box", "rows", "columns", "before"),
    [
        ((1, 1, 10, 4), (0, 7), (0, 10), (1, 0)),  # at the top: seven rows are left, one black row above
        ((91, 51, 100, 60), (50, 60), (90, 100), (0, 0)),
        ((1, 1, 100, 60), (0, 60), (0, 100), (20, 0)),
    ],
)
def test_squares_at_the_border(
    box: tuple[int, ...], rows: tuple[int, int], columns: tuple[int, int], before: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (60, 100, 3), np.uint8)
    square = _square_crop(pixels, np.array(box))
    side = max(rows[1] - rows[0], columns[1] - columns[0])
    expected = np.zeros((side, side, 3), np.uint8)
    part = pixels[slice(*rows), slice(*columns)]
    expected[before[0] : before[0] + len(part), before[1] : before[1] + part.shape[1]] = part
    assert np.array_equal(square, expected)


def test_overlap_is_a_share_of_the_box_around_both() -> None:
    found = _overlap(np.array([0, 0, 10, 10]), np.array([[5, 0, 15, 10], [20, 20, 30, 30], [10, 0, 20, 10]]))
    assert found == pytest.approx([50 / 150, 0, 0])


def test_layers_of_a_face_lie_above_each_other(tmp_path: Path) -> None:
    picture(tmp_path / "CelebA-HQ-img" / "28001.jpg", (1024, 1024), 100)
    folder = tmp_path / "CelebAMask-HQ-mask-anno" / "14"
    folder.mkdir(parents=True)
    for part, rows in (("cloth", slice(400, 512)), ("skin", slice(100, 450)), ("l_lip", slice(300, 320))):
        layer = np.zeros((512, 512, 3), np.uint8)
        layer[rows] = 255
        Image.fromarray(layer).save(folder / f"28001_{part}.png")
    examples = {e.name: e for e in celebamask_hq(tmp_path)}
    assert len(examples) == 1500 + 500 + 500
    assert [examples[n].split for n in ("28000", "27999", "29500")] == ["train", "val", "test"]
    image, mask = examples["28001"].read()
    assert (
        isinstance(image, Image.Image) and image.size == (512, 512) and np.asarray(image).mean() == pytest.approx(100)
    )
    assert [mask[row, 0] for row in (0, 100, 310, 390, 420, 500)] == [0, 1, 12, 1, 18, 18]
    labels = load_class_map("celebamask8", "celebamask").apply(mask, "here")
    assert [labels[row, 0] for row in (0, 100, 310, 420)] == [0, 4, 6, 0]
    with pytest.raises(DataError, match="no part of face 28000"):
        examples["28000"].read()
    assert len(CELEBA_LAYERS) == 18


def test_datasetgan_pairs_by_number_and_cleans_training_masks(tmp_path: Path) -> None:
    train, test = tmp_path / "training_data" / "cat_processed", tmp_path / "testing_data" / "cat_16_class"
    mask = np.zeros((20, 30), np.float64)
    mask[:5, :6], mask[10:, 10:20] = 3, 15  # 30 and 100 pixels
    mask[-1, -29:] = 7
    for folder, numbers in ((train, (2, 10)), (test, (2, 10))):
        for n in numbers:
            picture(folder / f"image_{n}.png", (20, 30))
            np.save(folder / f"image_mask{n}.npy", mask[None] if folder == train else np.repeat(mask[..., None], 3, 2))
    found = {(e.split, e.name): e for e in datasetgan(tmp_path, "cat")}
    assert list(found) == [("train", "0000"), ("train", "0001"), ("test", "0000"), ("test", "0001")]
    assert np.unique(found["train", "0000"].read()[1]).tolist() == [0, 3, 15]
    assert np.unique(found["test", "0000"].read()[1]).tolist() == [0, 3, 7, 15]
    for key, number in ((("train", "0000"), 2), (("test", "0000"), 10)):  # by number, and by name
        image, ids = found[key].read()
        assert np.array_equal(np.asarray(image), np.asarray(Image.open(train / f"image_{number}.png")))
        assert ids.shape == (20, 30) and ids.dtype == np.uint8
    (train / "image_mask2.npy").unlink()
    with pytest.raises(DataError, match="2 has only one of them"):
        list(datasetgan(tmp_path, "cat"))


def test_masks_run_no_code(tmp_path: Path) -> None:
    for folder in ("training_data/car_processed", "testing_data/car_20_class"):
        picture(tmp_path / folder / "image_0.png", (8, 8))
        np.save(tmp_path / folder / "image_mask0.npy", np.array([{}], dtype=object))
    with pytest.raises(DataError, match="cannot read the mask"):
        next(datasetgan(tmp_path, "car")).read()


def test_rendered_cars_without_trucks(tmp_path: Path) -> None:
    render, real = tmp_path / "CGPart_render" / "car", tmp_path / "CGPart_real"
    for folder in (CGPART_MODELS["suv"], "42af1d5d3b2524003e241901f2025878"):
        picture(render / "image" / folder / "000000.png", (12, 16))
        (render / "seg" / folder).mkdir(parents=True)
        Image.fromarray(np.full((12, 16), 31, np.uint8)).convert("P").save(render / "seg" / folder / "000000.png")
    picture(real / "Images" / "car_imagenet_cropped" / "n02814533_1.JPEG", (12, 16))
    (real / "Annotations_png" / "car_imagenet_cropped").mkdir(parents=True)
    Image.fromarray(np.full((12, 16), 3, np.uint8)).save(
        real / "Annotations_png" / "car_imagenet_cropped" / "n02814533_1.png"
    )
    (real / "Image_sets").mkdir()
    (real / "Image_sets" / "car_imagenet_val.txt").write_text("n02814533_1\n")
    examples = list(cgpart_car(tmp_path))
    assert [(e.split, e.name) for e in examples] == [("train", "suv_000000"), ("test", "n02814533_1")]
    path, mask = examples[1].read()
    assert path == real / "Images" / "car_imagenet_cropped" / "n02814533_1.JPEG"
    assert load_class_map("cgpart_car15", "cgpart").apply(mask, "")[0, 0] == 12  # wheel
    assert load_class_map("cgpart_car15", "cgpart").apply(examples[0].read()[1], "")[0, 0] == 11  # trunk


@pytest.mark.parametrize(
    "read",
    [celebamask_hq, cgpart_car, lambda r: pascal_part(r, "horse", 32), lambda r: datasetgan(r, "face")],
)
def test_a_wrong_root_is_said_at_once(read, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=r"does not exist; expected the folder"):
        next(iter(read(tmp_path)))


def test_the_result_is_what_the_data_file_reads(tmp_path: Path) -> None:
    from segzoo.cli.data_convert import _write

    example = Example("train", "x", lambda: (Image.new("RGB", (4, 4)), np.full((4, 4), 2, np.uint8)))
    _write(example, tmp_path)
    images = PairedFolders("{split}/images", "{split}/masks", "pascal_horse6").images("train", tmp_path)
    assert images.names == ["x"] and np.array_equal(images.label(0), np.full((4, 4), 2, np.uint8))
