"""How the commands on data are told which data: as `segzoo fit` is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segzoo.cli.errors import translate
from segzoo.cli.expand import Invocation, expand
from segzoo.cli.parser import Parser
from segzoo.cli.train import read
from segzoo.errors import ConfigError

if TYPE_CHECKING:
    from segzoo.data import DomainDataModule

METHOD = "source-only"
"""Whose options are read beside those of the data. What data files say for single methods is about trainings."""


def add_data(parser: Parser) -> None:
    """Adds the argument that says which data."""
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        help="comes first: a packaged data set, two public sets by name (gta5_to_cityscapes) or your own YAML, as in "
        "`segzoo fit --data`; --data.OPTION V changes an option of it, as there",
    )


def split_data_options(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command's own arguments, and the options of the data with their values."""
    own: list[str] = []
    options: list[str] = []
    into = own
    for argument in argv:
        if argument.startswith("-"):
            into = options if argument.startswith("--data.") else own
        into.append(argument)
    return own, options


def read_invocation(name: str | None, options: Sequence[str]) -> Invocation:
    """What a training on these data would be told.

    Args:
        name: as for ``--data``; None where options name both domains.
        options: ``--data.OPTION`` and values.

    Raises:
        ConfigError: no such data, or an option that is none.
    """
    if name is None and not any(option.partition("=")[0] in ("--data.source", "--data.target") for option in options):
        raise ConfigError(
            "the following arguments are required: DATA, the name of a packaged data set or a YAML of your own, which comes "
            "before all options; or --data.source NAME and --data.target NAME"
        )
    if name is not None and (name.startswith("-") or not name):
        raise ConfigError(f"DATA is '{name}': expected the name of a packaged data set, or a YAML of your own")
    data = [] if name is None else ["--data", name]
    found = expand("fit", ["--method", METHOD, *data, *options], read)
    assert found is not None
    return found


def build_data(invocation: Invocation, command: str = "fit") -> "DomainDataModule":
    """The data module of an invocation.

    Args:
        invocation: of `segzoo fit`, or of the command.
        command: whose options were read.

    Raises:
        ConfigError: an option that cannot be.
    """
    from segzoo.cli.options import read_options
    from segzoo.data import DomainDataModule
    from segzoo.methods.registry import load_method
    from segzoo.runtime.quiet import be_quiet

    be_quiet(translate)
    options = read_options(command, load_method(invocation.method), invocation)
    objects = options.parser.instantiate(options.parsed)
    return DomainDataModule(**objects.data.as_dict())
