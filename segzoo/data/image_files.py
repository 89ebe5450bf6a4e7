"""Image and mask files: what they store, and one line for what is wrong with one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from segzoo.errors import DataError

ID_MODES = ("1", "L", "P", "I;16", "I;16B", "I;16L", "I")
# PIL stretches greyscale of 2 and 4 bits to 0..255; dividing gives the stored ids back.
STRETCHED = {"L;2": 85, "L;4": 17}


def read_ids(path: Path) -> npt.NDArray[np.integer | np.bool_]:
    """The (H, W) ids that a mask file stores: palette indices, 16 bits and fewer than 8 bits as they are.

    Of 16-bit RGB, as SYNTHIA stores a class in red and an instance in green, the red channel.

    Raises:
        DataError: the file cannot be read or holds colours.
    """
    with opened(path, "mask") as file:
        if _raw_mode(file) == "RGB;16B":  # PIL keeps the upper byte alone
            pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if pixels is None:
                raise OSError("damaged")
            return pixels[..., 2]
        check_mode(file, path)
        stretch = STRETCHED.get(_raw_mode(file), 1)
        ids = np.asarray(file)
        return ids // stretch if stretch > 1 else ids


def check_mode(file: Image.Image, path: Path) -> None:
    """Refuses a mask of colours.

    Raises:
        DataError: see there.
    """
    if file.mode not in ID_MODES and _raw_mode(file) != "RGB;16B":
        raise DataError(
            f"{path} is a colour image (mode {file.mode}) where class ids are expected: save one id per pixel as an 8-bit "
            "greyscale or palette PNG, e.g. the *_labelIds.png of Cityscapes"
        )


def check_size(path: Path, size: tuple[int, int], image_path: Path) -> None:
    """Refuses a mask whose (width, height) is not that of its image.

    Raises:
        DataError: see there.
    """
    width, height = size_of(image_path)
    if size != (width, height):
        raise DataError(
            f"{path} is {size[0]}x{size[1]} (width x height) but its image {image_path} is {width}x{height}; both must agree"
        )


@contextmanager
def opened(path: Path, what: str) -> Iterator[Image.Image]:
    """A file, open; ``what`` it is called in errors.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with Image.open(path) as file:
            yield file
    except DataError:
        raise
    except Exception as error:
        # PIL's decoders raise nearly anything (SyntaxError, struct.error, ...) on broken bytes.
        reason = " ".join(str(error).replace(f" {str(path)!r}", "").split()) or type(error).__name__
        raise DataError(
            f"cannot read the {what} {path}: {reason}; replace the file or remove it and its partner"
        ) from error


def size_of(path: Path) -> tuple[int, int]:
    """Width and height, from the file's head alone."""
    with opened(path, "image") as image:
        return image.size


def _raw_mode(file: Image.Image) -> str:
    """How the file stores its pixels, e.g. ``L;4``: PIL's own mode no longer tells 4 bits from 8."""
    tiles = getattr(file, "tile", None)
    args = tiles[0][3] if tiles else file.mode
    return str(args[0] if isinstance(args, tuple) else args)
