"""Class maps as they are written: ids, ranges, colours or names with their class, or a class with all that belongs to it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from segzoo.data.class_maps import (
    IGNORE,
    IGNORE_INDEX,
    LARGEST_ID,
    NAMES,
    OTHERS,
    UNDEFINED,
    ClassMap,
    colour_map,
    frozen,
    names_map,
    packed,
)
from segzoo.errors import ConfigError
from segzoo.suggest import did_you_mean

RANGE = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")
HEXADECIMAL = re.compile(r"#([0-9a-fA-F]{6})")
DECIMAL = re.compile(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)")


def read_map(entries: Any, classes: Sequence[str], where: str, name: str = "", space: str = "") -> ClassMap:
    """A class map from its entries, whose order does not matter.

    Args:
        entries: ``id: class`` or ``class: ids``, see `segzoo.data.label_spaces`; in Python a colour may be a tuple, too. Of
            masks whose objects have names ``names: {name: class}``, where null is for objects that are not drawn.
        classes: names of the classes in the order of their ids.
        where: what messages call the map.
        name: of the map.
        space: of the label space.

    Raises:
        ConfigError: an unknown class, an id outside 0..65535, a colour that is none, ids beside colours, or one twice.
    """
    if entries is not None and not isinstance(entries, Mapping):
        raise ConfigError(f"{where}: expected a mapping, found {entries!r}")
    if not entries:
        raise ConfigError(
            f"{where}: it is empty; a colour such as '#804080' has to be quoted, or YAML skips it as a comment"
        )
    ids = {one: number for number, one in enumerate(classes)} | {IGNORE: IGNORE_INDEX}
    if isinstance(entries.get(NAMES), Mapping):
        if len(entries) > 1:
            beside = next(key for key in entries if key != NAMES)
            raise ConfigError(
                f"{where}: found '{beside}' beside '{NAMES}'; make two maps of it, or move it below '{NAMES}'"
            )
        return _named(entries[NAMES], ids, where, name, space)
    others = class_id(entries[OTHERS], ids, where) if OTHERS in entries else UNDEFINED
    labels: dict[bool, dict[int, int]] = {True: {}, False: {}}
    for written, label in _pairs(entries, ids, where):
        is_colour, values = _values(written, where)
        for value in values:
            if value in labels[is_colour]:
                raise ConfigError(f"{where}: {written!r} is listed twice{_meant(entries)}; keep one of them")
            labels[is_colour][value] = label
    if labels[True] and labels[False]:
        raise ConfigError(
            f"{where}: it lists ids ({next(iter(labels[False]))}) and colours, and a mask holds one or the other"
            f"{_meant(entries)}; make two maps of it"
        )
    if labels[True]:
        return colour_map(labels[True], others, classes, name, space)
    table = np.full(256 if max(labels[False], default=0) < 256 else LARGEST_ID + 1, others, np.int16)
    listed = IGNORE_INDEX in labels[False] or others not in (UNDEFINED, IGNORE_INDEX)
    if not listed:
        table[IGNORE_INDEX] = IGNORE_INDEX
    for value, label in labels[False].items():
        table[value] = label
    return ClassMap(frozen(table), name, space, listed, classes=tuple(classes))


def _named(entries: Mapping[Any, Any], ids: Mapping[str, int], where: str, name: str, space: str) -> ClassMap:
    labels = {}
    for written, label in entries.items():
        if not isinstance(written, str):
            raise ConfigError(f"{where}: {NAMES}: found {written!r}, expected a name; quote names such as '7' or 'no'")
        labels[written] = UNDEFINED if label is None else class_id(label, ids, f"{where}: {NAMES}: '{written}'")
    others = labels.pop(OTHERS, UNDEFINED)
    classes = [one for one in ids if one != IGNORE]
    if not labels:
        raise ConfigError(f"{where}: {NAMES}: it lists no name; expected e.g. {{lorry: {classes[0]}}}")
    return names_map(labels, others, classes, name, space)


def class_id(name: Any, ids: Mapping[str, int], where: str) -> int:
    """The id of a class.

    Raises:
        ConfigError: there is no such class.
    """
    if isinstance(name, bool):  # YAML's reading of yes, no, on and off
        raise ConfigError(
            f"{where}: found {str(name).lower()}, expected a class name; quote a name such as 'on' or 'no'"
        )
    if not isinstance(name, str) or name not in ids:
        raise ConfigError(f"{where}: unknown class '{name}'{did_you_mean(str(name), ids)}")
    return ids[name]


def _pairs(entries: Mapping[Any, Any], ids: Mapping[str, int], where: str) -> Iterator[tuple[Any, int]]:
    """What is written for an id, a range or a colour, and its label id."""
    for key, value in entries.items():
        if key == OTHERS:
            continue
        if isinstance(key, str) and (key in ids or _is_class_first(key, value)):
            label = class_id(key, ids, where)
            if value is None or value == []:
                raise ConfigError(f"{where}: '{key}' lists nothing; expected ids or colours, or no such line")
            for one in value if isinstance(value, list) else [value]:
                yield one, label
        else:
            yield key, class_id(value, ids, where)


def _is_class_first(key: str, value: Any) -> bool:
    """Whether an entry whose key is no class has one that is misspelt."""
    return not any(kind.fullmatch(key.strip()) for kind in (RANGE, HEXADECIMAL, DECIMAL)) and not isinstance(
        value, bool
    )


def _values(written: Any, where: str) -> tuple[bool, Sequence[int]]:
    """Whether it is a colour, and the ids or the packed colour."""
    text = written.strip() if isinstance(written, str) else ""
    channels: Sequence[Any] | None = written if isinstance(written, list | tuple) else None
    if match := DECIMAL.fullmatch(text):
        channels = [int(part) for part in match.groups()]
    if channels is not None:
        if len(channels) != 3 or not all(is_byte(value) for value in channels):
            raise ConfigError(f"{where}: {written!r} is no colour, expected red, green and blue with values 0 to 255")
        return True, [int(packed(np.array(channels, np.uint8)))]
    if match := HEXADECIMAL.fullmatch(text):
        return True, [int(match[1], 16)]
    first = last = written
    if match := RANGE.fullmatch(text):
        first, last = int(match[1]), int(match[2] or match[1])
    if not (_is_id(first) and _is_id(last) and first <= last):
        raise ConfigError(
            f"{where}: raw id {written!r}, expected a whole number from 0 to {LARGEST_ID}, a range such as '10-12', a colour "
            f"such as '128 64 128' or '#804080', or '{OTHERS}'"
        )
    return False, range(first, last + 1)


def _meant(entries: Mapping[Any, Any]) -> str:
    """What a list of three numbers may have been meant for."""
    three = [v for v in entries.values() if isinstance(v, list) and len(v) == 3 and all(map(is_byte, v))]
    return (
        f' ({three[0]} is three ids; a colour in a list is [{three[0]}] or "{" ".join(map(str, three[0]))}")'
        if three
        else ""
    )


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_ID


def is_byte(value: Any) -> bool:
    """Whether a value is a whole number from 0 to 255."""
    return _is_id(value) and value <= 255
