"""A list of sources as it is written, and as the class that it stands for. Free of torch.

``data.source`` may be a list of classes with a ``weight`` each. When a file is read the list becomes the class
`segzoo.data.SeveralDomains` with its options, so that all that follows knows classes only; messages and options call the
entries ``data.source[1]``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from segzoo.checks import check_weight
from segzoo.errors import ConfigError
from segzoo.suggest import did_you_mean

CLASS = "segzoo.data.SeveralDomains"
KEYS = ("class_path", "init_args", "dict_kwargs", "weight")
"""Of an entry."""
DOMAINS, WEIGHTS, WEIGHT = "domains", "weights", "weight"


def several_sources(listed: Sequence[Any], where: str) -> Any:
    """What a list of sources stands for: the class of several domains, or of a single entry that entry.

    Args:
        listed: an entry per source: ``class_path``, ``init_args`` and, where it is not 1, ``weight``; or the class alone.
        where: what error messages call the list.

    Raises:
        ConfigError: an empty list, an entry that is no class or has another key, or a weight that is no number above 0.
    """
    if not listed:
        raise ConfigError(f"{where} is an empty list; give it the sources, each with a class_path and its init_args")
    domains, weights = [], []
    for number, entry in enumerate(listed):
        here = f"{where}[{number}]"
        if isinstance(entry, str):
            entry = {"class_path": entry}
        if not isinstance(entry, Mapping) or "class_path" not in entry:
            found = "a list" if isinstance(entry, list) else repr(entry)
            raise ConfigError(f"{here}: expected a class_path, its init_args and a weight, found {found}")
        for key in entry:
            if key not in KEYS:
                raise ConfigError(f"{here}: unknown key '{key}'{did_you_mean(str(key), KEYS)}")
        check_weight(f"{here}.{WEIGHT}", weight := entry.get(WEIGHT, 1))
        weights.append(float(weight))
        domains.append({key: value for key, value in entry.items() if key != WEIGHT})
    if len(domains) == 1:
        return domains[0]
    return {"class_path": CLASS, "init_args": {DOMAINS: domains, WEIGHTS: weights}}


def entries(value: Any) -> list[dict[str, Any]]:
    """The classes of several sources, with their options; [] for a single one.

    Args:
        value: of ``data.source``, with or without the key ``init_args``.
    """
    options = value.get("init_args", value) if isinstance(value, Mapping) else {}
    listed = options.get(DOMAINS) if isinstance(options, Mapping) else None
    found = listed if isinstance(listed, list) else []
    return found if all(isinstance(one, Mapping) and "class_path" in one for one in found) else []
