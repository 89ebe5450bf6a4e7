"""Ways to make the bad inputs of `test_bad_inputs`."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from tests.cli.conftest import SPACE

Prepare = Callable[[Path, Path], None]
"""Makes the bad input in the working directory, from the folders of the toy data and of a run on them."""


def nothing(toy: Path, run: Path) -> None:
    """The command line alone is wrong."""


def text(content: str) -> Prepare:
    """A file of one's own, ``own.yaml``."""
    return lambda toy, run: Path("own.yaml").write_text(content) and None


def space(**changes: Any) -> Prepare:
    """The toy label space with other entries."""
    return text(yaml.safe_dump(SPACE | changes, sort_keys=False))


def data(spoil: Callable[[Path], Any]) -> Prepare:
    """A spoiled copy of the toy data, ``data``."""

    def prepare(toy: Path, run: Path) -> None:
        shutil.copytree(toy, "data")
        spoil(Path("data"))

    return prepare


def spoiled(spoil: Callable[[dict[str, Any]], Any]) -> Prepare:
    """A spoiled copy of a checkpoint, ``bad.ckpt``."""

    def prepare(toy: Path, run: Path) -> None:
        content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        spoil(content)
        torch.save(content, "bad.ckpt")

    return prepare


def weights(content: Any) -> Prepare:
    """A file of weights, ``weights.pt``."""
    return lambda toy, run: torch.save(content, "weights.pt")


def save(path: Path, pixels: Any) -> None:
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def photos(toy: Path, run: Path) -> None:
    shutil.copytree(toy / "real" / "test" / "image", "photos")


def pipe(name: str) -> Prepare:
    return lambda toy, run: os.mkfifo(name)


def listening(toy: Path, run: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("own.yaml")


def link(name: str, target: str) -> Prepare:
    return lambda toy, run: Path(name).symlink_to(target)


def run_without_checkpoints(toy: Path, run: Path) -> None:
    shutil.copytree(run, "run")
    shutil.rmtree("run/checkpoints")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def another_file(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)
