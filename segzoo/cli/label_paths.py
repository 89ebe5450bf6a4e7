"""Where ``label_space: my_classes.yaml`` is looked up. Free of torch.

A path in a YAML starts at the folder of that YAML, a path in a flag at the working directory. Both become absolute before
anything else sees them, so that a checkpoint, which carries its configuration, can be scored from another folder.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from segzoo.cli.sections import Layer
from segzoo.configs import config_path
from segzoo.errors import ConfigError

DOMAINS = ("source", "target")
KEY = "label_space"


def anchor(content: dict[str, Any], folder: Path) -> None:
    """Makes the label space paths of a configuration absolute, in place.

    Args:
        content: a configuration that was read from a file.
        folder: of that file.
    """
    for domain in DOMAINS:
        for section in _sections(content, domain):
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
        option = f"--data.{domain}.{KEY}"
        value, where = None, ""
        for layer in layers:
            for section in _sections(layer.content, domain):
                value, where = section[KEY], f" (in {layer.origin})"
        if option in given:
            value, where = given[option], ""
        if not isinstance(value, str):
            continue  # another class of data, or an error of type that the parser explains
        path = Path(absolute(value))
        if path.is_absolute() and not path.is_file():
            start = "the working directory" if option in given else "the folder of the YAML that names it"
            raise ConfigError(f"{option}{where}: no file '{path.name}' in {path.parent}; a path starts at {start}")
        try:
            config_path("label_spaces", value)
        except ConfigError as error:
            raise ConfigError(f"{option}{where}: {error}") from error


def _sections(content: dict[str, Any], domain: str) -> Iterator[dict[str, Any]]:
    """The mappings that hold a domain's label space: its options, with or without the key ``init_args``."""
    data = content.get("data")
    section = data.get(domain) if isinstance(data, dict) else None
    if isinstance(section, dict):
        yield from (part for part in (section, section.get("init_args")) if isinstance(part, dict) and KEY in part)
