"""Which file a user means by ``--ckpt_path``. Free of torch."""

from pathlib import Path

from segzoo.errors import CheckpointError


def checkpoint_file(path: str | Path) -> Path:
    """The checkpoint itself, or the last one of a run's folder.

    Raises:
        CheckpointError: a folder without one.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for found in (path / "checkpoints" / "last.ckpt", path / "last.ckpt"):
        if found.is_file():
            return found
    raise CheckpointError(f"{path} is a folder without checkpoints/last.ckpt; expected a run's folder or a checkpoint")
