"""Where ``label_space: my_classes.yaml`` is looked up. Free of torch.

A path in a YAML starts at the folder of that YAML, a path in a flag at the working directory. Both become absolute before
anything else sees them, so that a checkpoint, which carries its configuration, can be scored from another folder.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from segzoo.cli.sections import Layer
from segzoo.cli.several_sources import entries
from segzoo.configs import config_path
from segzoo.errors import ConfigError
from segzoo.yaml_files import is_text

DOMAINS = ("source", "target")
KEY = "label_space"


def anchor(content: dict[str, Any], folder: Path) -> None:
    """Makes the label space paths of a configuration absolute, in place.

    Args:
        content: a configuration that was read from a file.
        folder: of that file.
    """
    for domain in DOMAINS:
        for _, section in _sections(content, domain):
            section[KEY] = absolute(section[KEY], folder)


def absolute(value: Any, folder: Path | None = None) -> Any:
    """A relative path of a YAML made absolute; anything else, such as the name of a packaged space, as it is."""
    if not isinstance(value, str) or not value.endswith((".yaml", ".yml")):
        return value
    return os.path.abspath((folder or Path()) / value)


def check(layers: Sequence[Layer], flags: Sequence[tuple[str, str | None]]) -> None:
    """Looks for the label space of both domains.

    Args:
        layers: later ones win.
        flags: pairs of option and value, which win over the layers.

    Raises:
        ConfigError: there is none; the message names the option, where it was given, and the folder.
    """
    given = {option.replace(".init_args.", "."): value for option, value in flags}
    for domain in DOMAINS:
        found: dict[str, tuple[Any, str]] = {}
        for layer in layers:
            if "class_path" in _options(layer.content, domain):  # what was listed before is no source any more
                found = {option: value for option, value in found.items() if "[" not in option}
            for option, section in _sections(layer.content, domain):
                found[option] = section[KEY], f" (in {layer.origin})"
        if (option := f"--data.{domain}.{KEY}") in given:
            found[option] = given[option], ""
        for option, (value, where) in found.items():
            if isinstance(value, str):  # else another class of data, or an error of type that the parser explains
                _check_one(option, value, where, option in given)


def _check_one(option: str, value: str, where: str, typed: bool) -> None:
    path = Path(absolute(value))
    if not is_text(str(path)):
        raise ConfigError(
            f"{option}{where}: {str(path)!a} is no text in UTF-8; rename its folder, or work in another one"
        )
    if path.is_absolute() and not path.is_file():
        start = "the working directory" if typed else "the folder of the YAML that names it"
        raise ConfigError(f"{option}{where}: no file '{path.name}' in {path.parent}; a path starts at {start}")
    try:
        config_path("label_spaces", value)
    except ConfigError as error:
        raise ConfigError(f"{option}{where}: {error}") from error


def _sections(content: dict[str, Any], domain: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The mappings that hold a label space of a domain, with its option: with or without the key ``init_args``."""
    section = _options(content, domain)
    named = [(f"--data.{domain}", section)]
    named += [(f"data.{domain}[{number}]", entry) for number, entry in enumerate(entries(section))]
    for name, options in named:
        for part in (options, options.get("init_args")):
            if isinstance(part, dict) and KEY in part:
                yield f"{name}.{KEY}", part


def _options(content: dict[str, Any], domain: str) -> dict[str, Any]:
    data = content.get("data")
    section = data.get(domain) if isinstance(data, dict) else None
    return section if isinstance(section, dict) else {}
