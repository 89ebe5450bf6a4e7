"""Which methods there are. Free of torch, so that ``segzoo methods`` answers at once.

A method that ships with segzoo is one Python file and one ``configs/method/<slug>.yaml``; the head of that YAML names the
class, the resources that the method learns from, a one-line summary and, if it is not MiniCity, the data it runs on when the
user names none (``default_data``); the rest are its defaults. A method of one's
own is a Python file (`segzoo.methods.method_files`), or an entry point of a package, of the group ``segzoo.methods``:
``my-method = "my_package.my_method:MyMethod"``.
"""

import importlib
import sys
import warnings
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segzoo.configs import config_names, config_path
from segzoo.errors import ConfigError
from segzoo.methods.method_files import VARIABLE, class_in, import_file, method_files, module_of
from segzoo.suggest import did_you_mean
from segzoo.yaml_files import read_yaml

if TYPE_CHECKING:
    from segzoo.methods.base import Method

ENTRY_POINT_GROUP = "segzoo.methods"
HEAD = ("class", "summary", "resources")
RESOURCES = ("source", "labels", "unlabelled")
"""What a method may learn from: labelled synthetic images, the few labelled target images, and unlabelled target images."""
DEFAULT_DATA = "minicity"


@dataclass(frozen=True)
class MethodInfo:
    """What is known of a method before its code is imported.

    Attributes:
        slug: name on the command line.
        target: ``"module:Class"``.
        summary: one line.
        resources: those of `RESOURCES` that the method learns from; empty for plugins, whose class says it.
        default_data: packaged data set that it runs on when none is named.
        file: the user's own file of the method; None for those of packages.
    """

    slug: str
    target: str
    summary: str
    resources: tuple[str, ...]
    default_data: str = DEFAULT_DATA
    file: Path | None = None


def methods() -> dict[str, MethodInfo]:
    """All methods by slug: the packaged ones, then the plugins and the user's files (which cannot replace another).

    Raises:
        ConfigError: a file that `segzoo.methods.method_files` lists is none of a method, or calls it as another is called.
    """
    found = {}
    for slug in config_names("method"):
        head = _read(slug)
        data = str(head.get("default_data", DEFAULT_DATA))
        found[slug] = MethodInfo(slug, str(head["class"]), str(head["summary"]), tuple(head["resources"]), data)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in found:
            warnings.warn(f"plugin '{point.value}' ignored: the method '{point.name}' exists already", stacklevel=2)
            continue
        package = point.dist.name if point.dist else point.module
        found[point.name] = MethodInfo(point.name, point.value, f"plugin of {package}", ())
    for path in method_files():
        held = class_in(path)
        slug = held["slug"]
        if slug in found:
            raise ConfigError(f"{path}: there is a method '{slug}' already; give the class another slug")
        target = f"{module_of(slug)}:{held['name']}"
        found[slug] = MethodInfo(slug, target, held["summary"], tuple(held["resources"]), file=path)
    return found


def packaged_classes() -> list[tuple[str, str]]:
    """(module, name) of the class of every packaged method."""
    targets = [str(_read(slug)["class"]).partition(":") for slug in config_names("method")]
    return [(module, name) for module, _, name in targets]


def method_defaults(slug: str) -> dict[str, Any]:
    """The packaged defaults of a method, ready for the parser (sections ``model``, ``data``, ``trainer``); {} for a plugin."""
    if slug not in config_names("method"):
        return {}
    return {key: value for key, value in _read(slug).items() if key not in (*HEAD, "default_data")}


def load_method(slug: str) -> "type[Method]":
    """Imports the class of a method.

    Raises:
        ConfigError: no such method, or a plugin that cannot be imported or could not be used after its training.
    """
    known = methods()
    if slug not in known:
        if (own := _imported(slug)) is not None:
            return own
        raise ConfigError(
            f"unknown method '{slug}'{did_you_mean(slug, known)}; if it stands in a Python file of your own, "
            f"set {VARIABLE}=FILE.py"
        )
    module, _, name = known[slug].target.partition(":")
    try:
        if (file := known[slug].file) is not None:
            import_file(file, slug)
        cls: type[Method] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        if module.startswith("segzoo."):
            raise
        raise ConfigError(f"the plugin method '{slug}' ({known[slug].target}) cannot be imported: {error}") from error
    _check(cls, known[slug])
    return cls


def _imported(slug: str) -> "type[Method] | None":
    """A method that this process has imported itself, as scripts and notebooks do."""
    base = sys.modules.get("segzoo.methods.base")
    waiting = [base.Method] if base else []
    while waiting:
        cls = waiting.pop()
        if vars(cls).get("slug") == slug:
            return cls
        waiting += cls.__subclasses__()
    return None


def _check(cls: Any, info: MethodInfo) -> None:
    from segzoo.methods.base import Method  # imports torch

    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise ConfigError(
            f"the method '{info.slug}' ({info.target}) is no Method; derive its class from SegmentationMethod or Method"
        )
    slug, resources = getattr(cls, "slug", None), getattr(cls, "resources", None)
    if slug != info.slug:  # checkpoints are found by the slug
        raise ConfigError(
            f"{info.target} has slug = {slug!r} but its entry point is named '{info.slug}'; give both the same name"
        )
    if not isinstance(resources, tuple) or not resources or not set(resources) <= set(RESOURCES):
        raise ConfigError(f"{info.target} has resources = {resources!r}, expected a tuple of some of {RESOURCES}")


def _read(slug: str) -> dict[str, Any]:
    return deepcopy(_parsed(config_path("method", slug)))


@cache
def _parsed(path: Path) -> dict[str, Any]:
    """A packaged file, read once: a command asks for all of them some thirty times."""
    content: dict[str, Any] = read_yaml(path)
    return content
