"""What segzoo puts into a checkpoint beside the weights, read back."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version
from torch import Tensor

import segzoo
from segzoo.cli.sections import RESTORED, SHARED, carried_config
from segzoo.data.label_spaces import LabelSpace
from segzoo.errors import CheckpointError
from segzoo.models.weight_files import load_tensors


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """The entry ``segzoo``: ``method``, ``version``, ``label_space``, ``size`` and ``config``, and what else a run takes from it.

    Of a checkpoint that was written from Python ``config`` is None; ``options`` are then the sections of its method. ``restored``
    are the arguments of the method's constructor that only a checkpoint gives.

    Raises:
        CheckpointError: the file cannot be read, is damaged, holds more than tensors and plain types, is not segzoo's, or lacks
            what every checkpoint of segzoo has.
    """
    path = Path(path)
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
    options = content["hyper_parameters"]
    if isinstance(saved.get("config"), str) or isinstance(options.get("optimizer"), str):
        raise CheckpointError(
            f"{path} is of version {saved.get('version')} of segzoo, whose options had other names: this version "
            f"({segzoo.__version__}) can use its weights alone, as `network.initial_checkpoint` of a new run"
        )
    shared, restored = ({name: options[name] for name in names if name in options} for names in (SHARED, RESTORED))
    others = ("label_space", *shared, *restored)
    own = {name: value for name, value in options.items() if name not in others and not name.startswith("_")}
    found = {**saved, "options": {"method": own, **shared}, "restored": restored}
    carried_config(found, path)  # may not be one
    return found


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
    return None
