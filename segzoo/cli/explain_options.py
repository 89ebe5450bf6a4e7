"""jsonargparse's messages about options, in one line that names the option as the user types it."""

import importlib
import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

from segzoo.cli.moved import explain_unlabelled, moved
from segzoo.cli.sections import Layer
from segzoo.cli.several_sources import entries
from segzoo.suggest import nearest_option

# What jsonargparse calls a list or by a type's name alone.
LISTS = {f"data.{size}": "two numbers, height width" for size in ("size", "source_size", "target_size", "crop_size")}
LISTS["protocol.window"] = "two numbers, height width"
LISTS["protocol.scales"] = "numbers, such as 0.75 1 1.25"
LISTS["data.crop_scale"] = "two numbers, smallest and largest share"
SEVERAL = "data.source.domains"
"""The parser's key of all of several sources."""
RESTRICTED = {"PositiveInt": "a whole number above 0"}


def explain_options(message: str, options: Iterable[str], layers: Sequence[Layer], flags: Sequence[str]) -> str:
    """One line for an error of the parser.

    Args:
        message: the parser's own, possibly many lines.
        options: all options that exist, e.g. ``--optimizer.lr``.
        layers: where values came from, later ones win.
        flags: ``--key=value`` of the command line, which win over the layers.
    """
    if match := re.search(r"[Uu]nrecognized arguments: (\S+)", message):
        name = _typed(match[1].partition("=")[0])
        return unknown_option(name, options)
    if match := re.search(r"argument (?:-\w, )?(--\S+?)(?:/\S+)?: expected", message):
        return f"option '{_typed(match[1])}' needs a value"
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    if match := re.search(r"arguments are required: ([\w.-]+)", message):
        name = f"{key}.{match[1]}" if key else match[1]
        if key == SEVERAL and (lacking := _lacking(match[1], layers)):
            return f"option '{lacking}' is required{origin(lacking.rpartition('.')[0], layers, flags)}"
        return f"option '{_typed(f'--{name}')}' is required{origin(key, layers, flags) if key else ''}"
    if match := re.search(r"Group '(\S+)' does not accept option '(\S+)'", message):
        return unknown_key(f"{match[1]}.{match[2]}", options, layers)
    if not key and (match := re.search(r"Option '(\S+)' is not accepted", message)):
        return unknown_key(match[1], options, layers)
    if not key:
        return _typed(" ".join(message.split()))
    where = _typed(f"--{key}") + origin(key, layers, flags)
    if match := re.search(r"Option '(\S+)' is not accepted", message):
        cls = re.search(r"class_path '([^']+)'", message)
        name = _typed(f"--{key}.{match[1]}")
        known = [_typed(f"--{key}.{parameter}") for parameter in _parameters(cls[1] if cls else "")]
        return unknown_option(name, known, origin(f"{key}.{match[1]}", layers, flags))
    absent = re.search(r"Problem with given class_path '([^']+)':\s+(?:module|No module|Expected a dot)", message)
    if match := re.search(r"Expected a dot import path string: (\S+)", message) or (absent if key == SEVERAL else None):
        example = (
            "segzoo.data.PairedFolders" if key.startswith("data.") else "lightning.pytorch.callbacks.DeviceStatsMonitor"
        )
        return f"{where}: no class '{match[1]}'; expected its import path, e.g. {example}"
    expected = re.findall(r"Expected (?:a|an) (.+?)(?:\. Got value|$)", message, re.M)
    expected += re.findall(r"Not of type (\w+)", message)
    value = re.findall(r"(?:Got|Given) value: (.*)", message) or re.findall(r"Not of type \w+: (\S+)", message)
    if key.endswith(".unlabelled") and value and value[-1].startswith("["):
        splits = re.findall(r"\w+", value[-1])
        return f"{where}: {explain_unlabelled(splits)}"
    if expected and value:
        return explain_value(key, expected, value[-1].strip(), layers, flags)
    text = re.sub(r'Parser key "[^"]+":', "", message)
    return f"{where}: {' '.join(text.split())}"


