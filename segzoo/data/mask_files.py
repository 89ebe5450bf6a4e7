"""Mask files: the ids that they store, and one line for each of the ways in which a file does not."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from segzoo.data.image_files import PHOTOMETRIC, SAMPLE_FORMAT, check_pages, opened, orientation, raw_mode, tiff_tag
from segzoo.data.label_spaces import RawIds
from segzoo.errors import DataError

MASK_TYPES = (".png", ".bmp", ".tif", ".tiff")  # lossless: JPEG and lossy WebP change ids
FORMATS = ("PNG", "BMP", "DIB", "TIFF")
ID_MODES = ("1", "L", "P", "I;16", "I;16B", "I;16L", "I;16N", "I")
COLOUR_WITH_IDS = "RGB;16B"  # SYNTHIA: a class in red and an instance in green
# PIL stretches greyscale of 2 and 4 bits to 0..255; dividing gives the stored ids back. "I": white is zero, and PIL inverts.
STORED = re.compile(r"(?:1|L)(?:;(?P<bits>[24]))?(?:;?(?P<inverted>I))?R?")
STRETCH = {"2": 85, "4": 17}
LOSSY = ("jpeg", "tiff_jpeg", "webp", "jpeg2000", "lerc")


def read_ids(path: Path, fits: Callable[[RawIds], bool] = lambda _: True) -> RawIds:
    """The (H, W) ids that a mask file stores: palette indices, 16 bits and fewer than 8 bits as they are.

    Of 16-bit RGB, as SYNTHIA stores a class in red and an instance in green, the red channel. In a TIFF whose white is zero,
    readers disagree: GDAL gives the values as stored, PIL and OpenCV invert them. The one that ``fits`` is taken.

    Args:
        path: the file.
        fits: whether a class map defines all of these ids.

    Raises:
        DataError: the file cannot be read, holds colours, or does not say which ids it holds.
    """
    with opened(path, "mask") as file:
        check_mask(file, path)
        if raw_mode(file) == COLOUR_WITH_IDS:  # PIL keeps the upper byte alone
            pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if pixels is None:
                raise OSError("damaged")
            return pixels[..., 2]
        stored = STORED.fullmatch(raw_mode(file))
        # PIL's truth values are bytes of 0 and 255.
        ids = np.asarray(file.convert("L")) // 255 if file.mode == "1" else np.asarray(file)
        if stored and stored["inverted"]:
            stretch = STRETCH.get(stored["bits"] or "", 1)
            as_shown = ids // stretch if stretch > 1 else ids
            return _white_is_zero(as_shown, (255 // stretch if file.mode == "L" else 1) - as_shown, fits, path)
        if tiff_tag(file, SAMPLE_FORMAT) == 2 and ids.dtype == np.uint8:
            ids = ids.view(np.int8)  # PIL reads -1 as 255
        return ids // STRETCH[stored["bits"]] if stored and stored["bits"] else ids


def check_mask(file: Image.Image, path: Path) -> None:
    """Refuses, from the head of the file alone, a mask that does not hold one id per pixel as it was saved.

    Raises:
        DataError: see there.
    """
    if file.format not in FORMATS:
        raise DataError(
            f"the mask {path} is a {file.format} file, whatever its name says: expected {', '.join(FORMATS)}, which keep ids; "
            "save it anew from where the ids are right"
        )
    if file.info.get("compression") in LOSSY:
        raise DataError(
            f"the mask {path} is a TIFF compressed as {file.info['compression']}, which changes ids; save it anew as PNG, from "
            "where the ids are right"
        )
    check_pages(file, path, "mask")
    if file.mode == "F":
        raise DataError(f"{path} holds floating-point numbers where class ids are expected: save whole numbers as PNG")
    if file.mode not in ID_MODES and raw_mode(file) != COLOUR_WITH_IDS:
        raise DataError(
            f"{path} is a colour image (mode {file.mode}) where class ids are expected: save one id per pixel as an 8-bit "
            "greyscale or palette PNG, e.g. the *_labelIds.png of Cityscapes"
        )
    if orientation(file) != 1:
        raise DataError(
            f"the mask {path} has an EXIF orientation, which few readers apply; save it upright without one"
        )


def _white_is_zero(as_shown: RawIds, as_stored: RawIds, fits: Callable[[RawIds], bool], path: Path) -> RawIds:
    possible = [ids for ids in (as_stored, as_shown) if fits(ids)]
    if len(possible) == 2:
        raise DataError(
            f"the mask {path} says that white is 0 (TIFF tag {PHOTOMETRIC}), and both its values and their inverse fit the "
            "class map; save it as a PNG of the ids"
        )
    return possible[0] if possible else as_stored
