"""Copies a study's ``results.json`` for the repository: without the places of files, which mean nothing elsewhere.

python -m docs.kept docs/photographs/PAIR/NAME.json runs/STUDY/results.json [MORE/results.json]

Files of one study in several parts are put together; runs that several of them have are taken from the first.
"""

import argparse
from pathlib import Path
from typing import Any

from segzoo.study.entries import read_results, write_results


def names_a_place(value: str) -> bool:
    """Whether the value of an option is a path; ``{ROW}`` and plain names are none."""
    return "/" in value and "{" not in value


def without_places(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry without the folder of its run and the options that name files or folders."""
    kept = {key: value for key, value in entry.items() if key != "run"}
    options: list[str] = []
    for word in entry["options"]:
        if not names_a_place(word):
            options.append(word)
        elif not word.startswith("--"):
            options.pop()  # the option whose value this is
    manifest = {key: value for key, value in entry["manifest"].items() if key not in ("command", "platform")}
    return kept | {"options": options, "manifest": manifest}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    arguments = parser.parse_args()
    kept: dict[tuple[str, str, int], dict[str, Any]] = {}
    for entry in (entry for path in arguments.results for entry in read_results(path)):
        kept.setdefault((entry["pair"], entry["row"], entry["seed"]), without_places(entry))
    rows = list(dict.fromkeys((pair, row) for pair, row, _ in kept))
    order = sorted(kept, key=lambda key: (rows.index(key[:2]), key[2]))
    write_results(arguments.out, [kept[key] for key in order])


if __name__ == "__main__":
    main()
