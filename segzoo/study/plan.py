"""What is compared: rows, seeds, and which row waits for which. Free of torch."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from segzoo.errors import ConfigError
from segzoo.methods.registry import RESOURCES, methods
from segzoo.suggest import did_you_mean

CHECKPOINT = re.compile(r"\{([\w-]+)\}")
"""A row's name in the options of another."""


@dataclass(frozen=True)
class Variant:
    """A method with options of its own, under a name of its own."""

    method: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: as the table has it.
        method: the slug of its method.
        options: its own words of `segzoo fit`; ``{ROW}`` stands for the last checkpoint of that row.
        weight_of: the row whose mean weight it takes as its constant source weight.
        starts: the rows whose checkpoints its options name.
    """

    name: str
    method: str
    options: tuple[str, ...] = ()
    weight_of: "Row | None" = None
    starts: tuple["Row", ...] = ()

    @property
    def resources(self) -> tuple[str, ...]:
        """What its method learns from, and what the rows that it starts from learned from."""
        found = set(methods()[self.method].resources).union(*(row.resources for row in self.starts))
        return tuple(name for name in RESOURCES if name in found)

    @property
    def names(self) -> set[str]:
        """The names of the methods and variants that this row and those that it waits for are made of."""
        needed = self.starts + ((self.weight_of,) if self.weight_of else ())
        return {self.name.partition("@")[0]}.union(*(row.names for row in needed))

    @property
    def wave(self) -> int:
        """How many rows, one behind the other, must be complete before this one."""
        needed = self.starts + ((self.weight_of,) if self.weight_of else ())
        return 1 + max((row.wave for row in needed), default=-1)

    def options_from(self, checkpoints: Mapping[str, str]) -> list[str]:
        """The options with the checkpoints of the rows that they name."""
        return [CHECKPOINT.sub(lambda match: checkpoints[match[1]], option) for option in self.options]


@dataclass(frozen=True)
class Plan:
    """A whole comparison.

    Attributes:
        rows: the lines of the table, in its order.
        seeds: of the runs of every row.
        reference: name of the row that the others are compared with.
        common: words of `segzoo fit` that all runs share.

    Raises:
        ConfigError: a row or a seed that is there twice, or a reference that is no row.
    """

    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    reference: str
    common: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, found in (("rows", self.names), ("seeds", self.seeds)):
            if len(set(found)) < len(found):
                raise ConfigError(f"{what} {','.join(map(str, found))}: each one once")
        if self.reference not in self.names:
            raise ConfigError(f"reference {self.reference} is not a row{did_you_mean(self.reference, self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the rows."""
        return tuple(row.name for row in self.rows)

    @property
    def waves(self) -> list[list[tuple[Row, int]]]:
        """Rows and seeds; what is in one list may run at a time, after all that is in those before it."""
        ordered = groupby(sorted(self.rows, key=lambda row: row.wave), lambda row: row.wave)
        return [[(row, seed) for seed in self.seeds for row in wave] for wave in (list(rows) for _, rows in ordered)]


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds of numbers and ranges such as ``0-4`` or ``0,1,7``.

    Raises:
        ConfigError: it is neither, or a range that runs backwards.
    """
    try:
        ends = [part.split("-") for part in text.split(",")]
        seeds = [range(int(end[0]), int(end[-1]) + 1) for end in ends]
        if not all(seeds):
            raise ValueError("a range that runs backwards is empty")
    except ValueError:
        raise ConfigError(f"seeds {text}: expected numbers and ranges such as 0-4 or 0,1,7") from None
    return tuple(seed for some in seeds for seed in some)


def parse_variants(texts: Sequence[str]) -> dict[str, Variant]:
    """The variants by name, each of a text ``NAME: METHOD OPTIONS``.

    Raises:
        ConfigError: another form, a name that is a method's, or an unknown method.
    """
    found = {}
    for text in texts:
        name, colon, rest = text.partition(":")
        try:
            method, *options = shlex.split(rest) or [""]
        except ValueError as error:  # a quotation mark without its partner
            raise ConfigError(f"variant {text!r}: {str(error).lower()}; close it, or escape it as \\'") from error
        if not colon or not name.strip() or set(name) & set("/@,") or name in methods():
            raise ConfigError(f"variant {text!r}: expected 'NAME: METHOD OPTIONS', with a name that is no method's")
        if method not in methods():
            raise ConfigError(f"variant {text!r}: unknown method '{method}'{did_you_mean(method, methods())}")
        found[name.strip()] = Variant(method, tuple(options))
    return found


def parse_row(text: str, variants: Mapping[str, Variant], within: tuple[str, ...] = ()) -> Row:
    """The row of a method, a variant, or ``ROW@OTHER``, with the rows that it takes something from.

    Args:
        text: its name.
        variants: by name.
        within: names of the rows that take something from it.

    Raises:
        ConfigError: an unknown name, or a row that starts from itself.
    """
    own, _, other = text.partition("@")
    known = {**{slug: Variant(slug) for slug in methods()}, **variants}
    if own not in known:
        raise ConfigError(f"unknown method '{own}'{did_you_mean(own, known)}")
    if text in within:
        raise ConfigError(f"row '{text}' would start from itself: {' from '.join((*within, text))}")
    variant = known[own]
    starts = dict.fromkeys(name for option in variant.options for name in CHECKPOINT.findall(option))
    needed = [parse_row(name, variants, (*within, text)) for name in (other, *starts) if name]
    return Row(text, variant.method, variant.options, needed.pop(0) if other else None, tuple(needed))
