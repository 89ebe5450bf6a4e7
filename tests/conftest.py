"""Settings and fixtures for all tests."""

import os
import sys

# Before torch: two test processes share two cores, and threads that wait for each other are slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from contextlib import suppress
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


@pytest.fixture(autouse=True)
def _no_run_of_wandb_is_left() -> Iterator[None]:
    yield
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        with suppress(Exception, SystemExit):
            wandb.teardown()
        wandb.run = None


@pytest.fixture
def shared() -> Path:
    """The folder of real data sets and weights, which is not part of the repository."""
    folder = Path(os.environ.get("SEGZOO_SHARED", "../shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data at {folder}; set SEGZOO_SHARED")
    return folder
