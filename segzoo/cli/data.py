"""``segzoo data``: commands on data. Each is a module of its own."""

import importlib
from collections.abc import Callable

from segzoo.errors import ConfigError
from segzoo.suggest import did_you_mean

COMMANDS = {
    "init": "look into two folders, and write the YAML that describes them",
    "check": "read every file, and report what is there and what is wrong",
    "prepare": "copy a data set at the training size",
    "doubts": "list the images whose masks a trained network does not believe",
    "convert": "convert a downloaded data set of object parts into folders",
}
"""Name and summary; the function of that name is in the module ``data_NAME`` beside this one."""
EXAMPLES = """\
examples:
  segzoo data init --source_images synthetic --target_images photos --out my_data.yaml
  segzoo data check my_data.yaml
  segzoo data prepare my_data.yaml --out prepared
  segzoo data doubts --ckpt_path runs/joint/my_data/default-s0/checkpoints/last.ckpt
  segzoo data convert pascal_horse --root VOC2010 --out data/pascal_horse

`segzoo data COMMAND --help` explains a command."""


def data(argv: list[str]) -> int:
    """Runs one of the commands.

    Raises:
        ConfigError: there is none of that name.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    name, *rest = argv
    if name not in COMMANDS:
        what = "option" if name.startswith("-") else "command"
        raise ConfigError(f"segzoo data: unknown {what} '{name}'{did_you_mean(name, COMMANDS)}")
    run: Callable[[list[str]], int] = getattr(importlib.import_module(f"segzoo.cli.data_{name}"), name)
    return run(rest)


def usage() -> str:
    """The text of ``segzoo data --help``."""
    lines = [
        "Describe, check, copy and convert data, and find wrong masks.",
        "",
        "usage: segzoo data COMMAND [OPTIONS]",
        "",
        "commands:",
    ]
    lines += [f"  {name:10} {summary}" for name, summary in COMMANDS.items()]
    return "\n".join([*lines, "", EXAMPLES])
