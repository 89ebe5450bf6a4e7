"""The options of ``fit``, ``validate`` and ``test``: a parser for one method, and what it makes of files and flags."""

import argparse
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from jsonargparse import ArgumentParser, Namespace, set_dumper
from jsonargparse.typing import PositiveInt, register_type

from segzoo.cli.expand import Invocation
from segzoo.cli.explain_options import explain_options, explain_value
from segzoo.cli.null_values import forbidden_nulls
from segzoo.cli.sections import RESTORED, SECTIONS, SHARED, Layer
from segzoo.compat.parsers import actions, group_actions, groups, parse_part
from segzoo.configs import config_names, config_text
from segzoo.data import DomainDataModule
from segzoo.data.views import Views
from segzoo.errors import ConfigError
from segzoo.loggers.names import NAMES
from segzoo.methods.base import Method
from segzoo.methods.loss import Loss
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.speed import Speed
from segzoo.models.network import Network

# Set by the command itself: folder, loggers, sharding (by the DataModule). Checkpoints are always written.
OWN_TRAINER_OPTIONS = {
    "logger",
    "default_root_dir",
    "use_distributed_sampler",
    "enable_checkpointing",
    "barebones",
    "model_registry",
    # Nothing is predicted with a trainer, and loaders are made once, as there are no epochs.
    "limit_predict_batches",
    "reload_dataloaders_every_n_epochs",
}
register_type(torch.device)  # of a callback: written as its name
DATACLASSES: dict[str, type] = {"network": Network, "optimizer": Optimizer, "loss": Loss, "speed": Speed}
# Resolved before parsing (`segzoo.cli.expand`), so the parser does not know them.
EXPANDED = (
    "--method",
    "--data",
    "--protocol",
    *(["--recipe"] if config_names("recipe") else []),
    "--ckpt_path",
    "--config",
    "--debug",
    "--method.help",
)


class Parser(ArgumentParser):
    """Knows the options of one method, and reads layers of configuration before the flags."""

    def read(self, layers: Sequence[Layer], flags: Sequence[str] = ()) -> Namespace:
        """What layers and flags amount to, later ones win. It is validated once, at the end.

        Raises:
            argparse.ArgumentError: an option that does not exist, lacks or has a wrong value.
        """
        config: Namespace | None = None
        for layer in layers:
            # A layer need not be whole: what it lacks comes with a later one or with a flag.
            config = parse_part(self, layer.content, config)
        found: Namespace = self.parse_args(flags, config)
        return found

    def plain(self, config: Namespace) -> dict[str, Any]:
        """The configuration in plain types: sections as dictionaries."""
        set_dumper("plain", lambda content: content)
        content: Any = self.dump(config, format="plain", skip_unset=False)
        return dict(content)

    def resolved_help(self, config: Namespace, sections: Sequence[str] = ()) -> str:
        """All options with the values they would have now.

        Args:
            config: what the command line amounts to.
            sections: only these, e.g. ``method``.
        """
        for group in groups(self):
            shown = False
            for action in group_actions(group):
                other = sections and action.dest.partition(".")[0] not in sections
                if other or action.dest in (*SECTIONS, "method.name"):
                    action.help = argparse.SUPPRESS
                    continue
                shown = True
                action.required = False
                if action.dest in config:
                    action.default = config[action.dest]
            if not shown:
                group.title = group.description = None
        self.usage = f"{self.prog} [OPTIONS]"
        self.description = (
            f"The defaults shown are for --data {config.data.name}; other data may have others. {self.description}"
        )
        return str(self.format_help())

    def option_names(self) -> list[str]:
        """All options as they are typed."""
        return [name for action in actions(self) for name in action.option_strings if name.startswith("--")]


@dataclass(frozen=True)
class Options:
    """What a command line amounts to.

    Attributes:
        parser: what read it.
        parsed: as the parser has it.
        config: the same in plain types; it can be fed back with ``--config``.
        before: the configuration of the run that goes on; None when none does.
    """

    parser: Parser
    parsed: Namespace
    config: dict[str, Any]
    before: dict[str, Any] | None


