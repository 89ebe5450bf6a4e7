"""Classes, their colours and the maps that turn what a data set's masks hold into label ids.

Label spaces are data: one YAML per space (``configs/label_spaces/<name>.yaml`` or a file of one's own):

    name: camvid10
    classes: {Sky: [128, 128, 128], Building: [128, 0, 0], ...}   # in the order of the label ids
    maps:                                                         # optional: what masks hold -> class, or ignore
      camvid11: {0: Sky, 1: Building, ..., 10: ignore, 255: ignore}
      simulator: {Building: [3, "10-12"], Sky: 23, others: ignore}
      painted: {"70 130 180": Sky, "#464646": Building}
      drawn: {names: {house: Building, sky: Sky, sign: ignore, plate: null}}
    subsets: {things: [Car, Pedestrian]}                          # optional: further means to report

An entry of a map names a raw id, a range of ids or a colour and then its class, or a class and then all that belongs to it, in
a list a colour also as ``[r, g, b]``. The order of entries does not matter, and nothing may be listed twice. A map is of ids or
of colours; masks in colours are read by one of colours. Masks whose objects have names (polygons and bitmaps in JSON, colours
that a JSON beside the mask names) are read by a map of ``names``; objects of a name that is null are not drawn.

A raw id or a colour that a map does not list is an error when a mask holds it; a map that means "everything else" says so with
``others: ignore``. The id 255 is ignored unless the map lists it or has ``others``. Raw ids reach from 0 to 65535;
``others`` stands for ids up to 255, or for all of them in a map that lists one above 255. Four maps need not be written:
``identity`` (0..C-1 and 255), ``palette`` (the colours of the space itself, and black for what is ignored), ``names`` (those of
its classes) and, in a space of two classes that has no map of that name, ``binary`` (0 is the first class, 255 or 1 the
second).

A space can be another one with fewer classes:

    name: cityscapes16
    extends: cityscapes                                           # a packaged space, or a YAML beside this one
    keep: synthia16                                               # a subset of it, or a list of class names

Its classes keep the order of the other's and are numbered 0, 1, ... again. It has all maps of the other, in which the
dropped classes are ignored, and those subsets of which no class is dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segzoo.configs import config_path
from segzoo.data.class_colours import class_colours
from segzoo.data.class_maps import (
    BINARY,
    IDENTITY,
    IGNORE,
    NAMES,
    PALETTE,
    UNDEFINED,
    ClassMap,
    binary_map,
    identity_map,
    names_map,
    palette_map,
)
from segzoo.data.class_maps import IGNORE_INDEX as IGNORE_INDEX
from segzoo.data.map_entries import class_id, is_byte, read_map
from segzoo.errors import ConfigError
from segzoo.suggest import did_you_mean
from segzoo.yaml_files import read_yaml


@dataclass(frozen=True)
class LabelSpace:
    """The classes a model predicts, in the order of their ids.

    Attributes:
        name: short name, e.g. ``cityscapes``.
        classes: class names; the position is the label id.
        palette: an (r, g, b) colour per class, 0..255.
        subsets: named selections of class ids that deserve a mean of their own, e.g. ``synthia16``.
        maps: class maps by name; see :func:`load_class_map`. They describe data sets rather than the classes, so they count
            neither in ``==`` nor in :meth:`to_dict`.

    Raises:
        ConfigError: the description contradicts itself.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    subsets: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    maps: Mapping[str, ClassMap] = field(default_factory=dict, hash=False, compare=False, repr=False)

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
    space = load_label_space(space)
    if name in space.maps:
        return space.maps[name]
    if name == IDENTITY:
        return identity_map(space.classes, space.name)
    if name == PALETTE:
        return palette_map(space.classes, space.palette, space.name)
    if name == NAMES:
        labels = {one: number for number, one in enumerate(space.classes)} | {IGNORE: IGNORE_INDEX}
        return names_map(labels, UNDEFINED, space.classes, NAMES, space.name)
    if name == BINARY and space.num_classes == 2:
        return binary_map(space.classes, space.name)
    known = (IDENTITY, PALETTE, NAMES, *space.maps)
    if name == BINARY:
        raise ConfigError(
            f"the class map '{BINARY}' is of two classes and the label space '{space.name}' has {space.num_classes}: write one "
            f"into its YAML, e.g. maps: {{{BINARY}: {{0: {space.classes[0]}, 255: {space.classes[-1]}}}}}"
        )
    raise ConfigError(f"label space '{space.name}' has no class map '{name}'{did_you_mean(name, known)}")


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
        kept = {class_id(name, ids, f"{path}: keep") for name in keep}
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
            class_map: table.with_labels(new, [base.classes[old] for old in new], name)
            for class_map, table in {
                **base.maps,
                **{one: load_class_map(base, one) for one in (PALETTE, NAMES)},
            }.items()
        },
    )


def _parse(content: Any, where: str) -> LabelSpace:
    known = ("name", "classes", "maps", "subsets")
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: expected a mapping with the keys {', '.join(known)}")
    _check_keys(content, known, where)
    if isinstance(names := content.get("classes"), list) and names and all(isinstance(name, str) for name in names):
        written = ", ".join(f"{name}: {list(rgb)}" for name, rgb in zip(names, class_colours(names), strict=True))
        raise ConfigError(f"{where}: classes is a list, expected each name with its colour, e.g. {{{written}}}")
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
        if not (isinstance(rgb, list) and len(rgb) == 3 and all(is_byte(value) for value in rgb)):
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
        subsets[str(subset)] = tuple(class_id(name, ids, f"{where}: subset '{subset}'") for name in names)
    maps = {}
    for name, table in _mapping(content.get("maps"), f"{where}: maps").items():
        if name in (IDENTITY, PALETTE, NAMES):
            raise ConfigError(f"{where}: the map '{name}' exists in every label space; name this one differently")
        maps[str(name)] = read_map(table, tuple(classes), f"{where}: map '{name}'", str(name), content["name"])
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


def _mapping(value: Any, where: str) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping, found {value!r}")
    return value