def explain_value(key: str, expected: Sequence[str], found: str, layers: Sequence[Layer], flags: Sequence[str]) -> str:
    """One line for a value of the wrong type.

    Args:
        key: the parser's, e.g. ``optimizer.lr``.
        expected: types or choices, as Python writes them.
        found: the value as Python writes it.
        layers: where values came from, later ones win.
        flags: ``--key=value`` of the command line, which win over the layers.
    """
    allowed = list(dict.fromkeys(name for one in expected for name in _type_name(one).split(", ")))
    if key in LISTS and allowed[0].startswith(("a list", "tuple")):
        allowed = [LISTS[key]]
    found = {"None": "null", "True": "true", "False": "false"}.get(found, found)
    option = f"'{key}'" if "[" in key else _typed(f"--{key}")
    return f"{option}{origin(key, layers, flags)}: expected {_any_of(allowed)}, found '{found}'"


def unknown_key(key: str, options: Iterable[str], layers: Sequence[Layer]) -> str:
    """One line for an option of a file that does not exist.

    Args:
        key: e.g. ``method.wight``.
        options: all options that exist, as they are typed.
        layers: where it came from, later ones win.
    """
    if now := moved(key):
        return f"unknown key '{key}'{origin(key, layers, ())}; it is '{now}' now"
    near = nearest_option(f"--{key}", [*options, "--trainer"])
    hint = "; --help lists all options"
    if near in (f"--{key}", "--config", "--ckpt_path", "--recipe", "--out"):
        hint = f"; it is an option of the command line: {near}"
    elif near:
        hint = f"; did you mean '{near.removeprefix('--')}'?"
    return f"unknown key '{key}'{origin(key, layers, ())}{hint}"


def unknown_option(option: str, options: Iterable[str], where: str = "") -> str:
    """One line for an option of the command line that does not exist.

    Args:
        option: as it was typed.
        options: all that exist.
        where: it was given, for one that came from a file.
    """
    if now := moved(option):
        return f"unknown option '{option}'{where}; it is {now if ' ' in now else f'--{now}'} now"
    near = nearest_option(option, options)
    hint = f"; did you mean '{near}'?" if near else "; --help lists all options"
    return f"unknown option '{option}'{where}{hint}"


def _typed(text: str) -> str:
    """Options as they are typed, without ``init_args``."""
    return text.replace(".init_args.", ".")


def _any_of(names: list[str]) -> str:
    return " or ".join(names) if len(names) < 3 else f"one of {', '.join(names)}"


def origin(key: str, layers: Sequence[Layer], flags: Sequence[str]) -> str:
    """The file that an option comes from, e.g. `` (in own.yaml)``; empty for a flag."""
    if any(flag.startswith((f"--{key}=", f"--{key}.")) for flag in flags):
        return ""
    for layer in reversed(layers):
        if _has(layer.content, key.split(".")):
            return f" (in {layer.origin})"
    return ""


def _has(content: Any, keys: list[str]) -> bool:
    key: str | int
    for key in keys:
        if isinstance(content, dict) and key not in content and isinstance(content.get("init_args"), dict):
            content = content["init_args"]
        if match := re.fullmatch(r"(\w+)\[(\d+)\]", key):  # one of several sources
            several = entries(content.get(match[1])) if isinstance(content, dict) else []
            content, key = dict(enumerate(several)), int(match[2])
        if not isinstance(content, dict) or key not in content:
            return False
        content = content[key]
    return True


def _lacking(option: str, layers: Sequence[Layer]) -> str | None:
    """The first of several sources without an option, e.g. ``data.source[1].images``."""
    for layer in reversed(layers):
        for number, entry in enumerate(entries((layer.content.get("data") or {}).get("source"))):
            if option not in (entry.get("init_args") or {}):
                return f"data.source[{number}].{option}"
    return None


def _parameters(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    try:
        return list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    except (ImportError, AttributeError, ValueError, TypeError):
        return []


def _type_name(text: str) -> str:
    text = text.strip()
    if text.rpartition(".")[2].rstrip("'>") in RESTRICTED:
        return RESTRICTED[text.rpartition(".")[2].rstrip("'>")]
    if match := re.fullmatch(r"typing\.Literal\[(.*)\]", text):
        return match[1].replace("'", "")
    if match := re.fullmatch(r"<class '(\S+)'>", text):
        names = {
            "NoneType": "null",
            "tuple": "a list",
            "list": "a list",
            "dict": "a mapping",
            "str": "text",
            "bool": "true or false",
        }
        return names.get(match[1], match[1].rpartition(".")[2])
    return text.removeprefix("typing.")
