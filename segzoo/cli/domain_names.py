"""Packaged domains by their names: ``data.source: gta5``, or ``--data.source gta5``. Free of torch.

A name stands for the class and options in ``configs/domains/NAME.yaml``. When a file is read the name becomes these, so that
all that follows knows classes only. Of a domain given by name nothing is left of what was said before: the suffixes of one
set would be wrong for another.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from segzoo.configs import config_names, config_path
from segzoo.errors import ConfigError
from segzoo.yaml_files import read_yaml

KIND = "domains"
DOMAINS = ("source", "target")
CLASS, OPTIONS, SIZE = "class_path", "init_args", "size"


class Named(dict[str, Any]):
    """A class with its options that was given by name, in the place of all that was said of the domain before."""


def is_name(value: Any) -> bool:
    """Whether a text is the name of a domain, known or not, and no class or path: classes have capitals or dots."""
    return isinstance(value, str) and re.fullmatch(r"[a-z0-9_]+", value) is not None and value != "null"


def by_name(value: Any, where: str) -> Any:
    """What is written for a domain, with the class and options that a name stands for; of a list each of its entries.

    Args:
        value: ``gta5``, or ``class_path: gta5`` with further ``init_args`` that win; anything else is given back.
        where: what error messages call it.

    Raises:
        ConfigError: there is no such domain.
    """
    if isinstance(value, list):
        return [by_name(entry, f"{where}[{number}]") for number, entry in enumerate(value)]
    entry = value if isinstance(value, Mapping) else {CLASS: value}
    if not is_name(entry.get(CLASS)) or not isinstance(entry.get(OPTIONS) or {}, Mapping):
        return value
    known = _read(entry[CLASS], where)
    options = {**known[OPTIONS], **(entry.get(OPTIONS) or {})}
    return Named({**entry, CLASS: known[CLASS], OPTIONS: options})


def pair_of(data: str) -> dict[str, str]:
    """The names of source and target in ``gta5_to_cityscapes``; {} where they are none, or a packaged file has that name."""
    names = dict(zip(DOMAINS, data.split("_to_"), strict=False))
    known = config_names(KIND)
    are_two = len(names) == 2 and data not in config_names("data") and all(name in known for name in names.values())
    return names if are_two else {}


def complete_pair(data: dict[str, Any], where: str) -> None:
    """Gives data whose domains both are names what else they need, in place: a name, and the size that fits the target.

    Raises:
        ConfigError: there is no domain of such a name.
    """
    names = [data.get(domain) for domain in DOMAINS]
    if all(map(is_name, names)):
        known = [_read(str(name), where) for name in names]
        data.setdefault("name", "_to_".join(one[OPTIONS]["name"] for one in known))
        data.setdefault(SIZE, known[1][SIZE])


def sections_of_names(chosen: Mapping[str, str]) -> dict[str, Any]:
    """The section ``data`` of domains that were chosen by flags: domain to name.

    Raises:
        ConfigError: there is no such domain.
    """
    return {domain: by_name(name, f"--data.{domain}") for domain, name in chosen.items()}


def input_size(target: str) -> list[int]:
    """Height and width to which the images of a domain are resized, where nobody says another size."""
    size: list[int] = _read(target, "--data.target")[SIZE]
    return size


def pair_name(contents: Iterable[Mapping[str, Any]]) -> str | None:
    """``gta5_to_cityscapes``, by the last contents that name the domains; None where one has no name.

    Args:
        contents: configurations, later ones win.
    """
    names: dict[str, str] = {}
    for content in contents:
        for domain in DOMAINS:
            section = (content.get("data") or {}).get(domain)
            if isinstance(section, Mapping):
                name = (section.get(OPTIONS) or section).get("name")
                if isinstance(name, str):
                    names[domain] = name
                elif CLASS in section:
                    names.pop(domain, None)
    return "_to_".join(names[domain] for domain in DOMAINS) if len(names) == len(DOMAINS) else None


def forget_replaced(contents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Configurations, later ones win, without what they say of a domain that a later one gives by name."""
    kept = [dict(content) for content in contents]
    for domain in DOMAINS:
        named = False
        for content in reversed(kept):
            section = (content.get("data") or {}).get(domain)
            if section is None:
                continue
            data = {key: value for key, value in content["data"].items() if key != domain}
            if not named:
                data[domain] = dict(section) if isinstance(section, Named) else section
            content["data"] = data
            named = named or isinstance(section, Named)
    return kept


def _read(name: str, where: str) -> dict[str, Any]:
    try:
        path = config_path(KIND, name)
    except ConfigError as error:
        known = ", ".join(config_names(KIND))
        raise ConfigError(f"{where}: {error}; packaged are {known}, and any class by its import path") from error
    content: dict[str, Any] = deepcopy(read_yaml(path))
    return content
