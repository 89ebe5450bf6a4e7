"""The same training step in other libraries: a file of adapters, one for each. Free of torch."""

import importlib.util
import re
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import segzoo
from segzoo.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from segzoo.bench.problem import Problem

Step = Callable[[], "Sequence[Tensor]"]
"""One training step; returns the gradient that the weight network's parameters were updated with."""


class Peer(NamedTuple):
    """The same training step, written with another library.

    Attributes:
        build: makes the step; imports the library.
        distribution: the library's name on the package index.
        minimum: the oldest version that the adapter fits.
        install: the arguments of ``pip install``.
    """

    build: "Callable[[Problem], Step]"
    distribution: str
    minimum: str
    install: str

    def installed(self) -> str | None:
        """The version that is installed."""
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return None

    def missing(self) -> str | None:
        """Why it cannot be measured, and the command that changes that; None if it can."""
        found = self.installed()
        if found is None:
            return f"not installed: pip install {self.install}"
        if _numbers(found) < _numbers(self.minimum):
            return f"needs {self.distribution} {self.minimum}, found {found}: pip install {self.install}"
        return None


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def default_peers() -> Path | None:
    """The adapters of a checkout; they are no part of an installed wheel."""
    path = Path(segzoo.__file__).resolve().parents[1] / "tests" / "benchmarks" / "peers.py"
    return path if path.is_file() else None


def load_peers(path: Path | None) -> dict[str, Peer]:
    """The adapters of a file that defines ``PEERS``, a dict of `Peer` by name; {} without a file.

    Raises:
        ConfigError: no such file, or no such dict in it.
    """
    if path is None:
        return {}
    spec = importlib.util.spec_from_file_location("segzoo_bench_peers", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file; expected one that defines PEERS")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    peers: dict[str, Peer] | None = getattr(module, "PEERS", None)
    if peers is None:
        raise ConfigError(f"{path} defines no PEERS; expected a dict of segzoo.bench.peers.Peer by name")
    return peers
