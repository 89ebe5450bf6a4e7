"""The parser of the commands that train nothing themselves."""

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from segzoo.compat.parsers import options
from segzoo.errors import ConfigError
from segzoo.suggest import nearest_option


class Parser(argparse.ArgumentParser):
    """Names the nearest option, and raises instead of exiting.

    Args:
        command: as it is typed, e.g. ``segzoo predict``.
        description: what it does; line breaks stay.
        examples: shown below the options.
    """

    def __init__(self, command: str, description: str, examples: str) -> None:
        super().__init__(
            command,
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # a typo must not count as an abbreviation
        )

    def error(self, message: str) -> NoReturn:
        """Raises what `main` prints in one line."""
        raise ConfigError(message.replace("argument --", "--", 1))

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parses, and refuses what it does not know (before it misses anything: a typo explains that)."""
        known = options(self)
        for argument in argv:
            name = argument.partition("=")[0]
            if re.match(r"--?[A-Za-z]", name) and name not in known:
                near = nearest_option(name, known)
                listed = ", ".join(option for option in known if option.startswith("--"))
                hint = f"; did you mean '{near}'?" if near else f"; known: {listed}"
                raise ConfigError(f"unknown option '{name}'{hint}")
        return self.parse_args(argv)
