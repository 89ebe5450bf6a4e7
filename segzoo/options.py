"""Options that were given in Python: names that exist, values of the right kind. The command checks its own before this."""

import dataclasses
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, cast

from segzoo.errors import ConfigError
from segzoo.suggest import did_you_mean

Options = TypeVar("Options")
SIMPLE = {int: "a whole number", float: "a number", bool: "True or False", str: "text", type(None): "None"}


def check_values(function: Any, values: Mapping[str, Any], section: str) -> None:
    """Refuses values that the annotations of a function do not allow, as far as they are simple: numbers, text, choices.

    Args:
        function: whose parameters they are, a constructor most often.
        values: by name.
        section: what messages call the place of the options, e.g. ``method``.

    Raises:
        ConfigError: the first wrong one; the message has the choices.
    """
    hints = typing.get_type_hints(function)
    for name, value in values.items():
        if name in hints and not _allows(hints[name], value):
            raise ConfigError(f"`{section}.{name}` {value!r}: expected {_expected(hints[name], value)}")


def resolve(cls: type[Options], value: Options | Mapping[str, Any] | None, section: str) -> Options:
    """Options of a dataclass that were given as such, as a mapping, or not at all.

    Args:
        cls: the dataclass.
        value: what was given.
        section: what messages call it, e.g. ``network``.

    Raises:
        ConfigError: something else, or a name or value that the dataclass does not have.
    """
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping | None):
        raise ConfigError(f"`{section}` {value!r}: expected {cls.__name__}(...) or a dictionary of its options")
    given, known = dict(value or {}), {field.name for field in dataclasses.fields(cast(Any, cls))}
    for name in given:
        if name not in known:
            raise ConfigError(f"`{section}.{name}`: there is no such option{did_you_mean(str(name), known)}")
    return cls(**given)


def _allows(hint: Any, value: Any) -> bool:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in parts)
    if origin in (typing.Union, types.UnionType):
        return any(_allows(part, value) for part in parts)
    if origin in (tuple, list) and parts:
        if isinstance(value, str) or not isinstance(value, Sequence):
            return False
        return all(_allows(parts[0], one) for one in value) if Ellipsis in parts or origin is list else True
    if hint is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return hint not in SIMPLE or isinstance(value, hint)


def _expected(hint: Any, value: Any) -> str:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        near = did_you_mean(value, map(str, parts)) if isinstance(value, str) else ""
        return f"one of {', '.join(map(str, parts))}" + (near if near.startswith("; did") else "")
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_expected(part, value) for part in parts)
    if origin in (tuple, list):
        return f"a list of {_expected(parts[0], None).removeprefix('a ')}"
    return SIMPLE.get(hint, getattr(hint, "__name__", str(hint)))
