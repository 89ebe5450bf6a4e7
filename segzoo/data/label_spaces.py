"""Classes, their colours and the tables that turn a data set's raw mask ids into label ids.

Label spaces are data: one YAML per space (``configs/label_spaces/<name>.yaml`` or a file of one's own)::

    name: camvid10
    classes: {Sky: [128, 128, 128], Building: [128, 0, 0], ...}   # in the order of the label ids
    maps:                                                         # optional: raw mask id -> class, or ignore
      camvid11: {0: Sky, 1: Building, ..., 10: ignore, 255: ignore}
    subsets: {things: [Car, Pedestrian]}                          # optional: further means to report

A raw id that a map does not list is an error when a mask holds it; a map that means "everything else" says so with
``others: ignore``. 255 is ignored unless the map lists it or has ``others``. Raw ids reach from 0 to 65535; ``others`` stands
for ids up to 255, or for all of them in a map that lists one above 255. The map ``identity`` (0..C-1 and 255) exists in
every space.

A space can be another one with fewer classes::

    name: cityscapes16
    extends: cityscapes                                           # a packaged space, or a YAML beside this one
    keep: synthia16                                               # a subset of it, or a list of class names

Its classes keep the order of the other's and are numbered 0, 1, ... again. It has all maps of the other, in which the
dropped classes are ignored, and those subsets of which no class is dropped.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segzoo.configs import config_path
from segzoo.errors import ConfigError, DataError
from segzoo.suggest import did_you_mean
from segzoo.yaml_files import read_yaml

IGNORE_INDEX = 255
LARGEST_ID = 65535
"""Of a raw mask: 16 bits."""
IGNORE = "ignore"
IDENTITY = "identity"
OTHERS = "others"

RawIds = npt.NDArray[np.integer[Any] | np.bool_]


@dataclass(frozen=True)
class LabelSpace:
    """The classes a model predicts, in the order of their ids.

    Attributes:
        name: short name, e.g. ``cityscapes``.
        classes: class names; the position is the label id.
        palette: an (r, g, b) colour per class, 0..255.
        subsets: named selections of class ids that deserve a mean of their own, e.g. ``synthia16``.
        maps: per class map the label ids of the raw ids 0..255, or 0..65535 where one above 255 is listed, -1 where
            undefined; see :func:`load_class_map`. They describe data sets rather than the classes, so they count neither
            in ``==`` nor in :meth:`to_dict`.

    Raises:
        ConfigError: the description contradicts itself.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    subsets: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    maps: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < len(self.classes) <= IGNORE_INDEX:
            raise ConfigError(
                f"label space '{self.name}' has {len(self.classes)} classes, expected 1 to {IGNORE_INDEX}"
            )
        if len(set(self.classes)) < len(self.classes) or len(self.palette) != len(self.classes):
            raise ConfigError(
                f"label space '{self.name}' needs distinct class names and one colour for each of them, "
                f"found {len(set(self.classes))} distinct names in {len(self.classes)} and "
                f"{len(self.palette)} colours"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes; ids are 0..num_classes-1, and 255 is ignored."""
        return len(self.classes)

    def colorize(self, labels: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
        """The (H, W, 3) uint8 picture of (H, W) label ids 0..255; ids that are no class are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: self.num_classes] = self.palette
        picture: npt.NDArray[np.uint8] = table[labels]
        return picture

    def to_dict(self) -> dict[str, Any]:
        """Plain types, without the maps; lists keep the order of the ids even when keys get sorted."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "palette": [list(rgb) for rgb in self.palette],
            "subsets": {name: list(ids) for name, ids in self.subsets.items()},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "LabelSpace":
        """The space that :meth:`to_dict` wrote."""
        palette = tuple((int(r), int(g), int(b)) for r, g, b in content["palette"])
        subsets = {name: tuple(ids) for name, ids in content["subsets"].items()}
        return cls(content["name"], tuple(content["classes"]), palette, subsets)


@dataclass(frozen=True, eq=False)
class ClassMap:
    """A lookup table from raw mask ids to label ids.

    Attributes:
        lut: (256,) or (65536,) int16: the label id of every raw id, 255 = ignore, -1 = undefined, which is an error
            when met.
        name: name of the map, for error messages.
        space: name of the label space, for error messages.
        void_listed: whether the map itself says what 255 is.
    """

    lut: npt.NDArray[np.int16]
    name: str = IDENTITY
    space: str = ""
    void_listed: bool = False

    def defines(self, raw: RawIds) -> bool:
        """Whether the map defines every id of a mask."""
        return bool((self._look_up(raw) >= 0).all())

    def apply(self, raw: RawIds, where: str | Path) -> npt.NDArray[np.uint8]:
        """Label ids of a mask.

        Args:
            raw: (H, W) raw ids of any integer type.
            where: the file, for the error message.

        Returns:
            (H, W) uint8 label ids, 255 = ignore.

        Raises:
            DataError: an id that the map does not define.
        """
        labels = self._look_up(raw)
        if labels.size and labels.min() < 0:
            unknown, counts = np.unique(raw[labels < 0], return_counts=True)
            more = f" (and {unknown.size - 1} more unknown ids)" if unknown.size > 1 else ""
            raise DataError(
                f"unknown label id {int(unknown[0])} in {where} ({counts[0]} pixels){more}: "
                f"the class map '{self.name}' of label space '{self.space}' defines "
                f"{_ranges(np.flatnonzero(self.lut >= 0))}; {self._remedy(raw, int(unknown[0]))}"
            )
        return labels.astype(np.uint8)

    def _look_up(self, raw: RawIds) -> npt.NDArray[np.int16]:
        size = self.lut.size
        if raw.dtype == np.bool_:
            raw = raw.astype(np.uint8)
        if raw.dtype == np.uint8 or (raw.dtype == np.uint16 and size > LARGEST_ID):
            bounded = raw
        elif np.issubdtype(raw.dtype, np.unsignedinteger):
            bounded = np.minimum(raw, raw.dtype.type(size))
        else:
            wide = raw.astype(np.int64)
            bounded = np.where((wide < 0) | (wide >= size), size, wide)
        table = np.append(self.lut, np.int16(-1))  # the last entry: whatever does not fit the table
        found: npt.NDArray[np.int16] = table[bounded]
        return found

    def _remedy(self, ids: RawIds, raw: int) -> str:
        if not 0 <= raw <= LARGEST_ID:
            return f"ids are whole numbers from 0 to {LARGEST_ID}: save the masks anew"
        if self.name == IDENTITY:
            found = [int(one) for one in np.unique(ids)[:6]]
            return (
                "name the class_map that fits the masks, or write one into a YAML of the label space, e.g. maps: "
                f"{{mine: {{{', '.join(f'{one}: CLASS' for one in found)}{', ...' if len(found) > 5 else ''}}}}}"
            )
        return "choose the class_map that fits the masks or add the id to it"


def load_label_space(name_or_path: str | Path | LabelSpace) -> LabelSpace:
    """A packaged label space by name, or one's own by the path of its YAML; a label space is itself.

    Raises:
        ConfigError: no such space, or its YAML is wrong (an unknown key or class name, a colour that is
            none or that two classes share, a raw id outside 0..65535); the message names the file.
    """
    if isinstance(name_or_path, LabelSpace):
        return name_or_path
    return _load(config_path("label_spaces", str(name_or_path)), ())


def load_class_map(space: LabelSpace | str | Path, name: str) -> ClassMap:
    """A class map of a label space (or of the space of that name or path).

    Raises:
        ConfigError: the space has no such map.
    """
    space = space if isinstance(space, LabelSpace) else load_label_space(space)
    void_listed = False
    if name == IDENTITY:
        table = np.full(256, -1, np.int16)
        table[: space.num_classes] = np.arange(space.num_classes)
        table[IGNORE_INDEX] = IGNORE_INDEX
    elif name in space.maps:
        table = np.array(space.maps[name], np.int16)
        void_listed = bool(table[IGNORE_INDEX] >= 0)
        if not void_listed:
            table[IGNORE_INDEX] = IGNORE_INDEX
    else:
        known = (IDENTITY, *space.maps)
        raise ConfigError(f"label space '{space.name}' has no class map '{name}'{did_you_mean(name, known)}")
    table.flags.writeable = False
    return ClassMap(table, name, space.name, void_listed)


def _load(path: Path, derived: tuple[Path, ...]) -> LabelSpace:
    """The space of a file; ``derived`` are the files that extend it, the first one first."""
    content = read_yaml(path, "label space")
    if isinstance(content, Mapping) and ("extends" in content or "keep" in content):
        return _derive(content, path, derived)
    return _parse(content, str(path))


def _derive(content: Mapping[Any, Any], path: Path, derived: tuple[Path, ...]) -> LabelSpace:
    known = ("name", "extends", "keep")
    _check_keys(content, known, f"{path}: beside 'extends'")
    name, parent, keep = (content.get(key) for key in known)
    if not isinstance(name, str) or not isinstance(parent, str):
        raise ConfigError(f"{path}: 'name' and 'extends', the space that classes are kept of, are required texts")
    chain = (*derived, path.resolve())
    origin = config_path("label_spaces", str(path.parent / parent) if parent.endswith((".yaml", ".yml")) else parent)
    if origin.resolve() in chain:
        raise ConfigError(f"{path}: extends '{parent}', which extends this one")
    base = _load(origin, chain)
    if isinstance(keep, list):
        ids = {name: number for number, name in enumerate(base.classes)}
        kept = {_class_id(name, ids, f"{path}: keep") for name in keep}
    elif isinstance(keep, str) and keep in base.subsets:
        kept = set(base.subsets[keep])
    else:
        expected = f"a subset of '{base.name}' ({', '.join(base.subsets) or 'it has none'}) or a list of class names"
        raise ConfigError(f"{path}: keep is {keep!r}, expected {expected}")
    new = {old: number for number, old in enumerate(sorted(kept))}
    return LabelSpace(
        name,
        tuple(base.classes[old] for old in new),
        tuple(base.palette[old] for old in new),
        # Of fewer classes a subset would be another mean under the name of the published one.
        {subset: tuple(new[old] for old in olds) for subset, olds in base.subsets.items() if kept.issuperset(olds)},
        {
            class_map: tuple(-1 if old < 0 else new.get(old, IGNORE_INDEX) for old in table)
            for class_map, table in base.maps.items()
        },
    )


def _parse(content: Any, where: str) -> LabelSpace:
    known = ("name", "classes", "maps", "subsets")
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: expected a mapping with the keys {', '.join(known)}")
    _check_keys(content, known, where)
    classes = _mapping(content.get("classes"), f"{where}: classes")
    if not classes or not isinstance(content.get("name"), str):
        raise ConfigError(f"{where}: 'name' (a text) and 'classes' (name: [r, g, b], in id order) are required")
    for name, rgb in classes.items():
        if not isinstance(name, str) or name == IGNORE:
            raise ConfigError(f"{where}: class names are texts other than '{IGNORE}', found {name!r}; quote it")
        if not name.strip() or not name.isprintable():
            raise ConfigError(
                f"{where}: the class name {name!r} is empty or has line breaks, which no table could show"
            )
        if not (isinstance(rgb, list) and len(rgb) == 3 and all(_is_byte(value) for value in rgb)):
            raise ConfigError(f"{where}: the colour of '{name}' is {rgb!r}, expected [r, g, b] with values 0 to 255")
        if rgb == [0, 0, 0]:
            raise ConfigError(
                f"{where}: the colour of '{name}' is black, which means ignored in pictures; choose another"
            )
    ids = {name: number for number, name in enumerate(classes)}
    subsets = {}
    for subset, names in _mapping(content.get("subsets"), f"{where}: subsets").items():
        if not isinstance(names, list):
            raise ConfigError(f"{where}: subset '{subset}' is {names!r}, expected a list of class names")
        if not names or len(set(map(str, names))) < len(names):
            raise ConfigError(f"{where}: subset '{subset}' is {names!r}, expected one class or more, each one once")
        subsets[str(subset)] = tuple(_class_id(name, ids, f"{where}: subset '{subset}'") for name in names)
    maps = {}
    for name, table in _mapping(content.get("maps"), f"{where}: maps").items():
        if name == IDENTITY:
            raise ConfigError(f"{where}: the map '{IDENTITY}' exists in every label space; name this one differently")
        maps[str(name)] = lookup_table(_mapping(table, f"{where}: map '{name}'"), ids, f"{where}: map '{name}'")
    palette = tuple((int(r), int(g), int(b)) for r, g, b in classes.values())
    space = LabelSpace(content["name"], tuple(classes), palette, subsets, maps)
    owners: dict[tuple[int, int, int], str] = {}
    for name, colour in zip(space.classes, palette, strict=True):
        if (other := owners.setdefault(colour, name)) != name:
            raise ConfigError(
                f"{where}: '{other}' and '{name}' have one colour, {list(colour)}, and pictures could not tell them apart; "
                "choose another for one of them"
            )
    return space


def _check_keys(content: Mapping[Any, Any], known: tuple[str, ...], where: str) -> None:
    for key in content:
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'{did_you_mean(str(key), known)}")


def lookup_table(entries: Mapping[Any, Any], ids: Mapping[str, int], where: str) -> tuple[int, ...]:
    """A class map as `LabelSpace.maps` has it.

    Args:
        entries: raw id, or ``others``, to class, or ``ignore``.
        ids: label ids by class.
        where: what messages call the map.

    Raises:
        ConfigError: an unknown class, or a raw id outside 0..65535.
    """
    choices = {**ids, IGNORE: IGNORE_INDEX}
    others = _class_id(entries[OTHERS], choices, where) if OTHERS in entries else -1
    listed = {raw: name for raw, name in entries.items() if raw != OTHERS}
    for raw in listed:
        if not (isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw <= LARGEST_ID):
            raise ConfigError(f"{where}: raw id {raw!r}, expected a whole number from 0 to {LARGEST_ID}, or '{OTHERS}'")
    table = [others] * (256 if max(listed, default=0) < 256 else LARGEST_ID + 1)
    if others == IGNORE_INDEX:
        table[IGNORE_INDEX] = -1  # ignored anyhow, and not because the map says so
    for raw, name in listed.items():
        table[raw] = _class_id(name, choices, where)
    return tuple(table)


def _class_id(name: Any, ids: Mapping[str, int], where: str) -> int:
    if isinstance(name, bool):  # YAML's reading of yes, no, on and off
        raise ConfigError(
            f"{where}: found {str(name).lower()}, expected a class name; quote a name such as 'on' or 'no'"
        )
    if not isinstance(name, str) or name not in ids:
        raise ConfigError(f"{where}: unknown class '{name}'{did_you_mean(str(name), ids)}")
    return ids[name]


def _mapping(value: Any, where: str) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping, found {value!r}")
    return value


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _ranges(ids: Iterable[int]) -> str:
    """``0-10, 255`` for 0, 1, ..., 10, 255."""
    runs: list[list[int]] = []
    for number in map(int, ids):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) or "no id"
