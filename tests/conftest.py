"""Settings and fixtures for all tests."""

import os

# Before torch: two test processes share two cores, and threads that wait for each other are slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _restore_global_seed() -> Iterator[None]:
    before = os.environ.get("PL_GLOBAL_SEED")
    yield
    os.environ.pop("PL_GLOBAL_SEED", None)
    if before is not None:
        os.environ["PL_GLOBAL_SEED"] = before


@pytest.fixture
def shared() -> Path:
    """The folder of real data sets and weights, which is not part of the repository."""
    folder = Path(os.environ.get("SEGZOO_SHARED", "../shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data at {folder}; set SEGZOO_SHARED")
    return folder
