"""From what a user types to what the parser reads: layers of configuration, then flags. Free of torch.

``--method NAME`` stands for the packaged YAML of the method; ``--data``, ``--recipe`` and ``--protocol`` likewise, and
``--data.source`` and ``--data.target`` for that of a domain, ``--data A_to_B`` for both of these. Later layers win: packaged
defaults, method, data, recipe, what a checkpoint carries, the user's files, the protocol (in place of what those say of it),
flags; what a file says for the method alone, below its key ``methods``, comes right after that file. A training that goes on
takes the recipe after its checkpoint: what it changes has to be seen.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segzoo.checkpoint_path import checkpoint_file
from segzoo.cli.domain_names import (
    DOMAINS,
    forget_replaced,
    input_size,
    is_name,
    pair_name,
    pair_of,
    sections_of_names,
)
from segzoo.cli.early import check_options
from segzoo.cli.label_paths import absolute, anchor
from segzoo.cli.label_paths import check as check_label_spaces
from segzoo.cli.literals import plain_pairs
from segzoo.cli.option_index import sections_of
from segzoo.cli.rundir import newest_checkpoint
from segzoo.cli.sections import BY_METHOD, SHARED, Layer, carried_config, check_sections, for_method, last_value
from segzoo.configs import config_path, config_root
from segzoo.errors import CheckpointError, ConfigError
from segzoo.loggers.names import parse_names
from segzoo.methods.registry import DEFAULT_DATA, method_defaults, methods
from segzoo.suggest import did_you_mean
from segzoo.yaml_files import read_yaml

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
Pairs = list[tuple[str, str | None]]
"""Options as they were typed, and their values."""


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
            if (found := last_value([layer], *keys)) is not None:
                return str(found), f" (in {layer.origin})"
        return None, ""


ReadCheckpoint = Callable[[Path], dict[str, Any]]
"""Reads ``{"method": slug, "config": {...}}`` from a checkpoint; see `segzoo.cli.checkpoint`."""


def split_arguments(argv: Sequence[str]) -> Pairs:
    """Pairs of option and value. Several bare values after one option are a list: ``--data.size 192 256``.

    Raises:
        ConfigError: a value that belongs to no option.
    """
    pairs: Pairs = []
    rest = list(argv)
    while rest:
        option = rest.pop(0)
        if not _is_option(option):
            raise ConfigError(f"unexpected argument '{option}'; options start with '--'")
        option, equals, value = option.partition("=")
        option = {"-c": "--config", "-h": "--help"}.get(option, option)
        if equals or option in SWITCHES:
            pairs += plain_pairs(option, value) if equals else [(option, None)]
            continue
        values = []
        while rest and not _is_option(rest[0]):
            values.append(rest.pop(0))
        if len(values) > 1:
            pairs.append((option, f"[{', '.join(values)}]"))
        else:
            pairs += plain_pairs(option, values[0]) if values else [(option, None)]
    return pairs


def expand(command: str, argv: Sequence[str], read_checkpoint: ReadCheckpoint) -> Invocation | None:
    """Resolves names, files and the checkpoint. None when help is wanted and no method is named.

    Raises:
        ConfigError: no or an unknown method, an unknown data set or recipe, a file that is no YAML mapping.
        CheckpointError: the checkpoint is missing, or of another method than the one asked for.
    """
    pairs = split_arguments(argv)
    switches = {option for option, _ in pairs if option in SWITCHES}
    pairs = [("--method" if name == "--method.name" else name, value) for name, value in pairs if name not in SWITCHES]
    flags, files = _take_all(pairs, "--config")
    own_options = [
        "--method",
        "--data",
        "--protocol",
        "--recipe",
        "--ckpt_path",
        *(["--out"] if command != "fit" else []),
    ]
    flags, named = _take(flags, own_options)
    flags, chosen = _take_domains(flags)
    if pair := pair_of(named.get("--data", "")):
        chosen = pair | chosen
        del named["--data"]
    by_flags = _pair_layer(chosen, [])
    user = [_read_file(Path(path)) for path in files]
    recipe = [_read_file(config_path("recipe", named["--recipe"]))] if "--recipe" in named else []
    method = named.get("--method") or last_value([*recipe, *user], "method", "name")

    # Whatever comes next may take seconds, or blame something else: a mistyped --method is no missing one.
    known = method if method in methods() else None
    check_options(flags, _for(known, [*recipe, *user, *by_flags]), known, command)
    carried: list[Layer] = []
    checkpoint, in_place, from_python = None, False, False
    if "--ckpt_path" in named and named["--ckpt_path"] != "null":
        checkpoint = Path(named["--ckpt_path"])
        if named["--ckpt_path"] == "last":
            checkpoint = _last_checkpoint(command, method, named.get("--data"), flags, [*recipe, *user, *by_flags])
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
        names = ", ".join(methods())
        raise ConfigError(f"no method given; add --method NAME, one of: {names} (`segzoo methods` describes them)")
    if method not in methods():
        raise ConfigError(f"unknown method '{method}'{did_you_mean(method, methods())}")

    own = [*carried, *recipe, *user] if command == "fit" else [*recipe, *carried, *user]
    before = [layer for layer in carried if command == "fit" and layer.content]
    if "--protocol" in named:
        own = [Layer(layer.origin, {k: v for k, v in layer.content.items() if k != "protocol"}) for layer in own]
        own.append(_read_file(config_path("protocol", named["--protocol"])))
    if "--data" in named:
        data = [_data_layer(named["--data"])]
        own = [Layer(layer.origin, _without_identity(layer.content)) for layer in own]
    elif any(_names_data(layer.content) for layer in own):
        data = []
    elif chosen:
        data = [_alone(chosen)]
    elif from_python:
        raise CheckpointError(
            f"{checkpoint} does not say which data it was trained on (it was written from Python, not by `segzoo fit`): add "
            "--data NAME or --data FILE"
        )
    else:
        data = [_data_layer(methods()[method].default_data)]
    base, packaged = (
        _read_file(config_root() / "base.yaml"),
        Layer(f"the defaults of '{method}'", method_defaults(method)),
    )
    defaults = [*_for(method, [base]), packaged, *_for(method, data)]
    defaults = [_with_sections_of(method, layer) for layer in defaults]
    own = _for(method, [*own, *_pair_layer(chosen, [*data, *own])])
    contents = forget_replaced([layer.content for layer in (*defaults, *own)])
    defaults, own = _with_contents(defaults, contents), _with_contents(own, contents[len(defaults) :])
    _forget_other_networks(defaults, own, dict(flags).get("--network.architecture"))
    layers = [*defaults, *own]
    for layer in layers:
        layer.content.get("method", {}).pop("name", None)
    check_options(flags, layers, method, command)
    check_label_spaces(layers, flags)
    _check_early(dict(flags))
    out = Path(named["--out"]) if "--out" in named else None
    overruled: list[Layer] = []
    if before:
        before = [*defaults, *before]
        if "data" not in before[-1].content:  # of a training from Python
            named_data = [layer for layer in [*recipe, *user] if "data" in layer.content]
            before += [Layer(layer.origin, {"data": layer.content["data"]}) for layer in named_data]
        overruled = [layer for layer in _for(method, data) if Path(layer.origin).parent != config_root() / "data"]
    texts = [_flag(*pair) for pair in flags]
    return Invocation(method, layers, texts, checkpoint, out, switches, before, in_place, overruled)


def _for(method: str | None, layers: list[Layer]) -> list[Layer]:
    return [part for layer in layers for part in for_method(layer, method or "")]


def _with_sections_of(method: str, layer: Layer) -> Layer:
    """A layer of defaults, which are for many methods, without the sections that this one lacks."""
    absent = set(SHARED) - set(sections_of(methods()[method].target))
    return Layer(layer.origin, {key: value for key, value in layer.content.items() if key not in absent})


def _check_resumed(checkpoint: Path, options: list[str]) -> None:
    for option in options:
        if option in ("--name", "--runs", "--seed_everything"):
            raise ConfigError(
                f"{option}: the run of {checkpoint} goes on in its own folder and with its own seed; leave the option out, or "
                "begin a new run at its weights with --network.initial_checkpoint"
            )


def _forget_other_networks(defaults: list[Layer], own: list[Layer], architecture: str | None) -> None:
    """Drops the options that defaults have for another network than the one that is chosen: they are none of its."""
    known, current = [], "fpn"  # of `segzoo.models.network.Network`
    for layer in defaults:
        current = str(layer.content.get("network", {}).get("architecture") or current).lower()
        known.append(current)
    chosen = str(architecture or last_value([*defaults, *own], "network", "architecture") or current).lower()
    for layer, meant in zip(defaults, known, strict=True):
        if meant != chosen:
            layer.content.get("network", {}).pop("options", None)


def _is_option(argument: str) -> bool:
    return argument.startswith("-") and not re.match(r"-[\d.]", argument) and argument != "-"


def _take(pairs: Pairs, options: list[str]) -> tuple[Pairs, dict[str, str]]:
    taken: dict[str, str] = {}
    for option, value in pairs:
        if option in options:
            if not value:
                raise ConfigError(f"option '{option}' needs a value")
            if value.startswith("["):  # a list that was typed, or several values (`split_arguments`)
                if extra := value.strip("[]").split(", ")[1:]:
                    raise ConfigError(f"unexpected argument '{extra[0]}'; option '{option}' takes one value")
                raise ConfigError(f"option '{option}' takes one value, and no list: found '{value}'")
            taken[option] = value
    return [pair for pair in pairs if pair[0] not in options], taken


def _take_all(pairs: Pairs, option: str) -> tuple[Pairs, list[str]]:
    if any(name == option and not value for name, value in pairs):
        raise ConfigError(f"option '{option}' needs a value")
    return [pair for pair in pairs if pair[0] != option], [value for name, value in pairs if name == option and value]


def _take_domains(pairs: Pairs) -> tuple[Pairs, dict[str, str]]:
    """The flags without ``--data.source NAME`` and ``--data.target NAME``, and these by domain; classes stay flags."""
    options = {f"--data.{domain}": domain for domain in DOMAINS}
    chosen = {options[option]: value for option, value in pairs if option in options and value and is_name(value)}
    return [pair for pair in pairs if options.get(pair[0]) not in chosen], chosen


def _pair_layer(chosen: dict[str, str], before: Sequence[Layer]) -> list[Layer]:
    """The layer of domains that were chosen by flags, named after both of the pair where these have names."""
    if not chosen:
        return []
    data = sections_of_names(chosen)
    if name := pair_name([*(layer.content for layer in before), {"data": data}]):
        data["name"] = name
    return [Layer(" ".join(f"--data.{domain} {name}" for domain, name in chosen.items()), {"data": data})]


def _alone(chosen: dict[str, str]) -> Layer:
    """What two domains that were chosen by flags need, where no file says anything of the data."""
    for domain in DOMAINS:
        if domain not in chosen:
            known = " and ".join(f"--data.{one} {name}" for one, name in chosen.items())
            raise ConfigError(f"{known}: there is no {domain}; add --data.{domain} NAME, or --data NAME for the rest")
    return Layer(f"--data.target {chosen['target']}", {"data": {"size": input_size(chosen["target"])}})


def _with_contents(layers: Sequence[Layer], contents: Sequence[dict[str, Any]]) -> list[Layer]:
    return [Layer(layer.origin, content) for layer, content in zip(layers, contents, strict=False)]


def _read_file(path: Path) -> Layer:
    content = read_yaml(path)
    content = check_sections({} if content is None else content, str(path))
    for part in (content, *content.get(BY_METHOD, {}).values()):
        anchor(part, path.parent)
    return Layer(str(path), content)


def _data_layer(name: str) -> Layer:
    return _read_file(config_path("data", name))


def _last_checkpoint(
    command: str,
    method: str | None,
    data: str | None,
    flags: Pairs,
    layers: list[Layer],
) -> Path:
    if not method:
        raise ConfigError(f"`segzoo {command} --ckpt_path last` looks below runs/<method>/: add --method NAME")
    given = dict(flags)
    default = methods()[method].default_data if method in methods() else DEFAULT_DATA
    if data or last_value(layers, "data", "name") is None:
        layers = [*layers, _data_layer(data or default)]
    name = given.get("--name") or last_value(layers, "name") or "default"
    seed = given.get("--seed_everything") or last_value(layers, "seed_everything") or 0
    data_name = given.get("--data.name") or last_value(layers, "data", "name") or default
    runs = given.get("--runs") or last_value(layers, "runs") or "runs"
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


def _flag(option: str, value: str | None) -> str:
    if option.endswith(".label_space"):
        value = absolute(value)
    return option if value is None else f"{option}={value}"
