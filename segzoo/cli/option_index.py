"""Which options there are and what they take, read from the sources: nothing is imported, so a typo is answered at once.

What cannot be known this way (a plugin, a class of one's own, a type that is no simple one) is left to the parser, which knows
all. The index may therefore hold an option too many, never one too few.
"""

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
PARSER = PACKAGE / "cli" / "options.py"
"""Where the command's own options are."""
DATACLASSES = {
    "network": ("segzoo.models.network", "Network"),
    "optimizer": ("segzoo.methods.optimizer", "Optimizer"),
    "loss": ("segzoo.methods.loss", "Loss"),
    "speed": ("segzoo.methods.speed", "Speed"),
}
"""Module and class of the sections that methods share."""
PROTOCOL = ("segzoo.data.views", "Views")
"""Those of the section that says how images are scored."""
SIMPLE = ("int", "float", "bool", "None", "PositiveInt")


@dataclass(frozen=True)
class Kind:
    """What an option takes, where that is simple.

    Attributes:
        types: of `SIMPLE`, in the order in which the source has them.
        choices: the values of a ``Literal``.
        simple: whether that is all; else only the parser can tell.
    """

    types: tuple[str, ...] = ()
    choices: tuple[Any, ...] = ()
    simple: bool = True


@dataclass
class OptionIndex:
    """Options as they are typed, without dashes, e.g. ``optimizer.lr``.

    Attributes:
        kinds: by name.
        open: options below which anything may follow.
    """

    kinds: dict[str, Kind] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)

    def knows(self, name: str) -> bool:
        """Whether an option exists, or may."""
        parts = name.removesuffix("+").split(".")
        above = {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
        return parts[-1] == "help" or name.removesuffix("+") in self.kinds or bool(above & self.open)


def option_index(method: str | None, domains: dict[str, str | None]) -> OptionIndex:
    """The options of `segzoo fit`, `validate` and `test`.

    Args:
        method: ``"module:Class"``; None when it is not known.
        domains: import path of the class of ``source`` and ``target``, and of each of several sources (``source[1]``), None
            when it is not known.
    """
    sections = sections_of(method)
    names = ("method", *sections, "data", "protocol", "trainer", *(f"data.{domain}" for domain in domains))
    index = OptionIndex({name: Kind(simple=False) for name in names})
    index.kinds |= _own()
    _add(index, "method", _parameters(*method.split(":")) if method else None, ("label_space", *DATACLASSES))
    index.kinds["method.name"] = Kind(("str",), simple=False)
    for section in sections:
        _add(index, section, _fields(*DATACLASSES[section]), ())
    _add(
        index,
        "data",
        _parameters("segzoo.data.datamodule", "DomainDataModule"),
        ("source", "target", "seed", "protocol"),
    )
    _add(index, "protocol", _fields(*PROTOCOL), ())
    _add(index, "trainer", _trainer(), _skipped())
    for domain, path in domains.items():
        module, _, name = (path or "").rpartition(".")
        _add(index, f"data.{domain}", _parameters(module, name) if module else None, ())
    return index


def sections_of(method: str | None) -> list[str]:
    """The sections beside ``method`` that a method has; all of them where that is not known.

    Args:
        method: ``"module:Class"``; None when it is not known.
    """
    parameters = _parameters(*method.split(":")) if method else None
    return [section for section in DATACLASSES if parameters is None or section in parameters]


def protocol_texts() -> dict[str, str]:
    """What the section ``protocol`` says of each of its options, as a sentence in one line."""
    from docstring_parser import parse

    found = _find(*PROTOCOL)
    assert found is not None and isinstance(found[1], ast.ClassDef)
    said = {one.arg_name: one.description or "" for one in parse(ast.get_docstring(found[1]) or "").params}
    return {name: " ".join(said[name].split()) for name in _fields(*PROTOCOL) or {}}


def _add(index: OptionIndex, section: str, parameters: dict[str, Kind] | None, skip: tuple[str, ...]) -> None:
    if parameters is None:
        index.open.add(section)
        return
    for name, kind in parameters.items():
        if name not in skip:
            index.kinds[f"{section}.{name}"] = kind
            if not kind.simple:  # a class with options of its own, or a mapping
                index.open.add(f"{section}.{name}")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _file(module: str) -> Path | None:
    """The source of a module of segzoo."""
    if module.partition(".")[0] != "segzoo":
        return None
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _find(module: str, name: str) -> tuple[str, ast.AST] | None:
    """Where a class or an alias is defined, and its definition; imports are followed."""
    file = _file(module)
    for node in _tree(file).body if file else ():
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return module, node.value
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find(node.module, alias.name)
    return None


def _parameters(module: str, name: str) -> dict[str, Kind] | None:
    """Of a class's constructor and, where it hands ``**kwargs`` on, of its bases; None when they cannot be known."""
    found = _find(module, name)
    if found is None or not isinstance(cls := found[1], ast.ClassDef):
        return None
    module = found[0]
    init = _init(cls)
    parameters = {} if init is None else dict(_of_function(init, module))
    if init is None or init.args.kwarg:
        for base in cls.bases:
            if not isinstance(base, ast.Name):
                if init is None or init.args.kwarg:
                    return None
                continue
            inherited = _parameters(module, base.id)
            if inherited is None:
                return None
            parameters = inherited | parameters
    return parameters


def _init(cls: ast.ClassDef) -> ast.FunctionDef | None:
    found = (node for node in cls.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    return next(found, None)


def _fields(module: str, name: str) -> dict[str, Kind] | None:
    """Of a dataclass."""
    found = _find(module, name)
    if found is None or not isinstance(cls := found[1], ast.ClassDef):
        return None
    fields = [node for node in cls.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    return {node.target.id: _kind(node.annotation, found[0]) for node in fields if isinstance(node.target, ast.Name)}


def _of_function(function: ast.FunctionDef, module: str) -> Iterator[tuple[str, Kind]]:
    for argument in (*function.args.args[1:], *function.args.kwonlyargs):
        yield argument.arg, _kind(argument.annotation, module)


def _kind(node: ast.AST | None, module: str) -> Kind:
    """What an annotation allows."""
    parts: list[ast.AST | None] = []
    if isinstance(node, ast.BinOp):
        parts = [node.left, node.right]
    elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if node.value.id == "Literal" and all(isinstance(one, ast.Constant | ast.UnaryOp) for one in inner):
            return Kind(choices=tuple(ast.literal_eval(one) for one in inner))
        if node.value.id in ("Union", "Optional"):
            parts = [*inner, *([ast.Constant(None)] if node.value.id == "Optional" else [])]
    elif isinstance(node, ast.Constant) and node.value is None:
        return Kind(("None",))
    elif isinstance(node, ast.Name) and node.id in SIMPLE:
        return Kind((node.id,))
    elif isinstance(node, ast.Name) and (found := _find(module, node.id)) and not isinstance(found[1], ast.ClassDef):
        return _kind(found[1], found[0])
    kinds = [_kind(part, module) for part in parts]
    types = tuple(dict.fromkeys(one for kind in kinds for one in kind.types))
    return Kind(
        types, tuple(one for kind in kinds for one in kind.choices), bool(kinds) and all(k.simple for k in kinds)
    )


@cache
def _trainer() -> dict[str, Kind] | None:
    """Of Lightning's Trainer, whose source is found without importing it."""
    spec = importlib.util.find_spec("lightning")
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder) / "pytorch" / "trainer" / "trainer.py"
        for node in _tree(file).body if file.is_file() else ():
            if isinstance(node, ast.ClassDef) and node.name == "Trainer" and (init := _init(node)):
                return dict(_of_function(init, ""))
    return None


def _own() -> dict[str, Kind]:
    """Of the command itself: the calls of ``parser.add_argument``."""
    found = {}
    for node in ast.walk(_tree(PARSER)):
        match node:
            case ast.Call(func=ast.Attribute(attr="add_argument"), args=[ast.Constant(value=str(name)), *_]):
                types = [word.value for word in node.keywords if word.arg == "type"]
                found[name.lstrip("-")] = _kind(types[0] if types else None, "")
    return found


def _skipped() -> tuple[str, ...]:
    """The trainer's options that the command does not offer."""
    for node in _tree(PARSER).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="OWN_TRAINER_OPTIONS")], value=ast.Set(elts=elements)):
                return tuple(str(one.value) for one in elements if isinstance(one, ast.Constant))
    return ()
