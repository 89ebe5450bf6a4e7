"""Values as Python writes them, which is how wandb's agents give them: ``--key=None``, ``--key=[1, None]``. Free of torch."""

import ast
import json

SECTIONS = ("method", "network", "optimizer", "loss", "speed", "data", "protocol", "trainer")


def plain_pairs(option: str, value: str) -> list[tuple[str, str]]:
    """An option and its value as YAML writes it, or the options of a section that is given as a whole.

    Args:
        option: e.g. ``--network``.
        value: as it was typed. What Python would not read, or would read as YAML does, stays as it is.

    Returns:
        ``[("--network.encoder", "resnet18")]`` of ``--network={'encoder': 'resnet18'}``, ``[("--data.crop_size", "null")]`` of
        ``--data.crop_size=None``.
    """
    if value != "None" and not value.startswith(("{", "[")):
        return [(option, value)]
    try:
        found = ast.literal_eval(value)
        if isinstance(found, dict) and option.removeprefix("--") in SECTIONS:
            return [(f"{option}.{key}", one if isinstance(one, str) else json.dumps(one)) for key, one in found.items()]
        return [(option, json.dumps(found) if "None" in value else value)]
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # YAML, or no value at all
        return [(option, value)]
