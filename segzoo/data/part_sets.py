"""Part data sets as they are downloaded, which ``segzoo data convert`` turns into folders of images and masks.

The splits, crops and clean-ups are those of the published few-shot protocol (Yang et al., ICLR 2022, and its code).
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segzoo.data.domains import Split
from segzoo.errors import DataError

Mask = npt.NDArray[np.uint8]

CELEBA_LAYERS = (
    "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
"""One file per part of CelebAMask-HQ; a later one lies above an earlier one. Raw id: position + 1."""
CELEBA_SPLITS: dict[Split, range] = {
    "train": range(28000, 29500),
    "val": range(27500, 28000),
    "test": range(29500, 30000),
}
HORSE_LEGS = [f"{side}{end}{part}" for side in "lr" for end in "fb" for part in ("uleg", "lleg", "ho")]
PASCAL_PARTS = {
    "horse": {
        **dict.fromkeys(("head", "leye", "reye", "lear", "rear", "muzzle"), 1),
        "torso": 2,
        **dict.fromkeys(HORSE_LEGS, 3),
        "neck": 4,
        "tail": 5,
    },
    "aeroplane": {"body": 1, "stern": 2, "tail": 2, "lwing": 3, "rwing": 3, "engine": 4, "wheel": 5},
}
"""Class ids of parts; of numbered parts (``engine_3``) the name without the number."""
PASCAL_TRAIN = 180
"""Crops of VOC's train images that are labelled; the others validate."""
DATASETGAN_CLASSES = {"car": 20, "cat": 16, "face": 34}
SMALLEST_PART = 30
"""Pixels: in DatasetGAN's training masks smaller ones are slips of the hand, and become background."""
CGPART_MODELS = {
    "minivan": "4ef6af15bcc78650bedced414fad522f",
    "suv": "473dd606c5ef340638805e546aa28d99",
    "sedan": "6710c87e34056a29aa69dfdc5532bb13",
    "wagon": "bad0a52f07afc2319ed410a010efa019",
}
"""Folders of the rendered cars that the protocol trains on; it leaves out the truck."""


@dataclass(frozen=True)
class Example:
    """One labelled image.

    Attributes:
        split: train, val or test.
        name: file stem.
        read: gives the picture (or the path of a file that can be copied) and the (H, W) uint8 mask of raw ids.
    """

    split: Split
    name: str
    read: Callable[[], tuple[Image.Image | Path, Mask]]


def celebamask_hq(root: Path) -> Iterator[Example]:
    """CelebAMask-HQ as released, at the masks' 512 x 512 pixels.

    Args:
        root: holds ``CelebA-HQ-img/0.jpg`` and ``CelebAMask-HQ-mask-anno/0/00000_skin.png``.
    """
    _need(root / "CelebA-HQ-img", root / "CelebAMask-HQ-mask-anno")
    for split, numbers in CELEBA_SPLITS.items():
        for number in numbers:
            yield Example(split, f"{number:05}", partial(_celebamask, root, number))


