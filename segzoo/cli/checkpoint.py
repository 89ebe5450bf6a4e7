"""What segzoo puts into a checkpoint beside the weights, read back."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from segzoo.errors import CheckpointError


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The entry ``segzoo``: ``method``, ``version``, ``label_space``, ``size`` and ``config`` (YAML text).

    Raises:
        CheckpointError: the file cannot be read, holds more than tensors and plain types, or is not segzoo's.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    if not zipfile.is_zipfile(path):  # torch.save writes a zip file, whose index is at its end
        raise CheckpointError(f"{path} is not a checkpoint, or it was cut off; expected a file of `segzoo fit`")
    try:
        # Mapped, not loaded: the weights are read once, later, by Lightning.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises whatever its unpickler and zip reader raise
        # Its own words advise to switch the safe reading off.
        why = "it is damaged, or holds more than tensors and plain types"
        raise CheckpointError(f"{path} is not a readable checkpoint: {why}; expected a file of `segzoo fit`") from error
    saved = content.get("segzoo") if isinstance(content, dict) else None
    if not isinstance(saved, dict) or not saved.get("method"):
        raise CheckpointError(f"{path} is not a checkpoint of segzoo; expected one that `segzoo fit` wrote")
    return saved
