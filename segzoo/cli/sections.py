"""What every configuration is made of: sections with options. Free of torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segzoo.errors import CheckpointError, ConfigError
from segzoo.yaml_files import parse_yaml

SECTIONS = ("model", "data", "trainer")
# Filled in from others: what a file says of them would be ignored.
FOLLOWING = (("data", "seed", "'seed_everything'"), ("model", "label_space", "the data's 'label_space'"))


RETIRED = ("limit_predict_batches", "reload_dataloaders_every_n_epochs")
"""Options of the trainer that earlier versions offered, and wrote into every configuration, without an effect."""


def check_sections(content: Any, where: str) -> dict[str, Any]:
    """A configuration as it was read, whose sections are sections and whose keys are names.

    Args:
        content: what the YAML holds.
        where: what error messages call it.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(content, dict):
        raise ConfigError(f"{where} must hold sections such as 'model:' and 'data:', found {_kind(content)}")
    for section in SECTIONS:
        if content.get(section) is not None and not isinstance(content[section], dict):
            raise ConfigError(f"{where}: '{section}' must be a section with options, found '{content[section]}'")
        if section in content and content[section] is None:  # `data:` with nothing below it
            del content[section]
    for option in RETIRED:
        if not content.get("trainer", {}).get(option, True):
            del content["trainer"][option]
    if not isinstance(content.get("method", ""), str | None):
        raise ConfigError(f"{where}: 'method' must be a name; the options of a method are the section 'model'")
    _check_names(content, where)
    for section in SECTIONS:
        _check_names(content.get(section, {}), f"{where}: {section}")
    for section, option, instead in FOLLOWING:
        if content.get(section, {}).get(option) is not None:
            raise ConfigError(f"{where}: '{section}.{option}' follows {instead}; leave it out")
    for domain in ("source", "target"):
        _check_class(content.get("data", {}).get(domain), f"{where}: data.{domain}")
    return content


def carried_config(saved: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """The configuration that a checkpoint carries; {} when it carries none.

    Args:
        saved: what `segzoo.cli.checkpoint.read_checkpoint` returns.
        checkpoint: its file.

    Raises:
        CheckpointError: it carries something else.
    """
    where, text = f"the configuration in {checkpoint}", saved.get("config") or ""
    if not text and "model" in saved:  # of a training from Python
        return {"model": dict(saved["model"])}
    if not isinstance(text, str):
        raise CheckpointError(f"{where} is no text but {_kind(text)}; expected a file of `segzoo fit`")
    try:
        content = parse_yaml(text, where)
        return check_sections({} if content is None else content, where)
    except ConfigError as error:
        raise CheckpointError(f"{error}; expected a file of `segzoo fit`") from error


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options by their dotted names, without ``init_args``; lists and empty mappings are values."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping) and value:
            found |= flatten(value, name)
        else:
            found[name] = value
    return found


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


def _kind(value: Any) -> str:
    return {"NoneType": "nothing", "str": f"'{value}'"}.get(name := type(value).__name__, f"a {name}")


def _spell(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