def read_options(command: str, method: type[Method], invocation: Invocation) -> Options:
    """Parses an expanded command line. Where help or the configuration is asked for, it is printed, and the program ends.

    Raises:
        ConfigError: an unknown option, or a value of the wrong type.
    """
    parser = create_parser(command, invocation.method, method)
    # The help of a class (--data.source.help NAME) reads all that follows it: it comes last.
    flags = sorted(invocation.flags, key=lambda flag: flag.partition("=")[0].endswith(".help"))
    layers = invocation.layers
    try:
        parsed = parser.read(layers, flags)
    except argparse.ArgumentError as error:
        options = [*parser.option_names(), *EXPANDED, *([] if command == "fit" else ["--out"])]
        raise ConfigError(explain_options(str(error), options, layers, flags)) from error
    for key, expected in forbidden_nulls(parser, parsed):
        raise ConfigError(explain_value(key, expected, "null", layers, flags))
    config = parser.plain(parsed)
    if "--print_config" in invocation.switches:
        print(config_text(config), end="")
        raise SystemExit(0)
    if invocation.switches & {"--help", "--method.help"}:
        print(parser.resolved_help(parsed, () if "--help" in invocation.switches else ("method", *SHARED)), end="")
        raise SystemExit(0)
    before = parser.plain(parser.read(invocation.before)) if invocation.before else None
    return Options(parser, parsed, config, before)


def create_parser(command: str, slug: str, method: type[Method]) -> Parser:
    """The parser of all that one method, its data, its trainer and the command itself can be told.

    Args:
        command: ``fit``, ``validate`` or ``test``.
        slug: the method's name.
        method: its class.
    """
    parser = Parser(
        prog=f"segzoo {command} --method {slug}",
        description=f"See `segzoo {command} --help` for --data NAME, --config FILE and examples.",
        exit_on_error=False,
        allow_abbrev=False,  # a typo must not count as an abbreviation
    )
    given = {name for name in ("label_space", *SHARED, *RESTORED) if name in set(parameters(method))}
    parser.add_argument("--method.name", type=str, default=slug, help="what to train: `segzoo methods`")
    parser.add_class_arguments(method, "method", skip=given, instantiate=False, fail_untyped=False, sub_configs=True)
    for section, dataclass_ in DATACLASSES.items():
        if section in given:
            parser.add_class_arguments(dataclass_, section)
    parser.add_class_arguments(
        DomainDataModule, "data", skip={"seed", "protocol"}, instantiate=False, fail_untyped=False, sub_configs=True
    )
    parser.add_class_arguments(Views, "protocol")
    parser.add_class_arguments(
        L.Trainer, "trainer", skip=set(OWN_TRAINER_OPTIONS), instantiate=False, fail_untyped=False, sub_configs=True
    )
    parser.add_argument("--seed_everything", type=int, default=0, help="seed of weights, order and augmentation")
    parser.add_argument("--runs", type=str, default="runs", help="folder of all runs")
    parser.add_argument(
        "--name", type=str, default="default", help="RUNS/<method>/<data>/NAME-s<seed> is the run folder"
    )
    parser.add_argument("--logger", type=str, default="csv", help=f"any of {','.join(NAMES)}; csv is always on")
    parser.add_argument(
        "--checkpoint_steps",
        type=PositiveInt,
        default=200,
        help="steps between two checkpoints; the last step has one",
    )
    parser.add_argument(
        "--keep_steps",
        type=PositiveInt | None,
        default=None,
        help="steps between two checkpoints that stay (`segzoo folds`); null: only the last one",
    )
    parser.add_argument(
        "--panel_steps",
        type=PositiveInt | None,
        default=None,
        help="steps between two pictures; null: at steps 10, 20, 50, 100, 200, 500, ..., however the training ends",
    )
    parser.add_argument(
        "--upload_checkpoint",
        type=bool,
        default=False,
        help="send the last checkpoint to wandb when the training has ended",
    )
    return parser


def parameters(cls: type) -> Iterator[str]:
    """The names that a constructor takes, with those that it hands on to its bases."""
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        found = inspect.signature(vars(base)["__init__"]).parameters.values()
        yield from (one.name for one in found if one.kind is one.KEYWORD_ONLY or one.kind is one.POSITIONAL_OR_KEYWORD)
        if not any(one.kind is one.VAR_KEYWORD for one in found):
            return
