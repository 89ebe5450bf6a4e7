"""State dicts of others: why one does not fit, said of one entry (torch's own message lists all), and a run's segmenter."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from segzoo.errors import CheckpointError
from segzoo.models.weight_files import load_tensors


def misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """The first entry that is missing, of another shape or kind of numbers, or unexpected.

    Args:
        expected: the network's own.
        found: what is to be loaded.

    Returns:
        Half a sentence, or None when all names and shapes agree.
    """
    for name, value in expected.items():
        if name not in found:
            return f"'{name}' is missing"
        if not isinstance(found[name], Tensor):
            return f"'{name}' is a {type(found[name]).__name__}, expected a tensor"
        if found[name].shape != value.shape:
            return f"'{name}' has the shape {tuple(found[name].shape)}, expected {tuple(value.shape)}"
        if _kind(found[name]) != _kind(
            value
        ):  # copied, whole numbers would lose their fractions and complex ones a part
            return f"'{name}' holds numbers of {found[name].dtype}, expected {value.dtype}"
    extra = next((name for name in found if name not in expected), None)
    return f"'{extra}' is unexpected" if extra is not None else None


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex()


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


def first_difference(saved: Sequence[str], own: Sequence[str]) -> str | None:
    """Where two lists of classes first differ, in words; None when they are the same.

    Args:
        saved: the classes of a checkpoint, in the order of their ids.
        own: those of the data.
    """
    for number, (theirs, ours) in enumerate(zip_longest(saved, own)):
        if theirs != ours:
            there, here = (f"'{name}'" if name is not None else "absent" for name in (theirs, ours))
            return f"class {number} is {there} in the checkpoint and {here} in the data"
    return None


def required(module: nn.Module) -> dict[str, Tensor]:
    """The entries that a state dict must have for a module: all but those that earlier versions did not save."""
    state = dict(module.state_dict())
    for name, part in module.named_modules():
        for late in getattr(part, "LATE", ()):
            state.pop(f"{name}.{late}" if name else late, None)
    return state


def check_state(module: nn.Module, found: Mapping[str, Tensor]) -> str | None:
    """Why a state dict cannot be loaded into a module, half a sentence; None when it can."""
    own = module.state_dict()
    return misfit(required(module) | {name: own[name] for name in found if name in own}, found)


def load_part(
    module: nn.Module, path: Path, classes: Sequence[str], part: str = "segmenter", optional: bool = False
) -> None:
    """Takes a part of a method over from a checkpoint of any segzoo run.

    Args:
        module: what is loaded.
        path: the checkpoint.
        classes: of the module's logits, in their order.
        part: its name in the method.
        optional: leave it as it is, with a warning, where the checkpoint has none.

    Raises:
        CheckpointError: no such file, damaged, not a checkpoint of segzoo, of another network, of other classes or of the same
            in another order, or with numbers that are not finite.
    """
    if path.is_dir():  # a run's folder stands for its last checkpoint
        path = path / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        content = load_tensors(path)
        state, saved = content["state_dict"], list(content["segzoo"]["label_space"]["classes"])
        found = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
    except CheckpointError:
        raise
    except Exception as error:  # torch raises whatever its unpickler and zip reader raise
        raise CheckpointError(f"{path} is not a checkpoint of `segzoo fit`") from error
    if optional and not found:
        rank_zero_warn(f"{path} has no {part}: it begins at random")
        return
    if difference := first_difference(saved, classes):
        raise CheckpointError(f"the {part} of {path} was trained on other classes: {difference}")
    if why := check_state(module, found):
        raise CheckpointError(
            f"the {part} of {path} does not fit: {why}; `network.architecture`, `network.encoder`, "
            "`network.options` and the classes must be those of its run"
        )
    if bad := non_finite(found):
        raise CheckpointError(
            f"the {part} of {path} holds numbers that are not finite, first in '{bad}': use an earlier one"
        )
    module.load_state_dict(found)


WRAPPED = "model."
"""What the names of a network of timm begin with inside an encoder of segmentation_models_pytorch."""


def _as_wrapped(content: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a whole network of timm as that of the encoder; any other one as it is."""
    if not expected or any(not name.startswith(WRAPPED) for name in expected):
        return content
    found = {f"{WRAPPED}{name}": value for name, value in content.items()}
    return {name: found[name] for name in expected} if expected.keys() <= found.keys() else content


def load_encoder(encoder: nn.Module, path: Path, name: str) -> None:
    """Takes an encoder's weights from a local state dict, strictly; those of timm also as timm publishes them, with a head.

    Args:
        encoder: what is loaded.
        path: a file of tensors alone.
        name: of the encoder, for error messages.

    Raises:
        CheckpointError: no such file, damaged, of another encoder, or with numbers that are not finite.
    """
    if not path.is_file():
        raise CheckpointError(f"no encoder checkpoint at {path}")
    try:
        content = load_tensors(path)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises whatever its unpickler and zip reader raise
        raise CheckpointError(f"{path} is not a state dict: damaged, or more than tensors and plain types") from error
    tensors = isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values())
    if tensors and (bad := non_finite(content)):
        raise CheckpointError(f"{path} holds numbers that are not finite, first in '{bad}'")
    try:
        encoder.load_state_dict(_as_wrapped(content, encoder.state_dict()) if tensors else content)
    except Exception as error:  # each encoder of segmentation_models_pytorch has its own `load_state_dict`
        reason = misfit(encoder.state_dict(), content) if tensors else "expected names and tensors alone"
        raise CheckpointError(f"{path} is not a state dict of the encoder '{name}': {reason or error}") from error
