"""How a score was measured, said once and stored with every score."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from segzoo.errors import DataError

Size = tuple[int, int]


@dataclass(frozen=True)
class Protocol:
    """The conditions of an evaluation. Two scores may be compared only when their protocols agree.

    Attributes:
        classes: name of the label space, e.g. ``cityscapes19``.
        num_classes: number of its classes.
        split: name of the evaluated split, e.g. ``test``.
        images: how many images were evaluated.
        input_size: (height, width) of the network's input in pixels, or ``None`` for each image's own size.
        window: (height, width) of a sliding window, or ``None`` for the whole image at once.
        flips: whether predictions are averaged with those of the mirrored image.
        overlap: share of a window that it has in common with the next one; None without windows.
        blend: ``linear`` or ``mean``, how the logits of overlapping windows are averaged; None without windows.
        scales: factors of the input's size whose predictions are averaged.
        name: what the protocol is called where it was published; None for one of one's own.
        ignore_index: label of pixels that are not counted.
        truth_size: ground truth is always used at its own size; logits are resized to it.
        checkpoint: ``last``: the weights of the last step; or the name of another checkpoint's file.
        split_images: how many images the split holds, or ``None`` where nobody counted.
    """

    classes: str
    num_classes: int
    split: str
    images: int
    input_size: Size | None = None
    window: Size | None = None
    flips: bool = False
    ignore_index: int = 255
    truth_size: Literal["native"] = "native"
    checkpoint: str = "last"
    split_images: int | None = None
    overlap: float | None = None
    blend: str | None = None
    scales: tuple[float, ...] = (1.0,)
    name: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every image of the split counts; a ``trainer.limit_test_batches`` leaves some out."""
        return self.split_images is None or self.images == self.split_images

    def describe(self) -> str:
        """One line, printed with every score."""
        count = f"{self.images}" if self.complete else f"only {self.images} of {self.split_images}"
        count += " image" if self.images == 1 and self.complete else " images"
        return "; ".join(
            [
                f"{self.split}, {count}",
                f"{self.num_classes} classes ({self.classes}), label {self.ignore_index} ignored",
                f"input {_size(self.input_size)}",
                self._windows(),
                "flips averaged" if self.flips else "no flips",
                *(
                    [f"scales {', '.join(f'{scale:g}' for scale in self.scales)} averaged"]
                    if self.scales != (1.0,)
                    else []
                ),
                f"truth at {self.truth_size} size",
                f"{self.checkpoint} checkpoint" if self.checkpoint == "last" else f"checkpoint {self.checkpoint}",
                *([f"protocol {self.name}"] if self.name else []),
            ]
        )

    def _windows(self) -> str:
        if self.window is None:
            return "whole image"
        overlap = "" if self.overlap is None else f", overlap {100 * self.overlap:g} %"
        return f"window {_size(self.window)}{overlap}" + ("" if self.blend is None else f", {self.blend} blend")

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        content = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in content.items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Protocol":
        """The inverse of :meth:`to_dict`; keys it does not know are left out."""
        names = {entry.name for entry in fields(cls)}
        known: dict[str, Any] = {name: value for name, value in content.items() if name in names}
        for name, value in known.items():
            known[name] = tuple(value) if isinstance(value, list) else value
        return cls(**known)

    @classmethod
    def load(cls, path: str | Path) -> "Protocol":
        """The protocol in a score file, see `Scores.save`.

        Raises:
            DataError: the file is missing or not a score file.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text())["protocol"])
        except OSError as error:
            raise DataError(f"cannot read the scores in {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is not a score file of segzoo ({type(error).__name__}: {error})") from error


def _size(size: Size | None) -> str:
    return "native" if size is None else f"{size[1]}x{size[0]} (WxH)"
