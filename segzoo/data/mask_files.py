"""Mask files: the ids or colours that they store, and one line for each of the ways in which a file does not."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from segzoo.data.class_maps import ClassMap, RawIds, packed, unpacked
from segzoo.data.files import walk
from segzoo.data.folder_names import matching_folders
from segzoo.data.image_files import PHOTOMETRIC, SAMPLE_FORMAT, check_pages, opened, orientation, raw_mode, tiff_tag
from segzoo.data.named_masks import NAMED_TYPES, named_size, read_named
from segzoo.data.pairing import LOSSY_TYPES, Affixes, files_by_stem
from segzoo.errors import ConfigError, DataError
from segzoo.suggest import did_you_mean

Channel = Literal["red", "green", "blue"]
CHANNELS: tuple[Channel, ...] = ("red", "green", "blue")
CHANNEL_OPTION = "`data.DOMAIN.channel`"
MASK_TYPES = (".png", ".bmp", ".tif", ".tiff", ".npy")  # lossless: JPEG and lossy WebP change ids
FORMATS = ("PNG", "BMP", "DIB", "TIFF")
ID_MODES = ("1", "L", "P", "I;16", "I;16B", "I;16L", "I;16N", "I")
COLOUR_MODES = ("RGB", "RGBA", "RGBX", "LA", "PA")
COLOUR_WITH_IDS = "RGB;16B"  # SYNTHIA: a class in red and an instance in green
# PIL stretches greyscale of 2 and 4 bits to 0..255; dividing gives the stored ids back. "I": white is zero, and PIL inverts.
STORED = re.compile(r"(?:1|L)(?:;(?P<bits>[24]))?(?:;?(?P<inverted>I))?R?")
STRETCH = {"2": 85, "4": 17}
LOSSY = ("jpeg", "tiff_jpeg", "webp", "jpeg2000", "lerc")
ANEW = "save it anew, as PNG, from where the labels are right"


def find_masks(folder: Path, affixes: Affixes, named: bool = False) -> dict[str, Path]:
    """The mask files of a folder by stem, see `files_by_stem`.

    Args:
        folder: where they lie.
        affixes: what their stems have in addition.
        named: look for masks whose objects have names: PNG files, or else JSON files.

    Raises:
        DataError: see there, or there are none but files that were compressed with loss.
    """
    if named:
        try:
            return files_by_stem(folder, "mask", NAMED_TYPES[:1], affixes)
        except DataError:
            return files_by_stem(folder, "mask", NAMED_TYPES[1:], affixes)
    try:
        return files_by_stem(folder, "mask", MASK_TYPES, affixes)
    except DataError:
        places = [place for _, place in matching_folders(folder)]
        files = [path for place in places for path in walk(place)]
        lossy = next((p for p in files if p.suffix.lower() in LOSSY_TYPES and affixes.fits(p.stem)), None)
        if lossy is not None:
            raise DataError(
                f"the masks in {folder} are {lossy.suffix} files, such as {lossy.name}: JPEG and WebP change the values along "
                "every border, so that no id or colour can be relied on; export the masks anew as PNG (converting these files "
                "does not help), or set masks to another folder"
            ) from None
        if any(path.suffix.lower() == ".json" and affixes.fits(path.stem) for path in files):
            raise DataError(
                f"the masks in {folder} are JSON files, whose objects have names, and the class_map lists ids or colours; "
                "choose a class_map of names: 'names' for those of the classes, or one of your own, e.g. maps: {mine: {names: "
                "{lorry: CLASS, ...}}}"
            ) from None
        raise


def mask_size(path: Path) -> tuple[int, int]:
    """(width, height), from the file's head alone.

    Raises:
        DataError: the file cannot be read.
    """
    if path.suffix.lower() == ".npy":
        height, width = _array(path).shape
        return width, height
    if path.suffix.lower() == ".json":
        return named_size(path)
    with opened(path, "mask") as file:
        return file.size


def size_remedy(mask: tuple[int, int], image: tuple[int, int]) -> str:
    """What to do about a mask whose (width, height) is not that of its image."""
    if mask == image[::-1]:  # by a program that turned one of them and dropped its orientation
        return (
            "one of them lies on its side: turn it by a quarter (which way, a look at both tells), or export both anew"
        )
    return "export the mask anew, or resize it without mixing ids (nearest neighbour)"


def read_mask(path: Path, class_map: ClassMap, channel: Channel | None = None) -> RawIds:
    """What a mask file holds, as its class map looks it up: (H, W) ids, packed colours, or positions of names.

    Raises:
        DataError: see `read_ids`, `read_colours` and `read_named`.
    """
    if class_map.names is not None:
        return read_named(path, class_map)
    return read_ids(path, class_map.defines, channel) if class_map.colours is None else read_colours(path)


def read_ids(path: Path, fits: Callable[[RawIds], bool] = lambda _: True, channel: Channel | None = None) -> RawIds:
    """The (H, W) ids that a mask file stores: palette indices, 16 bits and fewer than 8 bits as they are.

    Of colours whose three channels are equal, any of these. Of 16-bit RGB, as SYNTHIA stores a class in red and an instance in
    green, the red channel. In a TIFF whose white is zero, readers disagree: GDAL gives the values as stored, PIL and OpenCV
    invert them. The one that ``fits`` is taken. A ``.npy`` file holds an (H, W) array of whole numbers.

    Args:
        path: the file.
        fits: whether a class map defines all of these ids.
        channel: the one that holds the ids, in masks of colours.

    Raises:
        DataError: the file cannot be read, holds colours, or does not say which ids it holds.
    """
    if path.suffix.lower() == ".npy":
        if channel is not None:
            raise DataError(f"{path} is an array of ids, and channel ({CHANNEL_OPTION}) is '{channel}'; remove channel")
        return np.array(_array(path))
    with opened(path, "mask") as file:
        check_mask(file, path)
        if raw_mode(file) == COLOUR_WITH_IDS:  # PIL keeps the upper byte alone
            pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if pixels is None:
                raise OSError("damaged")
            return pixels[..., 2 - CHANNELS.index(channel or "red")]
        if file.mode in COLOUR_MODES:
            return _ids_of_colours(_colours(file, path, channel is None), fits, channel, path)
        if channel is not None:
            raise DataError(
                f"the mask {path} has one channel (mode {file.mode}), and channel ({CHANNEL_OPTION}) is '{channel}'; remove "
                "channel, or set masks to the folder of the masks of colours"
            )
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


def read_colours(path: Path) -> npt.NDArray[np.uint32]:
    """The (H, W) colours of a mask file as viewers show them, packed into one number each; see `packed`.

    Of a palette the colours that it names. Transparency is no class: the colour beneath counts where it is full (Replicator
    writes its background so), and in between, where an editor blurred a border, it is an error.

    Raises:
        DataError: the file cannot be read, or does not hold colours of 8 bits.
    """
    if path.suffix.lower() == ".npy":
        raise DataError(f"{path} is an array of ids, and the class_map lists colours; choose a class_map of ids")
    with opened(path, "mask") as file:
        check_mask(file, path)
        if ";16" in raw_mode(file) or file.mode.startswith("I"):
            raise DataError(
                f"the mask {path} has 16 bits per channel (mode {file.mode}), and the class_map lists colours of 8; choose a "
                "class_map of ids, or save the mask with 8 bits per channel"
            )
        return packed(_colours(file, path))


def check_mask(file: Image.Image, path: Path) -> None:
    """Refuses, from the head of the file alone, a mask that does not keep one id or colour per pixel.

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
    if file.mode not in (*ID_MODES, *COLOUR_MODES):
        raise DataError(f"the mask {path} has the mode {file.mode}, expected ids, RGB or RGBA; {ANEW}")
    if orientation(file) != 1:
        raise DataError(
            f"the mask {path} has an EXIF orientation, which few readers apply; save it upright without one"
        )