def _celebamask(root: Path, number: int) -> tuple[Image.Image, Mask]:
    stem = root / "CelebAMask-HQ-mask-anno" / str(number // 2000) / f"{number:05}_"
    layers = [(i, path) for i, part in enumerate(CELEBA_LAYERS, 1) if (path := Path(f"{stem}{part}.png")).is_file()]
    if not layers:
        raise DataError(f"no part of face {number} at {stem}*.png")
    mask = np.zeros((512, 512), np.uint8)
    for i, path in layers:
        mask[np.asarray(Image.open(path).convert("L")) > 0] = i
    picture = Image.open(root / "CelebA-HQ-img" / f"{number}.jpg").convert("RGB")
    return picture.resize(mask.shape[::-1], Image.Resampling.LANCZOS), mask


def pascal_part(root: Path, category: str, smallest_side: int) -> Iterator[Example]:
    """Square crops of the horses or aeroplanes of Pascal-Part.

    A crop has the longer side of the object's box, cut at the image's border and filled up with black. Left out are objects
    that overlap with another of their kind (intersection above 0.05 of the box around both), small ones, and crops of which
    less than 1 % is labelled. Crops of VOC's train images are train and, behind the first 180, val; those of its val images
    are test.

    Args:
        root: VOC2010, with ``part_segmentation/Annotations_Part`` in it.
        category: horse or aeroplane.
        smallest_side: pixels of a box's shorter side; published 32 and 50, without saying which is whose.
    """
    lists = {name: root / "ImageSets" / "Main" / f"{category}_{name}.txt" for name in ("train", "val")}
    _need(root / "JPEGImages", root / "Annotations", root / "part_segmentation" / "Annotations_Part", *lists.values())
    for name, path in lists.items():
        rows = [line.split() for line in path.read_text().splitlines()]
        crops = (
            (f"{stem}_{i}", crop)
            for stem in sorted(row[0] for row in rows if row[-1] == "1")
            for i, crop in _object_crops(root, stem, category, smallest_side)
        )
        for number, (stem, crop) in enumerate(crops):
            split: Split = "test" if name == "val" else ("train" if number < PASCAL_TRAIN else "val")
            yield Example(split, stem, crop)


def _object_crops(root: Path, stem: str, category: str, smallest_side: int) -> Iterator[tuple[int, Any]]:
    """Number among its kind and crop of the objects of one image that the rules keep."""
    path = root / "Annotations" / f"{stem}.xml"
    try:
        found = [o for o in ET.parse(path).iter("object") if o.findtext("name") == category]
    except (OSError, ET.ParseError) as error:
        raise DataError(f"cannot read the boxes in {path}: {error}") from error
    corners = [[int(float(o.findtext(f"bndbox/{c}", "0"))) for c in ("xmin", "ymin", "xmax", "ymax")] for o in found]
    boxes = np.array(corners, dtype=np.int64).reshape(-1, 4)
    mask: Mask | None = None
    for i, box in enumerate(boxes):
        width, height = box[2:] - box[:2] + 1  # corners count from 1, both included
        others = np.delete(boxes, i, axis=0)
        if min(width, height) < smallest_side or (_overlap(box, others) > 0.05).any():
            continue
        mask = _pascal_mask(root, stem, category) if mask is None else mask
        square = partial(_square_crop, box=box)
        crop = square(mask)
        if (crop > 0).mean() >= 0.01:
            yield i, partial(_pascal_crop, root / "JPEGImages" / f"{stem}.jpg", square, crop)


def _overlap(box: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Intersection of a box with each of (N, 4) others, as a share of the smallest box around both."""
    low, high = np.minimum, np.maximum
    inside = (low(box[2:], others[:, 2:]) - high(box[:2], others[:, :2])).clip(0).prod(axis=1)
    around = (high(box[2:], others[:, 2:]) - low(box[:2], others[:, :2])).prod(axis=1)
    return inside / np.maximum(around, 1)


def _square_crop(pixels: npt.NDArray[np.uint8], box: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    left, top, right, bottom = box - (1, 1, 0, 0)
    half, x, y = max(right - left, bottom - top) / 2, (left + right) / 2, (top + bottom) / 2
    part = pixels[int(max(y - half, 0)) : int(min(y + half, height)), int(max(x - half, 0)) : int(min(x + half, width))]
    side = max(part.shape[:2])
    missing = [side - length for length in part.shape[:2]] + [0] * (pixels.ndim - 2)
    return np.pad(part, [(m // 2, m - m // 2) for m in missing])


def _pascal_crop(path: Path, square: Callable[[Any], Any], mask: Mask) -> tuple[Image.Image, Mask]:
    return Image.fromarray(square(np.asarray(Image.open(path).convert("RGB")))), mask


def _pascal_mask(root: Path, stem: str, category: str) -> Mask:
    """Part ids of all objects of one category in one image."""
    from scipy.io import loadmat

    path = root / "part_segmentation" / "Annotations_Part" / f"{stem}.mat"
    try:
        annotation = loadmat(path, simplify_cells=True)["anno"]
    except Exception as error:  # scipy's reader raises nearly anything on broken bytes
        raise DataError(f"cannot read the annotation {path}: {' '.join(str(error).split())}") from error
    objects = [o for o in _several(annotation["objects"]) if o["class"] == category]
    if not objects:
        raise DataError(f"{path} has no {category}, and the image list says that the image has")
    mask = np.zeros(objects[0]["mask"].shape, np.uint8)
    ids = PASCAL_PARTS[category]
    for part in (part for o in objects for part in _several(o["parts"])):
        name = re.sub(r"_\d+$", "", part["part_name"])
        if name not in ids:
            raise DataError(f"{path}: unknown part '{part['part_name']}' of {category}")
        mask[part["mask"] > 0] = ids[name]
    return mask


def _several(entries: Any) -> list[dict[str, Any]]:
    """MATLAB has no lists of one: a single struct stands for itself, and none is an empty array."""
    return [entries] if isinstance(entries, dict) else list(entries)


def datasetgan(root: Path, category: str) -> Iterator[Example]:
    """Cars, cats or faces of DatasetGAN: generated images to train on, photographs to test on, in the order of the protocol.

    Args:
        root: the folder ``annotation``, with ``training_data`` and ``testing_data``.
        category: car, cat or face.
    """
    train = root / "training_data" / f"{category}_processed"
    test = root / "testing_data" / f"{category}_{DATASETGAN_CLASSES[category]}_class"
    _need(train, test)
    for number, (image, mask) in enumerate(_numbered_pairs(train)):
        yield Example("train", f"{number:04}", partial(_datasetgan, image, mask, SMALLEST_PART))
    # Folds are cut from the alphabetical order, image_10 before image_2.
    for number, (image, mask) in enumerate(sorted(_numbered_pairs(test), key=lambda pair: pair[0].name)):
        yield Example("test", f"{number:04}", partial(_datasetgan, image, mask, 0))


def _numbered_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Images and ``.npy`` masks of one folder by the last number of their names."""
    found: dict[bool, dict[int, Path]] = {True: {}, False: {}}
    for path in sorted(folder.iterdir()):
        numbers = re.findall(r"\d+", path.stem)
        if numbers and path.suffix.lower() in (".png", ".jpg", ".jpeg", ".npy"):
            found[path.suffix == ".npy"][int(numbers[-1])] = path
    masks, images = found[True], found[False]
    if not images or images.keys() != masks.keys():
        alone = sorted(images.keys() ^ masks.keys())
        raise DataError(
            f"{folder}: expected images and .npy masks of the same numbers"
            + (f", but {alone[0]} has only one of them" if alone else ", and found none")
        )
    return [(images[number], masks[number]) for number in sorted(images)]


def _datasetgan(image: Path, mask: Path, smallest: int) -> tuple[Image.Image, Mask]:
    try:
        ids = np.load(mask, allow_pickle=False)
    except ValueError as error:
        raise DataError(f"cannot read the mask {mask}: {error}") from error
    if ids.ndim == 3:  # (1, H, W) and (H, W, 3) both occur
        ids = ids[0] if ids.shape[0] == 1 else ids[..., 0]
    ids = ids.astype(np.uint8)
    counts = np.bincount(ids.ravel(), minlength=256)
    ids[counts[ids] < smallest] = 0
    picture = Image.open(image).convert("RGB")
    if picture.size != ids.shape[::-1]:
        picture = picture.resize(ids.shape[::-1], Image.Resampling.LANCZOS)
    return picture, ids


def cgpart_car(root: Path) -> Iterator[Example]:
    """Rendered cars of CGPart to train on, its photographs of cars to validate and to test on.

    Args:
        root: holds ``CGPart_render/car/{image,seg}/MODEL/*.png`` and ``CGPart_real``.
    """
    render, real = root / "CGPart_render" / "car", root / "CGPart_real"
    listed = real / "Image_sets" / "car_imagenet_val.txt"
    _need(render / "image", render / "seg", real / "Images" / "car_imagenet_cropped", listed)
    for model, folder in CGPART_MODELS.items():
        for image in sorted((render / "image" / folder).glob("*.png")):
            mask = render / "seg" / folder / image.name
            yield Example("train", f"{model}_{image.stem}", partial(_cgpart, image, mask))
    for name in listed.read_text().split():
        image = real / "Images" / "car_imagenet_cropped" / f"{name}.JPEG"
        mask = real / "Annotations_png" / "car_imagenet_cropped" / f"{name}.png"
        yield Example("test", name, partial(_cgpart, image, mask))


def _cgpart(image: Path, mask: Path) -> tuple[Path, Mask]:
    with Image.open(mask) as file:
        return image, np.array(file, np.uint8)


def _need(*paths: Path) -> None:
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist; expected the folder that the data set was unpacked into")
