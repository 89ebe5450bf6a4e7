"""Pages, and parts of pages, that are taken from the code, so that they cannot say something else."""

import contextlib
import inspect
import io
import re
import sys
from typing import Any, get_args, get_origin, get_type_hints

from docstring_parser import parse

from docs.site.api import api_pages
from segzoo.adaptation import Night, PseudoLabels
from segzoo.cli.data import COMMANDS as DATA_COMMANDS
from segzoo.cli.main import COMMANDS, main
from segzoo.data import DomainDataModule, PairedFolders, Views
from segzoo.methods.loss import Loss
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.registry import load_method, methods
from segzoo.methods.speed import Speed
from segzoo.models.network import Network

SECTIONS: dict[str, tuple[type, str]] = {
    "network": (Network, "which network is trained"),
    "optimizer": (Optimizer, "how it learns"),
    "loss": (Loss, "by which loss it learns from labels"),
    "speed": (Speed, "what changes only time and memory"),
    "data": (DomainDataModule, "images, labels, crops and batches"),
    "data.source, data.target": (PairedFolders, "folders of images and masks"),
    "protocol": (Views, "how images are scored and labelled"),
    "method.pseudo": (PseudoLabels, "labels that a teacher gives, in methods that have one"),
    "method.night": (Night, "reference images of the same places by day"),
}
SHARED = ("label_space", "network", "optimizer", "loss", "speed", "source", "target", "protocol", "seed")
"""What has a section of its own, or comes from the command."""
EQUATIONS, OPTIONS, TAKES, METHODS = (f"<!-- {name} -->" for name in ("equations", "options", "takes", "methods"))
RESOURCES = {"source": "synthetic images", "labels": "labelled target images", "unlabelled": "unlabelled target images"}


def fill(slug: str, text: str) -> str:
    """A page about a method, with the equations and options of its code in the place of the two marks.

    Args:
        slug: name of the page, which is the method's.
        text: the page.
    """
    text = _fill(text, METHODS, methods_table())
    if EQUATIONS not in text:
        return text
    cls = load_method(slug)
    module = sys.modules[cls.__module__]
    parts = {
        EQUATIONS: inspect.cleandoc(module.__doc__ or ""),
        OPTIONS: options_table(cls),
        TAKES: takes(slug),
    }
    for mark, part in parts.items():
        text = _fill(text, mark, part)
    return text


def _fill(text: str, mark: str, part: str) -> str:
    # Behind a mark stands what readers of the repository see in its place.
    return re.sub(rf"^{mark}.*$", lambda _: part, text, flags=re.MULTILINE)


def takes(slug: str) -> str:
    """One line on what a method learns from.

    Args:
        slug: its name.
    """
    return "It learns from " + " and ".join(RESOURCES[name] for name in methods()[slug].resources) + "."


def methods_table() -> str:
    """All methods, with what each learns from."""
    rows = ["| method | source | target labels | unlabelled target | idea |", "|---|:-:|:-:|:-:|---|"]
    for slug, info in methods().items():
        marks = " | ".join("✓" if name in info.resources else " " for name in RESOURCES)
        rows.append(f"| [`{slug}`]({slug}.md) | {marks} | {info.summary} |")
    return "\n".join(rows)


def generated_pages() -> dict[str, str]:
    """The pages that nobody wrote, by their file's name."""
    return {"command_line.md": command_page(), "options.md": options_page(), **api_pages()}


def command_page() -> str:
    """What every command prints with ``--help``."""
    parts = [
        "# Command line",
        "This page shows the `--help` of every command. [Options](options.md) has every option.",
    ]
    parts += ["## segzoo", f"```text\n{printed(['--help'])}\n```"]
    for name in COMMANDS:
        parts += [f"## segzoo {name}", f"```text\n{printed([name, '--help'])}\n```"]
        for command in DATA_COMMANDS if name == "data" else ():
            parts += [f"### segzoo data {command}", f"```text\n{printed(['data', command, '--help'])}\n```"]
    return "\n\n".join(parts) + "\n"


def printed(arguments: list[str]) -> str:
    """What a command prints.

    Args:
        arguments: those after ``segzoo``.
    """
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main(arguments)
    return out.getvalue().strip()


def options_page() -> str:
    """Every option of the sections that methods share."""
    head = """# Options

This page lists the options that methods share. An option has the same name on the command line (`--loss.overlap lovasz`), in
a YAML (`loss: {overlap: lovasz}`) and in Python (`loss={"overlap": "lovasz"}`). Options of one method are on [its
page](methods/index.md). Defaults are those of the classes; a run on photographs starts from [other values](defaults.md)."""
    parts = [head]
    for name, (cls, what) in SECTIONS.items():
        first = name.partition(",")[0]
        parts += [
            f"## `{name}`: {what}",
            f"On the command line, each option is `--{first}.OPTION`.",
            options_table(cls),
        ]
    parts += [
        "## `trainer`",
        "These are the arguments of "
        "[`lightning.Trainer`](https://lightning.ai/docs/pytorch/stable/common/trainer.html#trainer-flags), "
        "such as `--trainer.max_steps 4000`, `--trainer.precision bf16-mixed` or `--trainer.devices 2`.",
    ]
    return "\n\n".join(parts) + "\n"


def options_table(cls: type) -> str:
    """The options of a class as a table.

    Args:
        cls: whose constructor takes them, and whose docstring explains each.
    """
    said = {p.arg_name: " ".join((p.description or "").split()) for p in parse(cls.__doc__ or "").params}
    constructor: Any = cls.__init__
    hints = get_type_hints(constructor)
    rows = ["| option | values | default | what it does |", "|---|---|---|---|"]
    for name, parameter in inspect.signature(cls).parameters.items():
        if name in SHARED or parameter.kind is parameter.VAR_KEYWORD:
            continue
        default = "required" if parameter.default is parameter.empty else f"`{_value(parameter.default)}`"
        rows.append(f"| `{name}` | {_cell(values(hints.get(name)))} | {_cell(default)} | {_cell(said.get(name, ''))} |")
    return "\n".join(rows) if len(rows) > 2 else "It has no options of its own."


def values(hint: Any) -> str:
    """What an option takes, in words.

    Args:
        hint: its type.
    """
    if hint is type(None):
        return "null"
    arguments = get_args(hint)
    if get_origin(hint) is None:
        return str(
            {"int": "whole number", "float": "number", "bool": "true, false", "str": "text"}.get(
                name := _name(hint), name
            )
        )
    if all(not isinstance(value, type) and isinstance(value, str | int | float) for value in arguments):
        return ", ".join(f"`{value}`" for value in arguments)
    if str(get_origin(hint)) in ("typing.Union", "<class 'types.UnionType'>", "<class 'typing.Union'>"):
        return ", ".join(dict.fromkeys(values(argument) for argument in arguments))
    return {"list": "list", "tuple": "list", "dict": "mapping"}.get(
        _name(get_origin(hint)), _name(get_origin(hint)).lower()
    )


def _name(hint: Any) -> str:
    return str(getattr(hint, "__name__", hint))


def _value(default: Any) -> str:
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    text = str(default)
    return text if len(text) < 40 else f"{type(default).__name__}()"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
