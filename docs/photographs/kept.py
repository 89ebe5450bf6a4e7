"""Copies a study's ``results.json`` for the repository: without the places of files, which mean nothing elsewhere.

python -m docs.photographs.kept docs/photographs/PAIR/NAME.json runs/STUDY/results.json [MORE/results.json]
"""

import argparse
from pathlib import Path
from typing import Any

from segzoo.study.entries import read_results, write_results

PLACES = ("--data.root", "--network.encoder_checkpoint", "--runs")


def without_places(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry without the folder of its run and the options that name files."""
    kept = {key: value for key, value in entry.items() if key != "run"}
    words, options = iter(entry["options"]), []
    for word in words:
        if word in PLACES:
            next(words)
        else:
            options.append(word)
    manifest = {key: value for key, value in entry["manifest"].items() if key not in ("command", "platform")}
    return kept | {"options": options, "manifest": manifest}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    arguments = parser.parse_args()
    write_results(arguments.out, [without_places(entry) for path in arguments.results for entry in read_results(path)])


if __name__ == "__main__":
    main()
