"""What `import segzoo` gives, and what it does not cost."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import segzoo
from segzoo.methods.registry import load_method, methods

ROOT = Path(__file__).parents[2]
FRESH = """
import sys, time
started = time.perf_counter()
import segzoo
seconds = time.perf_counter() - started
assert 'joint' in segzoo.methods() and 'SePiCo' in dir(segzoo.methods) and 'load' in dir(segzoo)
heavy = {'torch', 'lightning', 'numpy', 'albumentations', 'cv2'} & set(sys.modules)
assert not heavy, heavy
print(seconds)
from segzoo.methods import SePiCo, registry
assert SePiCo.slug == 'sepico' and 'torch' in sys.modules and callable(segzoo.load)
"""


def test_the_import_is_fast_and_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", FRESH], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.1


def test_methods_is_a_package_and_a_function() -> None:
    assert segzoo.methods() == methods() and segzoo.methods is importlib.import_module("segzoo.methods")
    info = segzoo.methods()["sepico"]
    assert info.resources == ("source", "unlabelled") and info.target == "segzoo.methods.sepico:SePiCo" and info.summary


@pytest.mark.parametrize("slug", sorted(methods()))
def test_every_method_is_a_name_of_the_package(slug: str) -> None:
    cls = load_method(slug)
    assert getattr(segzoo.methods, cls.__name__) is cls and cls.__name__ in dir(segzoo.methods)


@pytest.mark.parametrize("package", ["segzoo", "segzoo.methods", "segzoo.inference"])
def test_editors_see_what_is_imported_late(package: str) -> None:
    """Names below ``if TYPE_CHECKING`` are those of the package, from the modules that it says."""
    module = importlib.import_module(package)
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    shown = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert shown
    for name, origin in shown.items():
        assert origin is not None
        if (package, name) == ("segzoo", "methods"):  # the package itself, of which editors see the call
            continue
        assert getattr(module, name) is getattr(importlib.import_module(origin), name)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match=r"module 'segzoo\.methods' has no attribute 'Sepico'"):
        segzoo.methods.Sepico  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Sepico'"):
        exec("from segzoo.methods import Sepico")
