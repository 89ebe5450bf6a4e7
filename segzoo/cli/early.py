"""What is wrong with options and can be said before anything heavy is imported. Free of torch."""

from collections.abc import Sequence
from typing import Any

from segzoo.cli.explain_options import explain_value, unknown_key, unknown_option
from segzoo.cli.option_index import Kind, OptionIndex, option_index
from segzoo.cli.sections import SECTIONS, SHARED, Layer, flatten
from segzoo.cli.several_sources import entries
from segzoo.errors import ConfigError
from segzoo.methods.registry import methods
from segzoo.yaml_files import parse_yaml

# Of the command line, resolved before parsing.
EXPANDED = ("config", "data", "protocol", "recipe", "ckpt_path", "help", "debug", "print_config", "method.help")


def check_options(
    flags: Sequence[tuple[str, str | None]], layers: Sequence[Layer], method: str | None, command: str
) -> None:
    """Refuses unknown options, missing values and values of a wrong simple type, in flags and files.

    Args:
        flags: as they were typed.
        layers: where other values come from, later ones win.
        method: slug; None when a checkpoint will say it.
        command: ``fit``, ``validate`` or ``test``.

    Raises:
        ConfigError: the first of them. In doubt there is none: the parser has the last word.
    """
    given = dict(flags)
    domains = {domain: _class(f"data.{domain}", given, layers) for domain in ("source", "target")}
    domains |= _listed(layers)
    index = option_index(methods()[method].target if method else None, domains)
    for option, value in flags:
        name = _name(option)
        if not index.knows(name) and name.replace("data.source.", "data.source[0].") in index.kinds:
            raise ConfigError(
                f"option '{option}' is one of each of several sources: change it in the file that lists them (here there is "
                "--data.source.weights)"
            )
        _check_name(option, index, command)
        if name == "data.source" and (value or "").startswith("["):
            raise ConfigError(
                f"option '{option}' takes one class; write a list of sources into a YAML file (--data FILE)"
            )
        if value is None and not name.endswith("help"):
            raise ConfigError(f"option '{option}' needs a value")
        if value is not None and name in index.kinds:
            _check_text(f"--{name}", value)
            if not _fits(value, index.kinds[name]):
                raise ConfigError(explain_value(name, _names(index.kinds[name]), value, layers, [f"--{name}="]))
    for layer in layers:
        for key, value in flatten(layer.content).items():
            name = _name(f"--{key}")
            if not index.knows(name) or (key not in SECTIONS and name in EXPANDED):
                raise ConfigError(_unknown_in_file(key, name, index, [layer]))
            if name in index.kinds and value is not None and not _fits(value, index.kinds[name]):
                raise ConfigError(explain_value(name, _names(index.kinds[name]), str(value), [layer], ()))


def _check_name(option: str, index: OptionIndex, command: str) -> None:
    name = _name(option)
    own = (*EXPANDED, *(() if command == "fit" else ("out",)))
    if name in SHARED or name == "trainer":
        first = next((f"--{known}" for known in index.kinds if known.startswith(f"{name}.")), "another name")
        raise ConfigError(f"option '{option}' is a section of options, such as {first}; --help lists them")
    if not option.startswith("--") or not (name in own or index.knows(name)):
        known = [f"--{known}" for known in (*index.kinds, *own) if known not in ("method", *SHARED, "trainer")]
        raise ConfigError(unknown_option(option, [*known, "--method"]))


def _unknown_in_file(key: str, name: str, index: OptionIndex, layers: Sequence[Layer]) -> str:
    known = [f"--{known}" for known in (*index.kinds, *EXPANDED)]
    if key.startswith(("data.source.", "data.target.")):  # as the parser says it
        return unknown_option(f"--{name}", known, f" (in {layers[-1].origin})")
    return unknown_key(key, known, layers)


def _name(option: str) -> str:
    """As the index has it, without the keys that stand for the class of an object and its options."""
    name = option.removeprefix("--").replace(".class_path", "").replace(".init_args.", ".")
    return name.removesuffix(".init_args")


def _class(key: str, given: dict[str, str | None], layers: Sequence[Layer]) -> str | None:
    for option in (f"--{key}", f"--{key}.class_path"):
        if option in given:
            return given[option]
    section, _, domain = key.partition(".")
    found = None
    for layer in layers:
        value = layer.content.get(section, {}).get(domain)
        found = (
            value if isinstance(value, str) else value.get("class_path", found) if isinstance(value, dict) else found
        )
    return found


def _listed(layers: Sequence[Layer]) -> dict[str, str | None]:
    """The classes of several sources by their place, e.g. ``source[1]``; None where files differ in it."""
    found: dict[str, str | None] = {}
    for layer in layers:
        for number, entry in enumerate(entries((layer.content.get("data") or {}).get("source"))):
            name, path = f"source[{number}]", str(entry["class_path"])
            found[name] = path if found.get(name, path) == path else None
    return found


def _check_text(option: str, value: str) -> None:
    """A mapping or list that was typed must be read in one way only; a text that is neither is not YAML's business."""
    if value.lstrip()[:1] in ("{", "["):
        try:
            parse_yaml(value, option)
        except ConfigError as error:
            if "is not valid YAML" not in str(error):
                raise


def _fits(value: Any, kind: Kind) -> bool:
    """Whether a value may be of a kind; True in doubt."""
    if not kind.simple:
        return True
    if isinstance(value, str):
        if value in map(str, kind.choices) or _reads_as(value, kind):
            return True
        try:
            parsed = parse_yaml(value, "")
        except ConfigError:
            return False
        return not isinstance(parsed, str) and _fits(parsed, kind)
    if value is None or value in kind.choices:
        return True
    if isinstance(value, bool):
        return "bool" in kind.types
    if isinstance(value, int):
        return bool({"int", "float", "PositiveInt"} & set(kind.types))
    return isinstance(value, float) and ("float" in kind.types or value.is_integer())


def _reads_as(text: str, kind: Kind) -> bool:
    try:
        number = float(text.replace("_", ""))
    except ValueError:
        return False
    return "float" in kind.types or ("int" in kind.types and number == number // 1)


def _names(kind: Kind) -> list[str]:
    """As Python writes types."""
    spelled = {"None": "NoneType"}
    types = [one if one == "PositiveInt" else f"<class '{spelled.get(one, one)}'>" for one in kind.types]
    return [*map(str, kind.choices), *sorted(types, key=lambda name: name == "PositiveInt")]
