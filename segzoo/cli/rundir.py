"""Where a run writes: ``<runs>/<method>/<data>/<name>-s<seed>``. Free of torch."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from segzoo.errors import CheckpointError, ConfigError
from segzoo.runtime.lock import NAME as LOCK

# Rank zero chooses the folder; the processes that Lightning starts for it inherit this: ``<pid of rank zero>:<folder>``.
VARIABLE = "SEGZOO_RUN_DIR"
LAUNCHED = re.compile(
    r"(TORCHELASTIC|SLURM_(NTASKS|PROCID|LOCALID|NODEID|STEP)|OMPI|PMI|JSM|LSB_DJOB|MASTER)_?.*|(\w+_)?RANK|WORLD_SIZE"
)
"""Variables with which a launcher tells a process its place among others."""
NUMBERS = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "NODE_RANK",
    "GROUP_RANK",
    "MASTER_PORT",
    "SLURM_PROCID",
    "JSM_NAMESPACE_RANK",
)
"""Those that torch and Lightning read as numbers, some of them when they are imported."""


def check_launcher() -> None:
    """Looks at the variables before Lightning does; one that is empty counts as not set.

    Raises:
        ConfigError: one is no number.
    """
    for name in NUMBERS:
        value = os.environ.get(name)
        if value is not None and not value.strip():
            del os.environ[name]
        elif value is not None and not value.strip().isdecimal():
            raise ConfigError(f"the variable {name} is {value!r}, and launchers set it to a number: unset it")


def claim(parent: Path, name: str) -> Path:
    """A folder that no other run has: ``name``, else ``name-2``, ``name-3``, ...

    Args:
        parent: folder that holds the runs.
        name: wanted name.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        number, vanished = 1, 0
        while True:
            folder = parent / (name if number == 1 else f"{name}-{number}")
            parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir()  # creating it is the claim: two runs started together cannot share it
            except FileExistsError:
                number += 1
                continue
            except FileNotFoundError:  # a run that came to nothing took the empty parents with it
                vanished += 1
                if vanished > 3:
                    raise
                continue
            return folder
    except OSError as error:
        raise ConfigError(
            f"cannot write to {parent}: {error.strerror}; choose another folder with --runs or --out"
        ) from error


def create(folder: Path) -> Path:
    """The folder a user named, created when missing.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    return folder


def run_folder(checkpoint: Path) -> Path:
    """The folder of the run that wrote a checkpoint."""
    folder = checkpoint.resolve().parent
    folder = folder.parent if folder.name == "checkpoints" else folder
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def newest_checkpoint(parent: Path, name: str, seed: int) -> Path:
    """The last checkpoint of the newest run of that name and seed.

    Raises:
        CheckpointError: there is none.
    """
    pattern = re.compile(rf"{re.escape(name)}-s{seed}(?:-(\d+))?")
    found: list[tuple[int, Path]] = []
    for folder in parent.glob(f"*-s{seed}*"):
        match = pattern.fullmatch(folder.name)
        checkpoint = folder / "checkpoints" / "last.ckpt"
        if match and checkpoint.is_file():
            found.append((int(match[1] or 1), checkpoint))
    if not found:
        raise CheckpointError(
            f"no checkpoint of a run '{name}-s{seed}' below {parent}; {_elsewhere(parent)}give its path as --ckpt_path FILE"
        )
    return max(found)[1]


def _elsewhere(parent: Path) -> str:
    """Where the newest run of the same method on other data is, and what names it; empty where there is none."""
    found = [path for path in parent.parent.glob("*/*/checkpoints/last.ckpt") if path.parents[2] != parent]
    if not found:
        return ""
    run = max(found, key=lambda path: path.stat().st_mtime).parents[1]
    return f"the newest run of {parent.parent.name} on other data is {run}: add --data, or "


def missing_parents(folder: Path) -> list[Path]:
    """The folder and those above it that do not exist, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def discard_unused(folder: Path, made: Sequence[Path] = ()) -> None:
    """Removes the folder of a run that failed before its first step; anything of value in it keeps it.

    Args:
        folder: of the run.
        made: folders above it that were made for it, the innermost first; they go with it when they are empty.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    worthless = ("config.yaml", "manifest.json", "metrics.csv", LOCK)
    own = ("figures", "tensorboard", "wandb")
    if all(path.name in worthless or path.relative_to(folder).parts[0] in own for path in files):
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another run is in one of them by now
            for parent in made:
                parent.rmdir()


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a run that is started from this process: it takes no part in the one that this belongs to."""
    return {name: value for name, value in environment.items() if name != VARIABLE and not LAUNCHED.fullmatch(name)}
