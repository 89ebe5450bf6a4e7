"""What segzoo puts into a checkpoint beside the weights, with a configuration that the command can use."""

from pathlib import Path
from typing import Any

from segzoo.cli.sections import carried_config
from segzoo.inference.checkpoints import read_checkpoint as read


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """See `segzoo.inference.checkpoints.read_checkpoint`.

    Of a checkpoint that was written from Python ``config`` is None; ``model`` are then the method's options.

    Raises:
        CheckpointError: see there, and a configuration that is none.
    """
    saved = read(path)
    carried_config(saved, Path(path))
    if saved.get("config") is None:
        options = saved["options"].items()
        saved["model"] = {key: value for key, value in options if key != "label_space" and not key.startswith("_")}
    return saved
