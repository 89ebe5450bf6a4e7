"""State dicts of others: why one does not fit, said of one entry (torch's own message lists all), and a run's segmenter."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from segzoo.errors import CheckpointError


def misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """The first entry that is missing, of another shape or unexpected.

    Args:
        expected: the network's own.
        found: what is to be loaded.

    Returns:
        Half a sentence, or None when all names and shapes agree.
    """
    for name, value in expected.items():
        if name not in found:
            return f"'{name}' is missing"
        if found[name].shape != value.shape:
            return f"'{name}' has the shape {tuple(found[name].shape)}, expected {tuple(value.shape)}"
    extra = next((name for name in found if name not in expected), None)
    return f"'{extra}' is unexpected" if extra is not None else None


def load_segmenter(segmenter: nn.Module, path: Path) -> None:
    """Takes the segmenter over from a checkpoint of any segzoo run.

    Raises:
        CheckpointError: no such file, not a checkpoint of segzoo, or of another network.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state = {k.removeprefix("segmenter."): v for k, v in content["state_dict"].items() if k.startswith("segmenter.")}
    except Exception as error:  # torch raises whatever its unpickler and zip reader raise
        raise CheckpointError(f"{path} is not a checkpoint of `segzoo fit`") from error
    if why := misfit(segmenter.state_dict(), state):
        raise CheckpointError(
            f"the segmenter of {path} does not fit: {why}; --method.architecture, --method.encoder, "
            "--method.segmenter_options and the classes must be those of its run"
        )
    segmenter.load_state_dict(state)
