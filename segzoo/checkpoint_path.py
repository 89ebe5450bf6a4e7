"""Which file is meant by the path of a checkpoint or of a run. Free of torch."""

from pathlib import Path

from segzoo.errors import CheckpointError


def checkpoint_file(path: str | Path) -> Path:
    """The checkpoint itself, or the last one of a run's folder.

    A run's folder is one of `segzoo fit`, with ``checkpoints/last.ckpt``, or one of a plain `lightning.Trainer`
    (``lightning_logs/version_0``), whose only checkpoint has the name of its step.

    Raises:
        CheckpointError: a folder without one, or with several of which none is the last.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for folder in (path / "checkpoints", path):
        if (folder / "last.ckpt").is_file():
            return folder / "last.ckpt"
        found = sorted(folder.glob("*.ckpt"))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(file.name for file in found[:5])
            raise CheckpointError(
                f"{folder} holds {len(found)} checkpoints ({names}) and no last.ckpt; name one of them"
            )
    raise CheckpointError(f"{path} is a folder without checkpoints/last.ckpt; expected a run's folder or a checkpoint")
