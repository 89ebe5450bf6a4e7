"""Names of a package that are imported when they are first used, so that importing the package does not import torch."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy(
    package: str, modules: Callable[[], Mapping[str, str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    For editors and type checkers the package imports the same names below ``if TYPE_CHECKING``.

    Args:
        package: its ``__name__``.
        modules: gives the module of every name.
    """

    def getattr_(name: str) -> Any:
        if name.startswith("__") or name not in (known := modules()):
            raise AttributeError(f"module '{package}' has no attribute '{name}'", name=name, obj=None)
        return getattr(importlib.import_module(known[name]), name)

    def dir_() -> list[str]:
        return sorted({*(name for name in vars(importlib.import_module(package)) if name.startswith("__")), *modules()})

    return getattr_, dir_
