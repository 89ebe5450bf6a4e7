"""State dicts of others: why one does not fit, said of one entry (torch's own message lists all), and a run's segmenter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
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


def non_finite(state: Mapping[str, Any]) -> str | None:
    """The first tensor that holds a NaN or an infinity, by its name.

    Args:
        state: a state dict, possibly nested (that of an optimiser is).

    Returns:
        Its name, with dots between the levels; None when all numbers are finite.
    """
    tensors = _floats(state)
    # One answer per device: to wait for every tensor by itself would take long on a GPU.
    found: dict[torch.device, list[Tensor]] = {}
    for value in tensors.values():
        found.setdefault(value.device, []).append(torch.isfinite(value).all())
    if all(bool(torch.stack(answers).all()) for answers in found.values()):
        return None
    return next(name for name, value in tensors.items() if not bool(torch.isfinite(value).all()))


def _floats(state: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """The tensors of floating-point or complex numbers of a nested state dict, by their names with dots."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            found |= _floats(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
            found[f"{prefix}{name}"] = value
    return found


def load_part(module: nn.Module, path: Path, part: str = "segmenter", optional: bool = False) -> None:
    """Takes a part of a method over from a checkpoint of any segzoo run.

    Args:
        module: what is loaded.
        path: the checkpoint.
        part: its name in the method.
        optional: leave it as it is, with a warning, where the checkpoint has none.

    Raises:
        CheckpointError: no such file, not a checkpoint of segzoo, or of another network.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    except Exception as error:  # torch raises whatever its unpickler and zip reader raise
        raise CheckpointError(f"{path} is not a checkpoint of `segzoo fit`") from error
    found = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
    if optional and not found:
        rank_zero_warn(f"{path} has no {part}: it begins at random")
        return
    if why := misfit(module.state_dict(), found):
        raise CheckpointError(
            f"the {part} of {path} does not fit: {why}; --method.architecture, --method.encoder, "
            "--method.segmenter_options and the classes must be those of its run"
        )
    module.load_state_dict(found)
