"""What a network says of one image."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from segzoo.data.domains import Pixels
from segzoo.data.label_spaces import LabelSpace
from segzoo.errors import ConfigError
from segzoo.inference.pictures import blend, with_palette, write_picture
from segzoo.suggest import did_you_mean

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, eq=False)
class Prediction:
    """The labels of one image, at its own size. A notebook shows it as the image with the classes' colours over it.

    Attributes:
        labels: (H, W) uint8 class ids, the positions in ``classes``.
        confidence: (H, W) float32 in [0, 1]: the probability that the network gives to each pixel's label.
        image: (H, W, 3) uint8 RGB: what was labelled, turned upright where it was a photograph.
        label_space: the classes and their colours.
        name: of the image's file without its ending; empty for pixels from memory.
    """

    labels: Pixels
    confidence: npt.NDArray[np.float32]
    image: Pixels = field(repr=False)
    label_space: LabelSpace = field(repr=False)
    name: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes by their ids."""
        return self.label_space.classes

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """The (H, W) pixels of a class.

        Raises:
            ConfigError: there is no class of that name.
        """
        if name not in self.classes:
            raise ConfigError(f"there is no class '{name}'{did_you_mean(name, self.classes)}")
        return self.labels == self.classes.index(name)

    def overlay(self, alpha: float = 0.5) -> "Image.Image":
        """The image with the classes' colours over it, as a PIL image.

        Args:
            alpha: opacity of the colours, 0 to 1.
        """
        from PIL import Image

        if not 0 <= alpha <= 1:
            raise ConfigError(f"alpha {alpha}: expected 0 to 1")
        return Image.fromarray(blend(self.image, self.label_space.colorize(self.labels), alpha))

    def save(self, path: Path | str) -> Path:
        """Writes the labels as a PNG whose values are the class ids; its palette shows them in the classes' colours.

        Args:
            path: file that ends in ``.png``; folders above it are made.

        Raises:
            ConfigError: another ending, or a file that cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise ConfigError(
                f"{path}: labels are saved as PNG, which keeps ids; `overlay().save(...)` writes JPEG too"
            )
        write_picture(with_palette(self.labels, self.label_space), path)
        return path

    def __repr__(self) -> str:
        shares = np.bincount(self.labels.ravel(), minlength=len(self.classes)) / max(self.labels.size, 1)
        largest = sorted(range(len(self.classes)), key=lambda i: -shares[i])[:3]
        of = ", ".join(f"{self.classes[i]} {100 * shares[i]:.0f} %" for i in largest if shares[i])
        height, width = self.labels.shape
        name = f"'{self.name}', " if self.name else ""
        return f"Prediction({name}{width}x{height}: {of}; mean confidence {self.confidence.mean():.2f})"

    def _repr_png_(self) -> bytes:
        shown = io.BytesIO()
        picture = self.overlay()
        picture.thumbnail((1024, 1024))
        picture.save(shown, "PNG")
        return shown.getvalue()
