"""The dispatcher. It answers ``--help`` and ``--version`` itself and imports a command on demand."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import segzoo
from segzoo.cli.errors import explain, speaks, translate
from segzoo.cli.method_words import named_files
from segzoo.cli.moved import MOVED_COMMANDS
from segzoo.cli.neighbour import neighbour_warning
from segzoo.cli.rundir import check_launcher
from segzoo.cli.streams import tolerant_streams
from segzoo.errors import ConfigError, NonFiniteLossError, SaidElsewhere
from segzoo.suggest import did_you_mean


class Command(NamedTuple):
    """A subcommand: where its function is, and what ``segzoo --help`` says of it.

    Attributes:
        target: ``"module:function"``; from the arguments after the command to the exit status.
        summary: one line.
    """

    target: str
    summary: str


# A new subcommand is one module and one line here.
COMMANDS = {
    "fit": Command("segzoo.cli.train:fit", "train a method, then test it on the target's test split"),
    "validate": Command("segzoo.cli.train:validate", "score a checkpoint on the target's val split"),
    "test": Command("segzoo.cli.train:test", "score a checkpoint on the target's test split"),
    "folds": Command("segzoo.cli.folds:folds", "choose and score a run's checkpoints by folds of the test images"),
    "predict": Command("segzoo.cli.predict:predict", "label a folder of images with a checkpoint"),
    "export": Command("segzoo.cli.export:export", "write a checkpoint's network as ONNX, or for torch alone"),
    "annotate": Command("segzoo.cli.annotate:annotate", "write labelled images with a gradient-annotator checkpoint"),
    "data": Command("segzoo.cli.data:data", "describe, check, convert and copy data before a training"),
    "compare": Command("segzoo.cli.compare:compare", "train several methods with the same seeds, and write a report"),
    "choose": Command(
        "segzoo.cli.choose:choose", "train the methods recommended for your images, and say which one to take"
    ),
    "sweep": Command("segzoo.cli.sweep:sweep", "search for good options with a wandb sweep, without a server"),
    "bench": Command("segzoo.cli.bench:bench", "measure the time and memory of a training step"),
    "methods": Command("segzoo.cli.methods:methods", "list the methods"),
}

# What these print is also in files: they go on when nobody can read it.
WITH_METHOD = ("fit", "validate", "test")
"""Commands with an option ``--method``; the others take it with the file of a method alone."""
WITH_FILES = ("fit", "validate", "test", "folds", "predict", "export", "annotate", "data", "compare", "choose", "sweep")

EXAMPLES = """\
examples:
  segzoo fit --method metapix                     train on embedded data, no download
  segzoo fit --method joint --method.help         list the options of a method
  segzoo test --ckpt_path runs/.../last.ckpt      score a checkpoint, which holds method and settings
  segzoo predict --ckpt_path runs/.../last.ckpt --input photos --out labelled

`segzoo COMMAND --help` explains a command. Errors are one line; --debug adds the traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments without the program's name; those of the process when absent.

    Returns:
        0, 2 after an error that a user can fix, 130 when interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = os.environ.get("SEGZOO_DEBUG", "0") not in ("", "0")
    if "--debug" in arguments:
        arguments.remove("--debug")
        debug = True
    with tolerant_streams() as out:
        status = _run(arguments, debug)
        out.flush()
        if out.error is None:
            return status
        works = bool(arguments) and arguments[0] in WITH_FILES
        if not isinstance(out.error, BrokenPipeError):  # as of `segzoo methods | head`
            then = "; the results are in files" if works else ""
            print(f"standard output cannot be written: {out.error.strerror}{then}", file=sys.stderr)
        return status if works or status else 1


def _run(arguments: list[str], debug: bool) -> int:
    try:
        return _dispatch(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        message = None if debug else explain(error)
        if message is None:
            raise
        # A loss is not finite on all processes at once: one of them says so.
        if not isinstance(error, SaidElsewhere) and not (isinstance(error, NonFiniteLossError) and not speaks()):
            print(f"error: {translate(message)}", file=sys.stderr)
        return 2


def usage() -> str:
    """The text of ``segzoo --help``."""
    lines = [(segzoo.__doc__ or "").partition("\n")[0], "", "usage: segzoo COMMAND [OPTIONS]", "", "commands:"]
    lines += [f"  {name:10} {command.summary}" for name, command in COMMANDS.items()]
    lines += ["", "  --version  print the version", "  --help     print this", "", EXAMPLES]
    return "\n".join(lines)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "--version":
        print(f"segzoo {segzoo.__version__}")
        return 0
    if name not in COMMANDS:
        if name in MOVED_COMMANDS:
            raise ConfigError(f"the command '{name}' is `segzoo {MOVED_COMMANDS[name]}` now")
        what = "option" if name.startswith("-") else "command"
        raise ConfigError(f"unknown {what} '{name}'{did_you_mean(name, COMMANDS)}")
    if (warning := neighbour_warning()) is not None and speaks():
        print(f"warning: {warning}", file=sys.stderr)
    check_launcher()
    module, _, function = COMMANDS[name].target.partition(":")
    with named_files(rest, keep=name in WITH_METHOD) as words:
        run: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
        return run(words)
