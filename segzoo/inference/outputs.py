"""The files that are written for a labelled image: what each is called, and what stands in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segzoo.errors import ConfigError
from segzoo.files import whole_file
from segzoo.inference.pictures import blend, make_folder, read_stamp, with_palette, write_picture

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segzoo.data.label_spaces import LabelSpace
    from segzoo.inference.cityscapes import CityscapesExport
    from segzoo.inference.maps import Maps

    Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Outputs:
    """What is written, and where. A stamp in every file says what it was made of and with.

    Attributes:
        out: the folder.
        alpha: opacity of the colours in overlays.
        confidence: whether confidences are written.
        probabilities: whether the probabilities of all classes are.
        export: writes official label ids of Cityscapes, if it is there.
    """

    out: Path
    alpha: float = 0.5
    confidence: bool = False
    probabilities: bool = False
    export: "CityscapesExport | None" = None

    def paths(self, name: str) -> dict[str, Path]:
        """The files of an image by their kind. The labels come last: where they are, the image is done."""
        found = {"overlays": self.out / "overlays" / f"{name}.jpg"}
        if self.confidence:
            found["confidences"] = self.out / "confidences" / f"{name}.png"
        if self.probabilities:
            found["probabilities"] = self.out / "probabilities" / f"{name}.npz"
        if self.export is not None:
            found["cityscapes"] = self.out / "cityscapes" / self.export.file_name(name)
        return found | {"labels": self.out / "labels" / f"{name}.png"}

    @property
    def content(self) -> str:
        """What is in the folder, in words."""
        flags = {
            "confidences": self.confidence,
            "probabilities": self.probabilities,
            "cityscapes": self.export is not None,
        }
        further = [kind for kind, is_written in flags.items() if is_written]
        return f"{', '.join(f'{kind}/' for kind in ('labels', 'overlays', *further))} and legend.png"

    def write(self, name: str, image: "Pixels", maps: "Maps", space: "LabelSpace", stamp: str) -> None:
        """Writes the files of an image.

        Args:
            name: of the image, its path below the folder without ending.
            image: (H, W, 3) uint8 RGB.
            maps: what the network says of it.
            space: the classes and their colours.
            stamp: see `stamp_of`.

        Raises:
            ConfigError: a file cannot be written.
            DataError: the image is too large for a format.
        """
        import numpy as np
        from PIL import Image

        for kind, path in self.paths(name).items():
            if kind == "overlays":
                picture = Image.fromarray(blend(image, space.colorize(maps.labels), self.alpha))
            elif kind == "confidences":
                assert maps.confidence is not None
                picture = Image.fromarray(np.round(255 * maps.confidence).astype(np.uint8))
            elif kind == "probabilities":
                _write_arrays(path, stamp, maps)
                continue
            elif kind == "cityscapes":
                assert self.export is not None
                picture = Image.fromarray(self.export.label_ids(maps.labels))
            else:
                picture = with_palette(maps.labels, space)
            write_picture(picture, path, stamp)


def stamp_of(path: Path) -> str | None:
    """The stamp of a file that `Outputs.write` wrote; None for any other file."""
    if path.suffix != ".npz":
        return read_stamp(path)
    import numpy as np

    try:
        with np.load(path) as content:
            text = str(content["stamp"])
    except Exception:  # no such file, or a broken one
        return None
    return text if text.startswith("segzoo ") else None


def _write_arrays(path: Path, stamp: str, maps: "Maps") -> None:
    import numpy as np

    assert maps.probabilities is not None
    make_folder(path.parent)
    try:
        # To the file and not through memory, which the probabilities of a large image fill already.
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, stamp=np.array(stamp), probabilities=maps.probabilities)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