def check_head(path: Path, class_map: ClassMap, channel: Channel | None = None) -> None:
    """Refuses what `read_mask` would, from the head of the file where that is enough.

    Raises:
        DataError: see there.
    """
    if path.suffix.lower() == ".npy":
        _array(path)
    elif class_map.names is None:
        with opened(path, "mask") as file:
            check_mask(file, path)
            deep = ";16" in raw_mode(file) or file.mode == "I"
            if class_map.colours is not None and not deep:
                return
            if class_map.colours is None and (deep or (file.mode in ID_MODES) == (channel is None)):
                return  # what is left are colours, of which three equal channels may be ids, and what is refused anyhow
    read_mask(path, class_map, channel)


def _array(path: Path) -> npt.NDArray[np.integer]:
    """The (H, W) array of a ``.npy`` file, left on the disk."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # EOFError, ValueError, OSError, SyntaxError of a broken head, ...
        reason = (
            "it is no array of numbers"
            if re.search("pickle|Python objects", str(error))
            else " ".join(str(error).split()).rstrip(".")
        )
        raise DataError(
            f"cannot read the mask {path}: {reason or type(error).__name__}; save whole numbers of shape (H, W) with "
            "numpy.save"
        ) from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "iub":
        found = f"shape {array.shape} and type {array.dtype}" if isinstance(array, np.ndarray) else "several arrays"
        raise DataError(
            f"the mask {path} has {found}, expected whole numbers of shape (H, W); save class ids, e.g. "
            "ids.astype('uint16'), with numpy.save"
        )
    return array


def _colours(file: Image.Image, path: Path, check_alpha: bool = True) -> npt.NDArray[np.uint8]:
    """The (H, W, 3) colours of 8 bits of an open file."""
    if file.mode not in ("RGBA", "LA", "PA") and "transparency" not in file.info:
        return np.asarray(file if file.mode == "RGB" else file.convert("RGB"))
    pixels = np.asarray(file.convert("RGBA"))
    if check_alpha:
        check_alpha_is_no_class(pixels, path)
    between = np.count_nonzero((pixels[..., 3] > 0) & (pixels[..., 3] < 255)) if check_alpha else 0
    if between:
        raise DataError(
            f"the mask {path} is half transparent in {100 * between / pixels[..., 3].size:.3g} % of its pixels, where borders "
            f"were smoothed and colours mean nothing; export it without smoothing (anti-aliasing) and without transparency"
        )
    return pixels[..., :3]


def check_alpha_is_no_class(pixels: npt.NDArray[np.uint8], path: Path) -> None:
    """Refuses (H, W, 4) pixels of one colour that differ in their transparency alone: it holds what the colours should.

    Raises:
        DataError: see there.
    """
    colours, alpha = pixels[..., :3], pixels[..., 3]
    if alpha.size and (colours == colours[0, 0]).all() and (alpha != alpha[0, 0]).any():
        raise DataError(
            f"the mask {path} has one colour everywhere ({' '.join(map(str, colours[0, 0].tolist()))}), and only its "
            "transparency (alpha) differs, which is read as no class; save the alpha channel by itself, as a grey PNG"
        )


def _ids_of_colours(
    pixels: npt.NDArray[np.uint8], fits: Callable[[RawIds], bool], channel: Channel | None, path: Path
) -> RawIds:
    if channel is not None:
        return np.ascontiguousarray(pixels[..., CHANNELS.index(channel)])
    if (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all():
        return np.ascontiguousarray(pixels[..., 0])
    colours, counts = np.unique(packed(pixels), return_counts=True)
    most = np.argsort(-counts)[:3]
    shown = ", ".join(
        f"{' '.join(map(str, unpacked(int(colours[i]))))} ({100 * counts[i] / counts.sum():.3g} %)" for i in most
    )
    fitting = [name for index, name in enumerate(CHANNELS) if fits(pixels[..., index])]
    # Where all of them fit, the map takes anything.
    hint = f", whose values are ids of this class_map in {path.name}" if 0 < len(fitting) < 3 else ""
    raise DataError(
        f"the mask {path} holds colours ({colours.size} of them: {shown}{', ...' if colours.size > 3 else ''}), and the "
        "class_map lists ids; if colours are the classes, set class_map to palette (those of the label space) or to a map of "
        f'colours, as in maps: {{mine: {{"{" ".join(map(str, unpacked(int(colours[most[0]]))))}": CLASS, ...}}}}; if one '
        f"channel holds the ids, set channel ({CHANNEL_OPTION}) to {fitting[0] if hint else 'red'}{hint}"
    )


def _white_is_zero(as_shown: RawIds, as_stored: RawIds, fits: Callable[[RawIds], bool], path: Path) -> RawIds:
    possible = [ids for ids in (as_stored, as_shown) if fits(ids)]
    if len(possible) == 2:
        raise DataError(
            f"the mask {path} says that white is 0 (TIFF tag {PHOTOMETRIC}), and both its values and their inverse fit the "
            "class map; save it as a PNG of the ids"
        )
    return possible[0] if possible else as_stored


def check_channel(channel: str, class_map: ClassMap) -> None:
    """Refuses a channel that is none, or that is named beside a map of colours.

    Raises:
        ConfigError: see there.
    """
    if channel not in CHANNELS:
        raise ConfigError(
            f"channel '{channel}': expected {', '.join(CHANNELS)}, or null{did_you_mean(channel, CHANNELS)}"
        )
    if class_map.colours is not None or class_map.names is not None:
        listed = "colours" if class_map.names is None else "names"
        raise ConfigError(
            f"channel '{channel}' takes ids from one channel, and the class_map '{class_map.name}' lists {listed}; remove "
            "channel, or choose a class_map of ids"
        )
