"""Which classes two domains have, guessed from what their masks store, and a YAML of them with a comment per line."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segzoo.configs import config_names
from segzoo.data.class_colours import class_colours, is_background
from segzoo.data.class_maps import BINARY, IDENTITY, IGNORE_INDEX, PALETTE
from segzoo.data.label_shares import share_of
from segzoo.data.label_spaces import LabelSpace, load_class_map, load_label_space
from segzoo.dataprep.mask_kinds import Stored
from segzoo.errors import ConfigError

SUGGESTED = 4
NAMES_OF_TWO = ("background", "foreground")
ODD, SMALL = 10, 0.01
"""Times that a class may have more pixels in one domain than in the other, where it has this share of one of them."""
MISTAKE = "GUESSED, probably a mistake"
PLAIN = re.compile(r"[^\W\d_][\w./-]*|/[\w./-]*")
RESERVED = ("yes", "no", "on", "off", "true", "false", "null", "y", "n", "ignore")


@dataclass(frozen=True)
class Classes:
    """The classes and what stands for them in the masks.

    Attributes:
        names: in the order of their label ids.
        colours: for pictures.
        maps: by domain, stored value to class; empty where the values are the label ids.
        notes: what is a guess, a line each.
    """

    names: Sequence[str]
    colours: Sequence[tuple[int, int, int]]
    maps: Mapping[str, Mapping[int, str]]
    notes: Sequence[str] = field(default_factory=list)


def guess_classes(stored: Mapping[str, Stored], names: Sequence[str] = ()) -> Classes:
    """The classes of both domains.

    One class per value. Where the values of the two domains differ, those of two classes are taken for each other by how many
    pixels they have, as the background mostly has more.

    Args:
        stored: by domain, ``source`` or ``target``; those that have masks.
        names: of the classes; by default they are numbered.

    Raises:
        ConfigError: another number of names than of values, or values of the two domains that only a person could bring
            together.
    """
    values = {domain: one.values for domain, one in stored.items()}
    notes: list[str] = []
    strays = [
        _said_of_stray(value, domain, stored[domain], path)
        for domain, found in _strays(stored).items()
        for value, path in found.items()
    ]
    first, *others = values
    if all(one.kind in ("ids", "red") for one in stored.values()):
        union = sorted({value for found in values.values() for value in found})
        order = dict.fromkeys(stored, union)
        if others and values[first] != values[others[0]]:
            alone = {d: sorted(set(values[d]) - set(values[o])) for d, o in ((first, others[0]), (others[0], first))}
            said = "; ".join(f"only the {d}'s masks hold {_listed(ids)}" for d, ids in alone.items() if ids)
            notes.append(
                f"the masks that were looked at differ: {said}; correct the maps below where an id means another class"
            )
        elif others and len(union) > 2:
            notes.append(
                "that an id means the same in source and target is taken for granted; if not, each needs a map"
            )
    elif len({len(found) for found in values.values()}) == 1:
        by_share = {d: sorted(found, key=lambda v: -stored[d].share(v)) for d, found in values.items()}
        base = by_share[first] if stored[first].kind == "colours" else values[first]
        order = {d: [found[by_share[first].index(value)] for value in base] for d, found in by_share.items()}
        if others and values[first] == values[others[0]] and stored[first].kind == stored[others[0]].kind:
            order = dict.fromkeys(stored, base)
        elif others:
            notes.append("which values of source and target belong together is guessed by their shares of the pixels")
    else:
        held = " and ".join(_held(domain, one) for domain, one in stored.items())
        raise ConfigError(
            f"the masks of source and target store different things: {held}; which belong together is not to be guessed: "
            "write a label space with a map for each of them (docs/masks.md), and name it as `label_space`"
            f"{_listed_strays(strays)}"
        )
    for domain, one in stored.items():
        if (
            one.kind in ("ids", "red")
            and 255 in one.pixels
            and one.values
            and one.values[-1] >= 2 * len(one.values) + 32
        ):
            notes.append(
                f"255 ({_share(one, 255)} of the {domain}'s pixels) is taken for what is ignored; if it is a class, "
                "give it a name and a line in the maps"
            )
    count = len(order[first])
    if count < 2:
        raise ConfigError(
            f"the masks of {' and '.join(values)} hold the one value {order[first]}: expected two classes or more; are these "
            "the right masks?"
        )
    if names and len(names) != count:
        raise ConfigError(
            f"{len(names)} names of classes ({', '.join(names)}), and the masks hold {count} values: {_listed(order[first])}; "
            f"give a name for each, in this order{_listed_strays(strays)}"
        )
    chosen = tuple(names) or (NAMES_OF_TWO if count == 2 else tuple(f"class_{i}" for i in range(count)))
    plain = all(one.kind in ("ids", "red") for one in stored.values()) and order[first] == list(range(count))
    plain &= len({tuple(found) for found in values.values()}) == 1
    plain &= not strays  # a map has a line in which to ignore them
    notes += [
        f"{stray}; correct the mask, or write ignore as its class in the maps below, and take its own class out"
        for stray in strays
    ]
    maps = {d: {} if plain else dict(zip(found, chosen, strict=True)) for d, found in order.items()}
    most = {_most(one, order[domain]) for domain, one in stored.items()}
    colours = list(class_colours(chosen, 0 if not names and most == {0} else None))
    if count == 2 and len(most) == 1 and is_background(chosen[1 - min(most)]) and not is_background(chosen[min(most)]):
        notes.append(
            f"the names '{chosen[0]}' and '{chosen[1]}' are of the values {_listed(order[first])} in this order, and most "
            f"pixels would be '{chosen[min(most)]}': exchange the names if that is not so"
        )
    coloured = next((d for d, one in stored.items() if one.kind == "colours"), None)
    if coloured is not None:  # black means ignored in pictures
        own = [(value >> 16, value >> 8 & 255, value & 255) for value in order[coloured]]
        colours = [colour if any(colour) else (70, 70, 70) for colour in own]
        if (0, 0, 0) in own:
            notes.append("black is taken for a class; if it means that nothing is known, write `ignore` in its place")
    return Classes(chosen, colours, maps, notes)


def _most(stored: Stored, values: Sequence[int]) -> int:
    """The position of the value that most pixels hold."""
    return max(range(len(values)), key=lambda position: stored.share(values[position]))


def fitting_map(space: LabelSpace, stored: Stored) -> str | None:
    """The first class map of a label space that defines all ids, or colours, of the masks; None where none does."""
    short = [BINARY] if space.num_classes == 2 and BINARY not in space.maps else []
    for name in (IDENTITY, *short, PALETTE, *space.maps):
        class_map = load_class_map(space, name)
        if (class_map.colours is not None) != (stored.kind == "colours"):
            continue
        labels = {value: class_map.label_of(value) for value in stored.pixels}
        ignored = stored.kind == "binary" and labels[255] == IGNORE_INDEX
        if not ignored and min(labels.values()) >= 0 and any(label < IGNORE_INDEX for label in labels.values()):
            return name
    return None


def similar_spaces(stored: Mapping[str, Stored]) -> list[str]:
    """Packaged label spaces with a class map whose ids or colours are those of the masks, and hardly any others."""
    found = []
    for name in config_names("label_spaces"):
        space = load_label_space(name)
        fits = []
        for one in stored.values():
            class_map = fitting_map(space, one)
            if class_map is None:
                break
            known = int((load_class_map(space, class_map).lut[:255] >= 0).sum())
            if class_map == IDENTITY:  # numbers from 0 on, which say nothing
                break
            fits.append(class_map if len(one.values) > 2 and len(one.values) >= 0.8 * min(known, 255) else None)
        else:
            if all(fits):
                found.append(f"{name} (class_map {', '.join(dict.fromkeys(map(str, fits)))})")
    return found[:SUGGESTED]


def classes_yaml(name: str, classes: Classes, stored: Mapping[str, Stored], other_names: str = "") -> str:
    """A label space, with a comment for what every line is and what is a guess.

    Args:
        name: of the label space.
        classes: what it holds.
        stored: what the masks of each domain store.
        other_names: how the command gives the classes other names, for the comment.
    """
    lines = [
        "# The classes, in the order of their label ids; the names stand in all tables and pictures.",
        f"# Rename a class everywhere in this file{other_names and f', or {other_names}'}.",
    ]
    lines += [f"# GUESSED: {note}" for note in classes.notes]
    if similar := similar_spaces(stored):
        lines.append(f"# Packaged label spaces with a map of these values: {'; '.join(similar)}.")
    lines += [f"name: {name}", "classes:"]
    width, mistaken = max(map(len, map(quoted, classes.names))), list[str]()
    for i, (class_name, colour) in enumerate(zip(classes.names, classes.colours, strict=True)):
        gap = " " * (width - len(quoted(class_name)))
        line = f"  {quoted(class_name)}: {gap}[{', '.join(map(str, colour))}]"
        values = {d: next((v for v, c in classes.maps[d].items() if c == class_name), i) for d in stored}
        said = ", ".join(f"{_share(one, values[domain])} of the {domain}'s pixels" for domain, one in stored.items())
        doubt = _doubt(stored, values)
        if doubt.startswith(MISTAKE):
            mistaken.append(class_name)
        lines.append(f"{line}  # {doubt}label id {i}: {said}")
    if any(classes.maps.values()):
        lines.append("maps:  # what the masks store: the class; `ignore` in the place of a class leaves it out")
        for domain, entries in classes.maps.items():
            one = stored[domain]
            lines.append(f"  {map_name(domain)}:  # the {domain}'s masks, by a sample of {one.masks}")
            for value, class_name in entries.items():
                doubt = ""
                if class_name in mistaken:
                    where = f", in {one.strays[value].name} alone" if value in one.strays else ""
                    doubt = f"{MISTAKE}{where}: write ignore; "
                share = f"{_share(one, value)} of the pixels"
                lines.append(f"    {_key(value, one)}: {quoted(class_name)}  # {doubt}{share}")
    return "\n".join(lines) + "\n"


def _doubt(stored: Mapping[str, Stored], values: Mapping[str, int]) -> str:
    """What makes one doubt that the values of source and target are a class, and the same one; empty: nothing does."""
    strays = _strays(stored)
    held = [domain for domain, value in values.items() if stored[domain].pixels.get(value)]
    if held and all(values[domain] in strays[domain] for domain in held):
        return f"{MISTAKE}: take this line out once the maps below ignore it; "
    shares = [one.share(values[domain]) for domain, one in stored.items()]
    least, most = min(shares), max(shares)
    return "GUESSED, is it one class? " if most >= SMALL and most > ODD * least else ""


def _strays(stored: Mapping[str, Stored]) -> dict[str, dict[int, Path]]:
    """By domain the values that are probably mistakes, and the mask of each: what the other domain holds, too, is none."""
    return {
        domain: {
            value: path
            for value, path in one.strays.items()
            if not any(other.pixels.get(value) and value not in other.strays for other in stored.values())
        }
        for domain, one in stored.items()
    }


def _said_of_stray(value: int, domain: str, stored: Stored, path: Path) -> str:
    return (
        f"{_written(value, stored)} is probably a mistake: of the {domain}'s {stored.masks} masks that were looked at {path} "
        f"alone holds it, in {stored.pixels[value]} pixels"
    )


def _listed_strays(said: Sequence[str]) -> str:
    return "".join(f"; {one}" for one in said[:2])


def _held(domain: str, stored: Stored) -> str:
    """``10 ids in the source's masks (0, 7, ...)``."""
    what = "colours" if stored.kind == "colours" else "ids"
    shown = [_written(value, stored) for value in stored.values[:6]]
    return (
        f"{len(stored.values)} {what} in the {domain}'s masks ({', '.join(shown)}{', ...' * (len(stored.values) > 6)})"
    )


def _share(stored: Stored, value: int) -> str:
    return share_of(stored.pixels.get(value, 0), stored.total)


def map_name(domain: str) -> str:
    """Of the class map of a domain's masks."""
    return f"{domain}_masks"


def quoted(text: str) -> str:
    """A text as YAML reads it back as a text."""
    if PLAIN.fullmatch(text) and text.lower() not in RESERVED:
        return text
    return "'" + text.replace("'", "''") + "'"


def _key(value: int, stored: Stored) -> str:
    return f'"{_written(value, stored)}"' if stored.kind == "colours" else str(value)


def _written(value: int, stored: Stored) -> str:
    return f"{value >> 16} {value >> 8 & 255} {value & 255}" if stored.kind == "colours" else str(value)


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:12])) + (f", ... ({len(values)})" if len(values) > 12 else "")
