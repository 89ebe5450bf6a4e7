"""From what a user types to what the parser reads: layers of configuration, then flags. Free of torch.

``--method NAME`` stands for the packaged YAML of the method, ``--data NAME`` and ``--recipe NAME`` likewise,
and ``--method.x`` for the parser's ``--model.x`` (LightningCLI ties hyper-parameters to the key ``model``).
Later layers win: packaged defaults, data, method, a data file of the user's own, recipe, what a checkpoint carries, the
user's files, flags. A training that goes on takes the recipe after its checkpoint: what it changes has to be seen.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segzoo.checkpoint_path import checkpoint_file
from segzoo.cli.early import check_options
from segzoo.cli.label_paths import absolute, anchor
from segzoo.cli.label_paths import check as check_label_spaces
from segzoo.cli.logger_names import parse_names
from segzoo.cli.rundir import newest_checkpoint
from segzoo.cli.sections import carried_config, check_sections
from segzoo.configs import config_path, config_root
from segzoo.errors import CheckpointError, ConfigError
from segzoo.methods.registry import DEFAULT_DATA, method_defaults, methods
from segzoo.suggest import did_you_mean
from segzoo.yaml_files import read_yaml

# Of a method's options, what a checkpoint holds beside its weights; null in a run's config.yaml.
FILLED_IN = "generator_description"
# Options that take no value: what follows them is not theirs.
SWITCHES = ("-h", "--help", "--print_config", "--method.help")
# What makes a pair of data sets that pair. `--data NAME` replaces these, and these only.
DATA_IDENTITY = ("source", "target", "name", "root")
# Where a run was computed does not bind where its checkpoint is scored.
HARDWARE = (
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "plugins",
    "sync_batchnorm",
    "callbacks",
    "profiler",
)


@dataclass(frozen=True)
class Layer:
    """One YAML file, or the configuration inside a checkpoint.

    Attributes:
        origin: what error messages call it.
        content: sections ``model``, ``data``, ``trainer`` and top-level options.
    """

    origin: str
    content: dict[str, Any]


@dataclass
class Invocation:
    """What the parser gets.

    Attributes:
        method: slug.
        layers: files, later ones win.
        flags: ``--key=value``, which win over all layers.
        checkpoint: what to resume from or to score.
        out: where scores go.
        switches: which of `SWITCHES` were given.
        before: the layers of the run that goes on, as its checkpoint carries them; empty when none does.
        in_place: whether that run goes on in its own folder.
        overruled: a data file of the user's own, whose other options a checkpoint overrules.
    """

    method: str
    layers: list[Layer]
    flags: list[str]
    checkpoint: Path | None = None
    out: Path | None = None
    switches: set[str] = field(default_factory=set)
    before: list[Layer] = field(default_factory=list)
    in_place: bool = False
    overruled: list[Layer] = field(default_factory=list)

    def value(self, *keys: str) -> tuple[str | None, str]:
        """What an option will be as text, None when nobody says it, and the file that says it, e.g. `` (in own.yaml)``."""
        key = ".".join(keys)
        for flag in reversed(self.flags):
            if flag.startswith(f"--{key}="):
                return flag.partition("=")[2], ""
        for layer in reversed(self.layers):
            if (found := _last([layer], *keys)) is not None:
                return str(found), f" (in {layer.origin})"
        return None, ""


ReadCheckpoint = Callable[[Path], dict[str, Any]]
"""Reads ``{"method": slug, "config": yaml text}`` from a checkpoint; see `segzoo.cli.checkpoint`."""


def split_arguments(argv: Sequence[str]) -> list[tuple[str, str | None]]:
    """Pairs of option and value. Several bare values after one option are a list: ``--data.size 192 256``.

    Raises:
        ConfigError: a value that belongs to no option.
    """
    pairs: list[tuple[str, str | None]] = []
    rest = list(argv)
    while rest:
        option = rest.pop(0)
        if not _is_option(option):
            raise ConfigError(f"unexpected argument '{option}'; options start with '--'")
        option, equals, value = option.partition("=")
        option = {"-c": "--config", "-h": "--help"}.get(option, option)
        if equals or option in SWITCHES:
            pairs.append((option, value if equals else None))
            continue
        values = []
        while rest and not _is_option(rest[0]):
            values.append(rest.pop(0))
        if len(values) > 1:
            pairs.append((option, f"[{', '.join(values)}]"))
        else:
            pairs.append((option, values[0] if values else None))
    return pairs


def expand(command: str, argv: Sequence[str], read_checkpoint: ReadCheckpoint) -> Invocation | None:
    """Resolves names, files and the checkpoint. None when help is wanted and no method is named.

    Raises:
        ConfigError: no or an unknown method, an unknown data set or recipe, a file that is no YAML mapping.
        CheckpointError: the checkpoint is missing, or of another method than the one asked for.
    """
    pairs = split_arguments(argv)
    switches = {option for option, _ in pairs if option in SWITCHES}
    pairs = [(option, value) for option, value in pairs if option not in SWITCHES]
    flags, files = _take_all(pairs, "--config")
    own_options = ["--method", "--data", "--recipe", "--ckpt_path", *(["--out"] if command != "fit" else [])]
    flags, named = _take(flags, own_options)
    user = [_read_file(Path(path)) for path in files]
    recipe = [_read_file(config_path("recipe", named["--recipe"]))] if "--recipe" in named else []
    method = named.get("--method") or _last([*recipe, *user], "method")

    # Whatever comes next may take seconds, or blame something else: a mistyped --method is no missing one.
    check_options(flags, [*recipe, *user], method if method in methods() else None, command)
    carried: list[Layer] = []
    checkpoint, in_place, from_python = None, False, False
    if "--ckpt_path" in named and named["--ckpt_path"] != "null":
        checkpoint = Path(named["--ckpt_path"])
        if named["--ckpt_path"] == "last":
            checkpoint = _last_checkpoint(command, method, named.get("--data"), flags, [*recipe, *user])
        checkpoint = checkpoint_file(checkpoint)
        if not checkpoint.is_file():
            raise CheckpointError(f"no checkpoint at {checkpoint}")
        content = read_checkpoint(checkpoint)
        if method and method != content["method"]:
            raise CheckpointError(
                f"{checkpoint} is a checkpoint of the method '{content['method']}', not of '{method}'; "
                "leave out --method"
            )
        method = content["method"]
        # A checkpoint that lies elsewhere than in its run's folder begins a new one.
        in_place = command == "fit" and checkpoint.resolve().parent.name == "checkpoints"
        if in_place and named["--ckpt_path"] != "last":
            _check_resumed(checkpoint, [option for option, _ in flags])
        from_python = content.get("config") is None
        carried = [Layer(str(checkpoint), _carried(command, carried_config(content, checkpoint)))]
    elif command != "fit" and not switches:
        raise ConfigError(f"`segzoo {command}` needs a trained model: --ckpt_path runs/.../checkpoints/last.ckpt")
    if not method and "--help" in switches:
        return None
    if not method:
        known = ", ".join(methods())
        raise ConfigError(f"no method given; add --method NAME, one of: {known} (`segzoo methods` describes them)")
    if method not in methods():
        raise ConfigError(f"unknown method '{method}'{did_you_mean(method, methods())}")

    own = [*carried, *recipe, *user] if command == "fit" else [*recipe, *carried, *user]
    before = [layer for layer in carried if command == "fit" and layer.content]
    for layer in [*recipe, *user] if before else []:
        if (layer.content.get("model") or {}).get(FILLED_IN, "") is None:
            del layer.content["model"][FILLED_IN]
    if "--data" in named:
        data = [_data_layer(named["--data"])]
        own = [Layer(layer.origin, _without_identity(layer.content)) for layer in own]
    elif any(_names_data(layer.content) for layer in own):
        data = []
    elif from_python:
        raise CheckpointError(
            f"{checkpoint} does not say which data it was trained on (it was written from Python, not by `segzoo fit`): add "
            "--data NAME or --data FILE"
        )
    else:
        data = [_data_layer(methods()[method].default_data)]
    base = _read_file(config_root() / "base.yaml")
    defaults = [*data, Layer(f"the defaults of '{method}'", method_defaults(method))]
    if data and Path(data[0].origin).parent != config_root() / "data":  # what a user wrote beats what is packaged
        defaults.reverse()
    _forget_other_networks(defaults, own, dict(flags).get("--method.architecture"))
    layers = [base, *defaults, *own]
    for layer in [*layers, *before]:
        layer.content.pop("method", None)
    check_options(flags, layers, method, command)
    check_label_spaces(layers, flags)
    _check_early(dict(flags))
    out = Path(named["--out"]) if "--out" in named else None
    overruled: list[Layer] = []
    if before:
        before = [base, *defaults, *before]
        if "data" not in before[-1].content:  # of a training from Python
            named_data = [layer for layer in [*recipe, *user] if "data" in layer.content]
            before += [Layer(layer.origin, {"data": layer.content["data"]}) for layer in named_data]
        overruled = [layer for layer in data if Path(layer.origin).parent != config_root() / "data"]
    parser_flags = [_parser_flag(*pair) for pair in flags]
    return Invocation(method, layers, parser_flags, checkpoint, out, switches, before, in_place, overruled)


def _check_resumed(checkpoint: Path, options: list[str]) -> None:
    for option in options:
        if option in ("--name", "--runs", "--seed_everything"):
            raise ConfigError(
                f"{option}: the run of {checkpoint} goes on in its own folder and with its own seed; leave the option out, or "
                "begin a new run at its weights with --method.initial_checkpoint"
            )


def _forget_other_networks(defaults: list[Layer], own: list[Layer], architecture: str | None) -> None:
    """Drops the options that defaults have for another network than the one that is chosen: they are none of its."""
    known, current = [], "unet"
    for layer in defaults:
        current = (layer.content.get("model") or {}).get("architecture", current)
        known.append(current)
    chosen = architecture or _last([*defaults, *own], "model", "architecture") or current
    for layer, meant in zip(defaults, known, strict=True):
        if meant != chosen:
            (layer.content.get("model") or {}).pop("segmenter_options", None)


def _is_option(argument: str) -> bool:
    return argument.startswith("-") and not re.match(r"-[\d.]", argument) and argument != "-"


def _take(
    pairs: list[tuple[str, str | None]], options: list[str]
) -> tuple[list[tuple[str, str | None]], dict[str, str]]:
    taken: dict[str, str] = {}
    for option, value in pairs:
        if option in options:
            if not value:
                raise ConfigError(f"option '{option}' needs a value")
            if value.startswith("["):
                extra = value.strip("[]").split(", ")[1]
                raise ConfigError(f"unexpected argument '{extra}'; option '{option}' takes one value")
            taken[option] = value
    return [pair for pair in pairs if pair[0] not in options], taken


def _take_all(pairs: list[tuple[str, str | None]], option: str) -> tuple[list[tuple[str, str | None]], list[str]]:
    if any(name == option and not value for name, value in pairs):
        raise ConfigError(f"option '{option}' needs a value")
    return [pair for pair in pairs if pair[0] != option], [value for name, value in pairs if name == option and value]


def _read_file(path: Path) -> Layer:
    content = read_yaml(path)
    content = check_sections({} if content is None else content, str(path))
    anchor(content, path.parent)
    return Layer(str(path), content)


def _data_layer(name: str) -> Layer:
    return _read_file(config_path("data", name))


def _last(layers: list[Layer], *keys: str) -> Any:
    """The value that the last layer which has it gives to a key."""
    for layer in reversed(layers):
        value: Any = layer.content
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


def _last_checkpoint(
    command: str,
    method: str | None,
    data: str | None,
    flags: list[tuple[str, str | None]],
    layers: list[Layer],
) -> Path:
    if not method:
        raise ConfigError(f"`segzoo {command} --ckpt_path last` looks below runs/<method>/: add --method NAME")
    given = dict(flags)
    default = methods()[method].default_data if method in methods() else DEFAULT_DATA
    if data or _last(layers, "data", "name") is None:
        layers = [*layers, _data_layer(data or default)]
    name = given.get("--name") or _last(layers, "name") or "default"
    seed = given.get("--seed_everything") or _last(layers, "seed_everything") or 0
    data_name = given.get("--data.name") or _last(layers, "data", "name") or default
    runs = given.get("--runs") or _last(layers, "runs") or "runs"
    if not str(seed).isdigit():
        raise ConfigError(f"--seed_everything {seed}: expected a number")
    return newest_checkpoint(Path(runs) / method / data_name, name, int(seed))


def _check_early(flags: dict[str, str | None]) -> None:
    """What needs no parser, whose imports take seconds."""
    parse_names(flags.get("--logger") or "csv")
    root = Path(flags.get("--data.root") or ".")
    try:
        root = root.expanduser()
    except RuntimeError as error:  # of a user that does not exist
        raise ConfigError(f"--data.root {root}: there is no such user; write the path out") from error
    if not root.is_dir():
        raise ConfigError(f"--data.root {root} is not a folder; expected the one that the data's paths start from")


def _carried(command: str, content: dict[str, Any]) -> dict[str, Any]:
    if command != "fit":
        trainer = content.get("trainer") or {}
        content = {key: value for key, value in content.items() if key != "logger"}
        content["trainer"] = {key: value for key, value in trainer.items() if key not in HARDWARE}
    return content


def _names_data(content: dict[str, Any]) -> bool:
    """Whether a file says which data it wants, and not only some option of them."""
    source = (content.get("data") or {}).get("source")
    return isinstance(source, str) or (isinstance(source, dict) and "class_path" in source)


def _without_identity(content: dict[str, Any]) -> dict[str, Any]:
    if not _names_data(content):
        return content
    kept = {key: value for key, value in content["data"].items() if key not in DATA_IDENTITY}
    return {**content, "data": kept}


def _parser_flag(option: str, value: str | None) -> str:
    if option.startswith("--method."):
        option = "--model." + option.removeprefix("--method.")
    if option.endswith(".label_space"):
        value = absolute(value)
    return option if value is None else f"{option}={value}"
