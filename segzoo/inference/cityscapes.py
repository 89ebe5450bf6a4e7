"""Labels as the official script of Cityscapes scores them: label ids, in files that are named after the image."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from segzoo.data.domains import Pixels
from segzoo.data.label_spaces import LabelSpace, load_class_map, load_label_space
from segzoo.errors import ConfigError, DataError
from segzoo.suggest import did_you_mean

OFFICIAL = "cityscapes"
"""The packaged label space, and its map from label ids."""
NAME = re.compile(r"([^_]+_\d{6}_\d{6})(_leftImg8bit)?")
"""CITY_SEQUENCE_FRAME: what the script finds a prediction by."""


class CityscapesExport:
    """Class ids to official label ids.

    Args:
        space: the classes of the predictions; each is one of Cityscapes, by its name.

    Raises:
        ConfigError: another class.
    """

    def __init__(self, space: LabelSpace) -> None:
        official = load_label_space(OFFICIAL)
        read = load_class_map(official, OFFICIAL)
        ids = {official.classes[read.label_of(raw)]: int(raw) for raw in read.listed().tolist()}
        self._table = np.zeros(256, np.uint8)
        for number, name in enumerate(space.classes):
            if name not in ids:
                raise ConfigError(
                    f"the class '{name}' of label space '{space.name}' is none of Cityscapes, whose label ids are to be "
                    f"written{did_you_mean(name, ids)}"
                )
            self._table[number] = ids[name]

    def label_ids(self, labels: Pixels) -> Pixels:
        """The official label ids (H, W) uint8 of class ids (H, W)."""
        found: Pixels = self._table[labels]
        return found

    def check(self, names: Sequence[str]) -> None:
        """Refuses images whose predictions the script would not find, or two of which it would find for one.

        Raises:
            DataError: such images.
        """
        known: dict[str, str] = {}
        for name in names:
            other = known.setdefault(self.file_name(name), name)
            if other != name:
                raise DataError(
                    f"{other} and {name} are one image of Cityscapes, {self.file_name(name)}: leave one of them out"
                )

    def file_name(self, name: str) -> str:
        """The name of the file for an image, e.g. ``frankfurt_000000_000294_labelIds.png``.

        Args:
            name: of the image, its path without ending.

        Raises:
            DataError: it is none of Cityscapes.
        """
        stem = PurePosixPath(name).name
        match = NAME.fullmatch(stem)
        if match is None:
            raise DataError(
                f"{name}: the official script finds predictions by names such as frankfurt_000000_000294_leftImg8bit; rename "
                "the image, or label it without the export"
            )
        return f"{match[1]}_labelIds.png"
