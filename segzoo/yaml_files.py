"""The one way that YAML is read and written: what could be meant in two ways is an error. Free of torch.

Numbers are those of YAML 1.2 and of flags: ``1e-4`` is one, ``0123`` is 123 and not octal, ``12:30`` and ``2024-01-01`` are
texts.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from segzoo.errors import ConfigError

MAX_BYTES = 2**20
MAX_DEPTH = 50
MAX_NODES = 100_000  # values after all aliases are written out; the largest packaged file has some hundred
PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}
INT = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)$")
FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)


QUOTELESS = re.compile(r":[ \t]*\{\w+\}[^\s,#}]")
"""``images: {split}/image``: YAML takes the brace for the begin of a mapping."""


class _Loader(yaml.SafeLoader):
    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node)).replace("_", "")
        return int(text, 10 if text.lstrip("+-").isdigit() else 0)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _add_numbers(cls: Any) -> None:
    cls.add_implicit_resolver("tag:yaml.org,2002:int", INT, list("-+0123456789"))
    cls.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))


REPLACED = {f"tag:yaml.org,2002:{name}" for name in ("timestamp", "value", "int", "float")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag not in REPLACED]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_add_numbers(_Loader)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_add_numbers(_Dumper)  # beside PyYAML's own: it quotes texts that either of the two would take for something else


def read_yaml(path: Path, what: str = "configuration") -> Any:
    """The content of a YAML file; None for an empty one.

    Args:
        path: the file.
        what: it is, for error messages.

    Raises:
        ConfigError: it cannot be read, is too large, or :func:`parse_yaml` refuses it; the message names the file.
    """
    try:
        if path.is_dir():
            raise ConfigError(f"cannot read the {what} {path}: it is a folder; expected a YAML file")
        if path.is_fifo() or path.is_socket():  # opening it would wait for somebody to write
            raise ConfigError(f"cannot read the {what} {path}: it is a named pipe or a socket; expected a YAML file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot read the {what} {path}: {reason}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"cannot read the {what} {path}: it is larger than 1 MiB; expected a few lines of YAML")
    try:
        return parse_yaml(content.decode("utf-8-sig"), f"the {what} {path}")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the {what} {path} is not a text file with YAML: save it as UTF-8") from error


def parse_yaml(text: str, where: str) -> Any:
    """The content of a YAML text; None for an empty one.

    Args:
        text: one document of plain values.
        where: what error messages call it.

    Raises:
        ConfigError: no valid YAML, a key that stands twice in one mapping, or aliases that repeat so much that they cannot be
            meant.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, loader, where, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem = str(error.problem)
        if "found another document" in problem:
            problem = "a second document begins ('---'); expected one"
        elif "'\\t'" in problem:
            problem = "a tab, where YAML allows spaces only"
        elif error.problem_mark and QUOTELESS.search("\n".join(text.splitlines()[: error.problem_mark.line + 1][-2:])):
            problem += "; a value that begins with '{' has to be quoted"
        elif "mapping values are not allowed" in problem:
            problem += "; a name with ': ' in it has to be quoted"
        raise ConfigError(f"{where} is not valid YAML: {line}{problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not a text file with YAML") from error
    except RecursionError as error:
        raise ConfigError(f"{where} is not valid YAML: it is nested too deeply") from error
    except (ValueError, KeyError) as error:  # of one value: `!!bool maybe`, a number of thousands of digits
        raise ConfigError(f"{where} is not valid YAML: {str(error).split(';')[0]}") from error


def dump_yaml(content: Any) -> str:
    """YAML text that :func:`parse_yaml` reads back as the same values, in the order of the keys."""
    text: str = yaml.dump(content, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)
    return text


def _check(node: yaml.Node, loader: _Loader, where: str, sizes: dict[yaml.Node, int], depth: int = 0) -> int:
    """The number of values below a node, all aliases written out; refuses keys that stand twice."""
    if node in sizes:
        if not sizes[node]:
            raise ConfigError(f"{where}: line {_line(node)}: what '&' names here holds itself")
        return sizes[node]
    if depth > MAX_DEPTH:
        raise ConfigError(f"{where} is not valid YAML: line {_line(node)}: it is nested too deeply")
    if node.tag not in PLAIN:
        raise ConfigError(f"{where}: line {_line(node)}: expected a plain value, found one with the tag {node.tag}")
    sizes[node] = 0
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, loader, where)
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    sizes[node] = 1 + sum(_check(child, loader, where, sizes, depth + 1) for child in children)
    if sizes[node] > MAX_NODES:
        raise ConfigError(
            f"{where}: line {_line(node)}: more than {MAX_NODES} values, once its aliases are written out"
        )
    return sizes[node]


def _check_keys(node: yaml.MappingNode, loader: _Loader, where: str) -> None:
    lines: dict[Any, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        name = loader.construct_object(key)  # not the text: 1 and 0x1 are the same key
        if name in lines:
            raise ConfigError(
                f"{where}: line {_line(key)}: the key '{key.value}' stands already in line {lines[name]}; keep one of them"
            )
        lines[name] = _line(key)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def is_text(text: str) -> bool:
    """Whether a text could be in a YAML: names of files may be bytes that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
