"""``segzoo methods``: what can be trained."""

import argparse
import json
from typing import Any

from segzoo.errors import ConfigError
from segzoo.methods.registry import RESOURCES, MethodInfo
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
    found = list(registered().values())
    if args.json:
        print(json.dumps([_entry(info) for info in found], indent=2))
    else:
        print(table(found))
    return 0


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
