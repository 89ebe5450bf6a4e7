"""Image files: what they store, and one line for what is wrong with one. Masks are read by `segzoo.data.mask_files`.

PIL reads most of them rightly. Not by itself: images of more than 8 bits, of which it keeps the upper byte (of colours) or
clips (greyscale), the orientation that cameras write into EXIF, and the pages behind the first one.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from segzoo.data.domains import Pixels
from segzoo.errors import DataError

BITS_OPTION = "`data.DOMAIN.image_bits`"
ORIENTATION = 274  # the tag's number in EXIF and TIFF
COLOURS = ("RGB", "RGBA", "RGBX", "LA")
QUARTER_TURNS = (5, 6, 7, 8)
PHOTOMETRIC, SAMPLE_FORMAT, KIND_OF_PAGE = 262, 339, 254  # of TIFF
REDUCED_OR_MASK = 0b101  # bits of a page's kind: a smaller copy for viewers, or which pixels are valid


def _raise_pixel_limit() -> None:
    """Lets PIL open what this machine can hold.

    PIL refuses images of 179 million pixels and more, as a small file from a stranger might fill the memory. The files here
    are the user's own, and aerial images are that large: the bound becomes an eighth of the memory's bytes, in pixels.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    if Image.MAX_IMAGE_PIXELS is not None:  # PIL refuses from twice this number on
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, memory // 16)


_raise_pixel_limit()


@contextmanager
def opened(path: Path, what: str) -> Iterator[Image.Image]:
    """A file, open; ``what`` it is called in errors.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with Image.open(path) as file:
            if file.format == "TIFF":
                # With a name PIL maps uncompressed pixels into memory, and mixes up rows where a quarter turn is to be applied.
                file.filename = ""
            yield file
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"the {what} {path} is too large for the memory of this machine ({error}); cut it into tiles of, say, 2048 x 2048 "
            "pixels, the mask alike"
        ) from error
    except Exception as error:
        # PIL's decoders raise nearly anything (SyntaxError, struct.error, ...) on broken bytes.
        empty = path.is_file() and not path.stat().st_size  # a copy that was broken off
        told = " ".join(str(error).replace(f" {str(path)!r}", "").split()).rstrip(": ") or type(error).__name__
        reason = "it is empty (0 bytes)" if empty else told
        raise DataError(
            f"cannot read the {what} {path}: {reason}; replace the file or remove it and its partner"
        ) from error


def raw_mode(file: Image.Image) -> str:
    """How the file stores its pixels, e.g. ``L;4``: PIL's own mode no longer tells 4 bits from 8."""
    tiles = getattr(file, "tile", None)
    args = tiles[0][3] if tiles else file.mode
    return str(args[0] if isinstance(args, tuple) else args)


def tiff_tag(file: Image.Image, number: int) -> int | None:
    """The first value of a tag of a TIFF file; None for other files."""
    value = getattr(file, "tag_v2", {}).get(number)
    return int(value[0] if isinstance(value, tuple) else value) if value is not None else None


def check_pages(file: Image.Image, path: Path, what: str) -> None:
    """Refuses a file of several pages or frames. Smaller copies for viewers, as GeoTIFFs and cameras add them, are none.

    Raises:
        DataError: see there.
    """
    frames = count = 1 if file.format == "MPO" else int(getattr(file, "n_frames", 1))
    if frames > 1 and file.format == "TIFF":
        count = 0
        for page in range(frames):
            file.seek(page)
            count += not (tiff_tag(file, KIND_OF_PAGE) or 0) & REDUCED_OR_MASK
        file.seek(0)
    if count > 1:
        raise DataError(f"the {what} {path} has {count} pages or frames, expected one; save each as a file of its own")


