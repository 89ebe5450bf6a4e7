"""``null`` for an option that takes none: jsonargparse lets it pass, and the run would end in a traceback."""

import importlib
import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from segzoo.cli.several_sources import DOMAINS
from segzoo.compat.parsers import actions, type_hint


def forbidden_nulls(parser: ArgumentParser, config: Namespace) -> Iterator[tuple[str, list[str]]]:
    """The options that are null and must not be.

    Args:
        parser: that of the command.
        config: what it read.

    Yields:
        the parser's key, e.g. ``data.source.domain``, and what it takes.
    """
    for action in actions(parser):
        hint = type_hint(action)
        if hint is None or action.dest not in config:
            continue
        value = config[action.dest]
        if value is None and not _takes_null(hint):
            yield action.dest, _names(hint)
        elif isinstance(value, Namespace) and "class_path" in value:
            yield from _of_class(action.dest, value)


def _of_class(key: str, value: Namespace) -> Iterator[tuple[str, list[str]]]:
    module, _, name = value.class_path.rpartition(".")
    init = getattr(importlib.import_module(module), name).__init__
    try:
        hints = typing.get_type_hints(init)
    except (NameError, TypeError):  # of a user's own class: its annotations are its business
        return
    given = value.get("init_args") or {}
    for option, listed in vars(given).items() if given else ():
        for number, one in enumerate(listed) if isinstance(listed, list) else ():
            if isinstance(one, Namespace) and "class_path" in one:
                yield from _of_class(
                    f"{key}[{number}]" if option == DOMAINS else f"{key}.init_args.{option}[{number}]", one
                )
    for option, parameter in inspect.signature(init).parameters.items():
        null = option in given and given[option] is None and parameter.default is not None
        if null and not _takes_null(hints.get(option, Any)):
            yield f"{key}.{option}" if "[" in key else f"{key}.init_args.{option}", _names(hints[option])


def _names(hint: Any) -> list[str]:
    if typing.get_origin(hint) is typing.Literal:
        return [str(choice) for choice in typing.get_args(hint)]
    if _is_union(hint):
        return [name for one in typing.get_args(hint) for name in _names(one)]
    return [str(typing.get_origin(hint) or hint)]


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _takes_null(hint: Any) -> bool:
    if hint in (Any, None, type(None), object) or isinstance(hint, str | typing.TypeVar):
        return True
    if typing.get_origin(hint) is typing.Literal:
        return None in typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        return _takes_null(typing.get_args(hint)[0])
    return _is_union(hint) and any(_takes_null(one) for one in typing.get_args(hint))
