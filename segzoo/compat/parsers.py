"""What argparse and jsonargparse know of a parser's options and do not tell. Neither is imported."""

import argparse
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any


def options(parser: argparse.ArgumentParser) -> Mapping[str, argparse.Action]:
    """Every option string of a parser, such as ``--name``, and what it does."""
    return parser._option_string_actions


def actions(parser: argparse.ArgumentParser) -> Sequence[argparse.Action]:
    """What a parser reads, in the order of its definition."""
    return parser._actions


def groups(parser: argparse.ArgumentParser) -> Sequence[Any]:
    """The groups that a parser's help shows, whose titles can be changed."""
    return parser._action_groups


def group_actions(group: Any) -> Sequence[argparse.Action]:
    """What one of the `groups` holds."""
    return group._group_actions


def parse_part(parser: Any, content: Mapping[str, Any], config: Any) -> Any:
    """What jsonargparse makes of a part of a configuration, on top of what came before; it need not be whole.

    Args:
        parser: one of jsonargparse.
        content: sections and options.
        config: what earlier parts amount to; None at the beginning.
    """
    # A copy: classes in a list are changed in place.
    return parser.parse_object(deepcopy(content), config, _skip_validation=True)


def type_hint(action: argparse.Action) -> Any:
    """The type that jsonargparse parses an option as, else argparse's; None where there is neither."""
    return getattr(action, "_typehint", None) or action.type
