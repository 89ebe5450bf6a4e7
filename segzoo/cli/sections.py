"""What every configuration is made of: sections with options. Free of torch."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segzoo.cli.domain_names import by_name, complete_pair
from segzoo.cli.moved import explain_section, explain_unlabelled
from segzoo.cli.several_sources import DOMAINS, entries, several_sources
from segzoo.errors import CheckpointError, ConfigError
from segzoo.methods.registry import methods
from segzoo.suggest import did_you_mean

SHARED = ("network", "optimizer", "loss", "speed")
"""Sections of a method that most methods have."""
SECTIONS = ("method", *SHARED, "data", "protocol", "trainer")
RESTORED = ("generator_description",)
"""Arguments of a method's constructor that nobody types: a checkpoint brings them."""
BY_METHOD = "methods"
"""Key of a file below which it has sections for some methods only."""
# Filled in from others: what a file says of them would be ignored.
FOLLOWING = (("data", "seed", "'seed_everything'"), ("method", "label_space", "the data's 'label_space'"))


@dataclass(frozen=True)
class Layer:
    """One YAML file, the part of it for one method, or the configuration inside a checkpoint.

    Attributes:
        origin: what error messages call it.
        content: sections of `SECTIONS` and top-level options.
    """

    origin: str
    content: dict[str, Any]


def check_sections(content: Any, where: str) -> dict[str, Any]:
    """A configuration as it was read, whose sections are sections and whose keys are names.

    Args:
        content: what the YAML holds; ``method: NAME`` becomes ``method: {name: NAME}``.
        where: what error messages call it.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(content, dict):
        raise ConfigError(f"{where} must hold sections such as 'method:' and 'data:', found {_kind(content)}")
    _check_names(content, where)
    if "model" in content:
        raise ConfigError(f"{where}: {explain_section(content['model'])}")
    if isinstance(content.get("method"), str):
        content["method"] = {"name": content["method"]}
    for section in SECTIONS:
        if content.get(section) is not None and not isinstance(content[section], dict):
            raise ConfigError(f"{where}: '{section}' must be a section with options, found '{content[section]}'")
        if section in content and content[section] is None:  # `data:` with nothing below it
            del content[section]
        _check_names(content.get(section, {}), f"{where}: {section}")
    if not isinstance(content.get("method", {}).get("name", ""), str):
        raise ConfigError(f"{where}: 'method.name' must be a name, found {_spell(content['method']['name'])}")
    for section, option, instead in FOLLOWING:
        if content.get(section, {}).get(option) is not None:
            raise ConfigError(f"{where}: '{section}.{option}' follows {instead}; leave it out")
    data = content.get("data", {})
    complete_pair(data, f"{where}: data")
    for domain in ("source", "target"):
        if domain in data:
            data[domain] = by_name(data[domain], f"{where}: data.{domain}")
    if isinstance(data.get("source"), list):
        data["source"] = several_sources(data["source"], f"{where}: data.source")
    if isinstance(data.get("target"), list):
        raise ConfigError(
            f"{where}: data.target is a list, and only data.source may be one; name the one class to learn for"
        )
    for domain in ("source", "target"):
        _check_class(data.get(domain), f"{where}: data.{domain}")
        for number, entry in enumerate(entries(data.get(domain))):
            _check_class(entry, f"{where}: data.{domain}[{number}]")
    if BY_METHOD in content:
        _check_by_method(content, where)
    return content


def for_method(layer: Layer, slug: str) -> list[Layer]:
    """A layer as one method has it: without what it says for some methods only, and then what it says for this one."""
    content = {key: value for key, value in layer.content.items() if key != BY_METHOD}
    own = layer.content.get(BY_METHOD, {}).get(slug)
    return [Layer(layer.origin, content), *([Layer(layer.origin, own)] if own else [])]


def last_value(layers: Sequence[Layer], *keys: str) -> Any:
    """The value that the last layer which has it gives to a key; None where nobody does."""
    for layer in reversed(layers):
        value: Any = layer.content
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


def carried_config(saved: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """The configuration that a checkpoint carries; of a training from Python the sections of its method alone.

    Args:
        saved: what `segzoo.cli.checkpoint.read_checkpoint` returns.
        checkpoint: its file.

    Raises:
        CheckpointError: it carries something else.
    """
    where, content = f"the configuration in {checkpoint}", saved.get("config")
    if content is None:
        content = saved.get("options") or {}
    try:
        return check_sections(deepcopy(content), where)
    except ConfigError as error:
        raise CheckpointError(f"{error}; expected a file of `segzoo fit`") from error


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options by their dotted names, without ``init_args``; lists and empty mappings are values.

    Of several sources the options of each: ``data.source[1].images``.
    """
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping) and value:
            found |= flatten(value, name)
        elif several := entries(content) if key == DOMAINS else []:
            for number, entry in enumerate(several):
                found |= flatten(entry, f"{prefix}[{number}]")
        else:
            found[name] = value
    return found


def _check_by_method(content: dict[str, Any], where: str) -> None:
    parts = content[BY_METHOD]
    if parts is None:
        del content[BY_METHOD]
        return
    if not isinstance(parts, dict):
        raise ConfigError(f"{where}: '{BY_METHOD}' must hold methods and their sections, found {_kind(parts)}")
    _check_names(parts, f"{where}: {BY_METHOD}")
    for slug, part in parts.items():
        if slug not in methods():
            raise ConfigError(f"{where}: {BY_METHOD}: unknown method '{slug}'{did_you_mean(slug, methods())}")
        here = f"{where}: {BY_METHOD}.{slug}"
        parts[slug] = check_sections({} if part is None else part, here)
        for key in parts[slug]:
            if key == BY_METHOD or "name" in parts[slug].get("method", {}):
                what = BY_METHOD if key == BY_METHOD else "method.name"
                raise ConfigError(
                    f"{here}: '{what}' has no place here; expected sections such as 'method:' and 'data:'"
                )


def _check_names(content: Mapping[Any, Any], where: str) -> None:
    for key in content:
        if not isinstance(key, str):
            raise ConfigError(f"{where}: the key {_spell(key)} is no name; expected options such as 'max_steps: 400'")


def _check_class(value: Any, where: str) -> None:
    """A class with its options, as far as it is one."""
    if not isinstance(value, dict):
        return
    _check_names(value, where)
    if "class_path" in value and not isinstance(value["class_path"], str):
        expected = "the import path of a class, e.g. segzoo.data.PairedFolders"
        raise ConfigError(f"{where}.class_path: expected {expected}, found {_spell(value['class_path'])}")
    if not isinstance(value.get("init_args", {}), dict):
        raise ConfigError(f"{where}.init_args: expected options of the class, found {_spell(value['init_args'])}")
    for options in (value, value.get("init_args", {})):
        if isinstance(options.get("unlabelled"), list):
            raise ConfigError(f"{where}.unlabelled: {explain_unlabelled(options['unlabelled'])}")


def _kind(value: Any) -> str:
    return {"NoneType": "nothing", "str": f"'{value}'"}.get(name := type(value).__name__, f"a {name}")


def _spell(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
