"""How an image is given to the network when it is scored or labelled: at which size, whole or in windows, how often."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from segzoo.checks import check_range
from segzoo.configs import config_path
from segzoo.data.domains import Pixels
from segzoo.data.transforms import evaluation_transform, view_transform
from segzoo.errors import ConfigError
from segzoo.options import check_values
from segzoo.yaml_files import read_yaml

Size = tuple[int, int]
SECTION = "protocol"
"""What the command and its files call these options; a published set of them is a YAML of that kind."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """How the network gets an image that is scored or labelled. What it says is always brought to the image's own size.

    Args:
        name: Names the published protocol that these options follow, for the line below a table of scores; null for your own
            options. An option that differs from the named protocol is refused.
        input: Chooses the size of the images that the network gets: resized to its training input, or native, their own size.
        window: Divides the input into windows of this height and width in pixels, for photographs that do not fit into memory
            or are far larger than the training images; null gives the whole input at once.
        overlap: Sets the share of a window, from 0 to below 1, that overlaps with the next window.
        blend: Chooses how the logits of overlapping windows are averaged: linear lowers the weight of a window towards its
            border, where it sees less of the surroundings; mean weighs all pixels alike, as published code does.
        flips: Averages the probabilities with those of the mirrored image, for twice the time.
        scales: Lists factors that enlarge or reduce the input; the probabilities at all scales are averaged.
    """

    name: str | None = None
    input: Literal["resized", "native"] = "resized"
    window: tuple[int, int] | None = None
    overlap: float = 0.25
    blend: Literal["linear", "mean"] = "linear"
    flips: bool = False
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: a value of another type or out of its range, or one that is not as in the protocol of that name.
        """
        check_values(type(self).__init__, vars(self), SECTION)
        if self.window is not None:
            if len(self.window) != 2:
                raise ConfigError(f"`protocol.window` {list(self.window)}: expected two numbers, height and width")
            check_range("`protocol.window` (height, width)", min(self.window), 1)
            object.__setattr__(self, "window", tuple(int(side) for side in self.window))
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"`protocol.overlap` {self.overlap}: expected a share of a window, 0 or more and below 1")
        if not self.scales:
            raise ConfigError("`protocol.scales` is empty: expected factors such as 0.75, 1, 1.25")
        for scale in self.scales:
            if not 0 < scale <= 16:
                raise ConfigError(f"`protocol.scales` {scale}: expected a factor above 0 and at most 16")
        object.__setattr__(self, "scales", tuple(float(scale) for scale in self.scales))
        if self.name is not None:
            self._refuse_others(self.name)

    @property
    def plain(self) -> bool:
        """Whether the network gets every image once, whole and resized: images of one size, which make batches."""
        return self.input == "resized" and self.window is None and not self.flips and self.scales == (1.0,)

    def batch_size(self, images: int) -> int:
        """How many images come at once where so many are wanted; those that are given in several views come one by one."""
        return images if self.plain else 1

    def size_of(self, image: Size, size: Size | None) -> Size:
        """The (height, width) of the input of scale 1 for an image of a size; ``size`` as for `inputs`."""
        return image if self.input == "native" or size is None else size

    def inputs(self, image: Pixels, size: Size | None) -> list[Pixels]:
        """An image (H, W, 3) at the size of every scale.

        Args:
            image: at its own size, from which every scale is made.
            size: (height, width) of the resized input; None: the image's own.
        """
        height, width = self.size_of((image.shape[0], image.shape[1]), size)
        found = []
        for scale in self.scales:
            wanted = max(1, round(scale * height)), max(1, round(scale * width))
            transform = evaluation_transform(wanted) if scale == 1 else view_transform(wanted)
            found.append(image if image.shape[:2] == wanted else transform(image=image)["image"])
        return found

    def network_sizes(self, size: Size) -> dict[str, Size]:
        """The sizes of the network's inputs that are known before the images are, by the option that sets them.

        Args:
            size: (height, width) of the resized input.
        """
        if self.window is not None:
            return {"`protocol.window`": self.window}
        if self.input == "native":
            return {}
        scaled = {scale: (max(1, round(scale * size[0])), max(1, round(scale * size[1]))) for scale in self.scales}
        return {"`data.size`" if s == 1 else f"`protocol.scales` {s:g}": found for s, found in scaled.items()}

    def _refuse_others(self, name: str) -> None:
        published = published_views(name)
        for field in fields(self):
            value, expected = getattr(self, field.name), published.get(field.name, field.default)
            expected = tuple(expected) if isinstance(expected, list) else expected
            if field.name != "name" and value != expected:
                raise ConfigError(
                    f"`protocol.{field.name}` {_spelled(value)}: the protocol '{name}' has {_spelled(expected)}; leave the "
                    "option out, or set `protocol.name` to null for a protocol of your own"
                )


def published_views(name: str) -> Mapping[str, Any]:
    """The options of a packaged protocol, or of one in a YAML of one's own.

    Raises:
        ConfigError: there is none of that name.
    """
    content = read_yaml(config_path(SECTION, name))
    found = content.get(SECTION) if isinstance(content, dict) else None
    if not isinstance(found, dict):
        raise ConfigError(f"{name} is no protocol: expected a YAML with a section 'protocol'")
    return found


def _spelled(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(f"{part:g}" for part in value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
