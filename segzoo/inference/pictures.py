"""The pictures of labels: in the colours of their classes, and written whole or not at all."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from segzoo.errors import ConfigError, DataError
from segzoo.files import whole_file

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from segzoo.data.label_spaces import LabelSpace

    Pixels = npt.NDArray[np.uint8]

ROWS = 256


def blend(image: "Pixels", colours: "Pixels", alpha: float) -> "Pixels":
    """An image (H, W, 3) with colours of the same size over it, ``alpha`` of them."""
    import numpy as np

    done = np.empty_like(image)
    for row in range(0, len(image), ROWS):  # in floats all of a large image would be many times its size
        part = slice(row, row + ROWS)
        done[part] = np.round((1 - alpha) * image[part].astype(np.float32) + alpha * colours[part])
    return done


def with_palette(labels: "Pixels", space: "LabelSpace") -> "Image.Image":
    """Label ids (H, W) as a palette picture in the classes' colours, which stores the ids."""
    import numpy as np
    from PIL import Image

    picture = Image.fromarray(labels)
    # All 256 colours: with fewer the writer would store the ids in fewer bits.
    picture.putpalette(space.colorize(np.arange(256)[None]).tobytes())
    return picture


def read_stamp(path: Path) -> str | None:
    """The stamp of a picture that `write_picture` wrote; None for any other file."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            found = file.info.get("comment")
    except Exception:  # no picture at all, or a broken one
        return None
    text = found.decode(errors="replace") if isinstance(found, bytes) else str(found)
    return text if text.startswith("segzoo ") else None


def write_picture(picture: "Image.Image", path: Path, stamp: str | None = None) -> None:
    """Saves a picture as PNG or JPEG, whole or not at all, in a folder that is made if need be.

    Args:
        picture: what to save.
        path: where.
        stamp: a text that is stored with it, see `read_stamp`.

    Raises:
        ConfigError: the file cannot be written.
        DataError: the picture is too large for the format.
    """
    from PIL.PngImagePlugin import PngInfo

    encoded = io.BytesIO()
    try:
        if path.suffix == ".png":
            info = PngInfo()
            if stamp:
                info.add_text("comment", stamp)
            picture.save(encoded, "PNG", pnginfo=info)
        else:
            picture.save(encoded, "JPEG", comment=stamp or "")
    except (OSError, ValueError) as error:
        raise DataError(f"{picture.width}x{picture.height} pixels are too many for {path.suffix} ({error})") from error
    write_file(path, encoded.getvalue())


def write_file(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all, in a folder that is made if need be.

    Raises:
        ConfigError: it cannot be written.
    """
    make_folder(path.parent)
    try:
        with whole_file(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}") from error


def write_legend(space: "LabelSpace", path: Path, stamp: str | None = None) -> None:
    """A picture of the colour of every class."""
    from PIL import Image, ImageDraw

    row = 24
    legend = Image.new("RGB", (280, row * space.num_classes + 8), "white")
    draw = ImageDraw.Draw(legend)
    for i, (name, colour) in enumerate(zip(space.classes, space.palette, strict=True)):
        top = 4 + i * row
        draw.rectangle((6, top + 2, 36, top + row - 2), fill=tuple(colour), outline="black")
        draw.text((46, top + 5), f"{i}  {name}", fill="black")
    write_picture(legend, path, stamp)