def orientation(file: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8. A TIFF's is 1: the decoder applies it, to masks too."""
    if file.format == "TIFF" or (
        file.format == "PNG" and "exif" not in file.info
    ):  # PIL would decode a PNG to find out
        return 1
    found = file.getexif().get(ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def sizes_of(path: Path) -> tuple[tuple[int, int], int]:
    """(width, height) as stored, from the file's head alone, and the EXIF orientation."""
    with opened(path, "image") as file:
        return file.size, orientation(file)


def turned(size: tuple[int, int], turn: int) -> tuple[int, int]:
    """(width, height) after an image of that size is turned upright."""
    return size[::-1] if turn in QUARTER_TURNS else size


def read_image(path: Path, depth: Callable[[Path], int], upright: bool = False, one_page: bool = True) -> Pixels:
    """The image as (H, W, 3) uint8 RGB.

    Args:
        path: the file.
        depth: how many bits a file of 16 bits per channel uses: the brightest value is ``2**bits - 1``.
        upright: turn it as its EXIF orientation says.
        one_page: refuse a file of several pages, rather than take the first.

    Raises:
        DataError: the file cannot be read, has several pages, or is brighter than its bits allow.
    """
    with opened(path, "image") as file:
        if one_page:
            check_pages(file, path, "image")
        own_bits = _stored_bits(file)  # loading the pixels forgets them
        deep = _deep_pixels(file, path)
        if deep is None:
            if file.mode in ("I", "F"):
                kind = "floating-point" if file.mode == "F" else "32-bit"
                raise DataError(f"{path} is a {kind} image; convert it to 8 or 16 bits per channel")
            return np.array((ImageOps.exif_transpose(file) if upright else file).convert("RGB"))
        used = own_bits or depth(path)
        if deep.max(initial=0) >= 2**used:
            raise DataError(
                f"{path} holds the value {deep.max()}, which {used} bits cannot; set image_bits "
                f"({BITS_OPTION}) to {int(deep.max()).bit_length()} or more, at most 16"
            )
        pixels = (deep >> (used - 8)).astype(np.uint8)
        turn = orientation(file)
    return np.ascontiguousarray(_upright(pixels, turn) if upright else pixels)


def rgb_pixels(picture: Image.Image, upright: bool = False) -> Pixels:
    """A PIL image as (H, W, 3) uint8 RGB.

    Args:
        picture: of 8 bits per channel.
        upright: turn it as its EXIF orientation says.

    Raises:
        DataError: it has more bits, of which PIL would drop some, or cannot be read.
    """
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16") or _is_deep(picture):
        raise DataError(
            f"the image has more than 8 bits per channel (mode {picture.mode}), of which PIL loses some; give the path of its "
            "file instead"
        )
    try:
        return np.array((ImageOps.exif_transpose(picture) if upright else picture).convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # of a file that is opened and not read yet
        raise DataError(f"cannot read the image: {error}; replace the file") from error


def used_bits(files: Sequence[Path]) -> int:
    """How many bits images of 16 bits per channel use: 16, all of a set alike, or brightness would change between them.

    Args:
        files: a sample of one set; those of 8 bits, and those that say how many they use, do not count.

    Raises:
        DataError: they are darker than half of what 16 bits allow, as images of 10, 12 or 14 bits are.
    """
    values = [value for file in files if (value := _brightest(file)) is not None]
    if values and max(values) < 2**15:
        bits = next(bits for bits in (8, 10, 12, 14, 15) if max(values) < 2**bits)
        raise DataError(
            f"the images of 16 bits in {files[0].parent} are dark: none that was looked at holds more than {max(values)} of "
            f"65535; set image_bits ({BITS_OPTION}) to {bits} if they use {bits} bits, or to 16 if they are that dark"
        )
    return 16


def drawn_upright(image: Path, mask_size: tuple[int, int]) -> bool | None:
    """Whether a mask of that (width, height) was drawn on the image as its EXIF orientation turns it; None: it fits either way.

    Labelling tools show images turned, as OpenCV reads them; PIL and torchvision give them as stored.
    """
    stored, turn = sizes_of(image)
    if stored == turned(stored, turn):
        return None
    return mask_size == turned(stored, turn)


def _brightest(path: Path) -> int | None:
    """The largest value of an image of 16 bits that does not say how many of them it uses; None for any other image."""
    with opened(path, "image") as file:
        if not _is_deep(file) or _stored_bits(file) is not None:
            return None
        deep = _deep_pixels(file, path)
        return None if deep is None else int(deep.max(initial=0))


def _is_deep(file: Image.Image) -> bool:
    """Whether the channels have 16 bits (or 12, which is unpacked to them). Those of CMYK, made for print, are used in full."""
    if file.mode in COLOURS:
        return ";16" in raw_mode(file)
    return file.mode.startswith("I;16") or (file.mode == "I" and (file.format == "PNG" or ";16" in raw_mode(file)))


def _stored_bits(file: Image.Image) -> int | None:
    """The bits of a TIFF that packs fewer than 16, which says that it uses them all."""
    return 12 if raw_mode(file) == "I;12" else None


def _deep_pixels(file: Image.Image, path: Path) -> npt.NDArray[np.uint16] | None:
    """The (H, W, 3) values of an image of 16 bits per channel, bright is high; None for any other image."""
    if not _is_deep(file):
        return None
    brightest = 2 ** (_stored_bits(file) or 16) - 1
    file.load()  # which refuses truncated files, where OpenCV might give what it has
    if file.mode in COLOURS:
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        expected = [(*file.size[::-1], channels) for channels in (3, 4)]
        if values is None or values.dtype != np.uint16 or values.shape not in expected:
            raise DataError(f"{path} stores its colours in a way that is not read right; save it as a 16-bit PNG")
        return values[..., 2::-1]
    values = np.asarray(file)
    if values.min(initial=0) < 0:
        raise DataError(f"{path} holds negative values; convert it to 8 or 16 bits per channel without a sign")
    if tiff_tag(file, PHOTOMETRIC) == 0:  # white is zero
        values = brightest - values
    grey: npt.NDArray[np.uint16] = values.astype(np.uint16)
    return np.repeat(grey[..., None], 3, axis=2)


def _upright(pixels: Pixels, turn: int) -> Pixels:
    """What `PIL.ImageOps.exif_transpose` does, of an array."""
    if turn in QUARTER_TURNS:
        pixels = pixels.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
