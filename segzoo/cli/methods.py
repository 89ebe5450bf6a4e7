"""``segzoo methods``: what can be trained."""

import argparse
import json
from dataclasses import replace
from typing import Any

from segzoo.errors import ConfigError
from segzoo.methods.registry import RESOURCES, MethodInfo, load_method
from segzoo.methods.registry import methods as registered
from segzoo.suggest import did_you_mean


def methods(argv: list[str]) -> int:
    """Prints the methods as a table or as JSON."""
    parser = argparse.ArgumentParser(
        prog="segzoo methods",
        description="List the methods and what each learns from: synthetic source, target labels, unlabelled target.",
        epilog="example: segzoo methods --json",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        raise ConfigError(f"unknown option '{unknown[0]}'{did_you_mean(unknown[0], ['--json', '--help'])}")
    found = [info if info.resources else asked(info) for info in registered().values()]
    if args.json:
        print(json.dumps([_entry(info) for info in found], indent=2))
    else:
        print(table(found))
    return 0


def asked(info: MethodInfo) -> MethodInfo:
    """What the class of a plugin says of itself, which imports it; one that cannot be used is listed with the reason."""
    try:
        cls = load_method(info.slug)
    except ConfigError as error:
        return replace(info, summary=f"{info.summary}: {error}")
    first = (cls.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    return replace(info, resources=cls.resources, summary=f"{first} ({info.summary})" if first else info.summary)


def table(found: list[MethodInfo]) -> str:
    """One line per method: slug, a column per resource, summary."""
    width = max([len("method"), *(len(info.slug) for info in found)])
    lines = [f"{'method':{width}}  {'  '.join(RESOURCES)}  summary"]
    for info in found:
        marks = [
            ("x" if name in info.resources else "" if info.resources else "?").center(len(name)) for name in RESOURCES
        ]
        lines.append(f"{info.slug:{width}}  {'  '.join(marks)}  {info.summary}")
    return "\n".join(lines)


def _entry(info: MethodInfo) -> dict[str, Any]:
    return {
        "method": info.slug,
        "resources": list(info.resources),
        "summary": info.summary,
        "class": info.target,
    }
