"""Checkpoints, read back: what segzoo puts in beside the weights, and the trained method itself."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version
from torch import Tensor

import segzoo
from segzoo.checkpoint_path import checkpoint_file
from segzoo.data.label_spaces import LabelSpace
from segzoo.errors import CheckpointError, SegzooError
from segzoo.inference.logits import out_of_memory
from segzoo.methods.registry import load_method
from segzoo.models.weight_files import load_tensors
from segzoo.runtime.device import find_device

if TYPE_CHECKING:
    from segzoo.methods.base import Method

Size = tuple[int, int]


def load_checkpoint(path: Path | str, device: str = "auto") -> "tuple[Method, Size | None]":
    """The trained method in evaluation mode, and the (height, width) of its input.

    Args:
        path: checkpoint of ``segzoo fit`` or of a `lightning.Trainer` with a method of segzoo, or the folder of such a run.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        CheckpointError: the file cannot be read, is damaged, does not fit the method, or holds numbers that are not finite.
        ConfigError: an unknown or absent device.
    """
    path = checkpoint_file(path)
    content, saved = _read(path)
    target = find_device(device)
    cls = load_method(saved["method"])
    try:
        method = cls.restored(content["hyper_parameters"])
        method.on_load_checkpoint(content)
        method.load_state_dict(content["state_dict"])
    except SegzooError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # options that are broken, or of another version, break wherever they are used
        if out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} does not fit the method '{saved['method']}' of segzoo: {reason}") from error
    method.run_config = saved["config"]
    method.eval().to(target)
    return method, tuple(saved["size"]) if saved.get("size") else None


def trained_on(method: "Method") -> dict[str, Any]:
    """The options of the target's class in a loaded method's training; {} where the checkpoint does not say."""
    target = ((method.run_config or {}).get("data") or {}).get("target")
    options = target.get("init_args", target) if isinstance(target, Mapping) else {}
    return dict(options or {})


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """The entry ``segzoo``: ``method``, ``version``, ``label_space``, ``size``, ``config``; and ``options``, the method's own.

    ``config`` is None in a checkpoint that was written from Python.

    Raises:
        CheckpointError: the file cannot be read, is damaged, holds more than tensors and plain types, is not segzoo's, or lacks
            what every checkpoint of segzoo has.
    """
    content, saved = _read(Path(path))
    return saved | {"options": content["hyper_parameters"]}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint, and what segzoo wrote into it."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    if not zipfile.is_zipfile(path):  # torch.save writes a zip file, whose index is at its end
        raise CheckpointError(f"{path} is not a checkpoint, or it was cut off; expected a file of `segzoo fit`")
    try:
        # Mapped, not loaded: the weights are copied once, later, by Lightning.
        content = load_tensors(path)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises whatever its unpickler and zip reader raise
        # Its own words advise to switch the safe reading off.
        why = "it is damaged, or holds more than tensors and plain types"
        raise CheckpointError(f"{path} is not a readable checkpoint: {why}; expected a file of `segzoo fit`") from error
    saved = content.get("segzoo") if isinstance(content, dict) else None
    if not isinstance(saved, dict) or not isinstance(saved.get("method"), str) or not saved["method"]:
        raise CheckpointError(f"{path} is not a checkpoint of segzoo; expected one that `segzoo fit` wrote")
    if broken := _broken(content, saved):
        raise CheckpointError(f"{path} is not as `segzoo fit` writes it: {broken}")
    if isinstance(saved.get("config"), str) or isinstance(content["hyper_parameters"].get("optimizer"), str):
        raise CheckpointError(
            f"{path} is of version {saved.get('version')} of segzoo, whose options had other names: this version "
            f"({segzoo.__version__}) can use its weights alone, as `network.initial_checkpoint` of a new run"
        )
    return content, saved


def _broken(content: Mapping[str, Any], saved: Mapping[str, Any]) -> str | None:
    """What is missing, or not of its kind."""
    state = content.get("state_dict")
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        return "it has no weights, 'state_dict'"
    options = content.get("hyper_parameters")
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        return "it has no options of the method, 'hyper_parameters'"
    try:
        Version(content["pytorch-lightning_version"])
    except (KeyError, TypeError, InvalidVersion):
        return "it has no 'pytorch-lightning_version'"
    return _broken_space(saved.get("label_space"), options.get("label_space")) or _broken_run(saved)


def _broken_space(space: Any, used: Any) -> str | None:
    try:
        LabelSpace.from_dict(space)
    except Exception as error:  # of a broken description, whatever breaks
        return f"its label space cannot be read ({type(error).__name__}: {error})"
    return None if used == space else "its label space is not that of its method"


def _broken_run(saved: Mapping[str, Any]) -> str | None:
    size = saved.get("size")
    if size is not None and not (
        isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    ):
        return f"its input size is {size!r}, expected height and width"
    config = saved.get("config")
    if not isinstance(config, Mapping | str | None):
        return f"its configuration must hold sections, found {config!r}"
    data = config.get("data") if isinstance(config, Mapping) else None
    return (
        None if isinstance(data, Mapping | None) else f"'data' in its configuration must be a section, found {data!r}"
    )
