"""What an import means."""

import importlib
import pkgutil
import sys

import segzoo


def test_no_module_is_hidden_by_another_thing_of_its_name() -> None:
    """``from segzoo.losses import x`` would be a function, and ``import segzoo.losses.x`` a module."""
    for info in pkgutil.walk_packages(segzoo.__path__, "segzoo."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)
    names = [name for name in sys.modules if name.startswith("segzoo.")]
    parents = [(sys.modules[name.rpartition(".")[0]], name) for name in names]
    assert not [n for parent, n in parents if getattr(parent, n.rpartition(".")[2], None) is not sys.modules[n]]
