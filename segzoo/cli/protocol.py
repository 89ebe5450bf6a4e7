"""The options ``--protocol`` of commands that do not read a whole configuration."""

import argparse
from dataclasses import fields
from typing import Any

from segzoo.cli.option_index import protocol_texts
from segzoo.errors import ConfigError
from segzoo.yaml_files import parse_yaml


def add_protocol(parser: argparse.ArgumentParser, names: list[str]) -> None:
    """Adds the options to a parser.

    Args:
        parser: the command's.
        names: of the packaged protocols.
    """
    group = parser.add_argument_group("protocol (default: that of the training's test)")
    group.add_argument("--protocol", metavar="NAME", help=f"a published one, or your own YAML: {', '.join(names)}")
    for name, text in protocol_texts().items():
        group.add_argument(f"--protocol.{name}", nargs="+", metavar="V", help=text)


def read_protocol(args: argparse.Namespace, trained: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, upon those of the training or of the named protocol.

    Args:
        args: what the parser made of the command line.
        trained: the options of the checkpoint's run; {} where it has none.

    Raises:
        ConfigError: there is no such protocol, or a value is no YAML.
    """
    from segzoo.data.views import Views, published_views

    found = dict(trained) if args.protocol is None else dict(published_views(args.protocol))
    for field in fields(Views):
        if (words := getattr(args, f"protocol.{field.name}")) is not None:
            option = f"--protocol.{field.name}"
            values = [_value(word, option) for word in words]
            many = field.name in ("window", "scales")
            if len(values) > 1 and not many:
                raise ConfigError(f"{option} takes one value, found {' '.join(words)}")
            one = values[0] if not many or values[0] is None or isinstance(values[0], list) else values
            found[field.name] = one
    return found


def _value(word: str, option: str) -> Any:
    return parse_yaml(word, option)
