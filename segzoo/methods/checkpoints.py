"""What a checkpoint must hold, and agree in with a method, before anything of it is used; and that there is one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from segzoo.data.label_spaces import LabelSpace
from segzoo.errors import CheckpointError
from segzoo.methods.length import training_steps
from segzoo.methods.optimizer import Optimizer
from segzoo.models.state_dicts import check_state, first_difference, non_finite

NEEDED_TO_CONTINUE = ("optimizer_states", "lr_schedulers", "loops", "epoch", "global_step")
"""What the trainer continues from, beside the weights."""


class Checked(Protocol):
    """What is asked of a method."""

    slug: ClassVar[str]
    label_space: LabelSpace
    optimizer_options: Optimizer

    @property
    def trainer(self) -> L.Trainer: ...
    def state_dict(self) -> Mapping[str, Any]: ...
    def optimizer_groups(self) -> list[dict[str, Any]]: ...


def check_weights(method: Checked, checkpoint: Mapping[str, Any], name: str) -> None:
    """Refuses the checkpoint of another method, of other classes, of another network, or with numbers that are none.

    Args:
        method: what is to be loaded.
        checkpoint: as it was read.
        name: what messages call it.

    Raises:
        CheckpointError: see there.
    """
    saved = checkpoint.get("segzoo")
    if not isinstance(saved, Mapping) or not isinstance(saved.get("method"), str):
        raise CheckpointError(f"{name} is not a checkpoint of segzoo")
    if saved["method"] != method.slug:
        raise CheckpointError(f"{name} is of the method '{saved['method']}', not of '{method.slug}'")
    check_classes(saved, method.label_space, name)
    state = checkpoint.get("state_dict")
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{name} holds no weights (no 'state_dict')")
    if why := check_state(cast(nn.Module, method), state):
        raise CheckpointError(
            f"{name} does not fit the network: {why}; leave out `network.architecture` and whatever else "
            "changes the network, it comes with the checkpoint"
        )
    if bad := non_finite(state):
        raise CheckpointError(f"{name} holds numbers that are not finite, first in '{bad}': use an earlier one")


def check_classes(saved: Mapping[str, Any], space: LabelSpace, name: str) -> None:
    """Refuses a checkpoint of other classes, or of the same ones in another order.

    Args:
        saved: the checkpoint's entry ``segzoo``.
        space: the classes of the data.
        name: what messages call the checkpoint.

    Raises:
        CheckpointError: the message names the first class that differs.
    """
    classes = (saved.get("label_space") or {}).get("classes")
    if not isinstance(classes, Sequence):
        raise CheckpointError(f"{name} does not say which classes it knows")
    if difference := first_difference(classes, space.classes):
        raise CheckpointError(f"{name} was trained on other classes: {difference}")


def check_progress(method: Checked, checkpoint: Mapping[str, Any], name: str) -> None:
    """Refuses a checkpoint that a training cannot continue from as if it had never stopped.

    Args:
        method: what is trained, attached to its trainer.
        checkpoint: as it was read.
        name: what messages call it.

    Raises:
        CheckpointError: a part is missing, broken, or of another optimiser.
    """
    own, saved = method.optimizer_options.name, checkpoint.get("hyper_parameters", {}).get("optimizer")
    other = saved.get("name", own) if isinstance(saved, Mapping) else own
    if other != own:
        raise CheckpointError(f"{name} was trained with `optimizer.name` {other}, not {own}; leave the option out")
    why = _missing(method.trainer, checkpoint) or _other_optimizer(method, checkpoint["optimizer_states"])
    if why:
        raise CheckpointError(
            f"{name} cannot be continued: {why}; begin a new run at its weights with `network.initial_checkpoint`"
        )
    steps = training_steps(method.trainer)
    if steps is not None and checkpoint["global_step"] > steps:
        raise CheckpointError(
            f"{name} is of step {checkpoint['global_step']}, and the training would end at step {steps} (`trainer.max_steps`): "
            "give it more steps, or score it with `segzoo test`"
        )
    if bad := non_finite({str(i): state for i, state in enumerate(checkpoint["optimizer_states"])}):
        raise CheckpointError(
            f"{name} holds numbers that are not finite, first in 'optimizer_states.{bad}': use an earlier one"
        )


def save_if_none(trainer: L.Trainer) -> None:
    """Saves a training that ends before Lightning's own callback, which waits for a validation, has saved anything."""
    callback = trainer.checkpoint_callback
    if type(callback) is ModelCheckpoint and callback.dirpath and not callback.best_model_path:
        trainer.save_checkpoint(Path(callback.dirpath) / "last.ckpt")


def _missing(trainer: L.Trainer, checkpoint: Mapping[str, Any]) -> str | None:
    for part in NEEDED_TO_CONTINUE:
        if part not in checkpoint:
            return f"it has no '{part}'"
    for part in ("optimizer_states", "lr_schedulers"):
        content = checkpoint[part]
        if not isinstance(content, list) or len(content) != 1 or not isinstance(content[0], Mapping):
            return f"'{part}' is not the state of one"
    for part in ("epoch", "global_step"):
        if not _is_count(checkpoint[part]):
            return f"its '{part}' is {checkpoint[part]!r}, expected a whole number"
    schedule = checkpoint["lr_schedulers"][0]
    if not _is_count(schedule.get("last_epoch")):
        return "'lr_schedulers' has no 'last_epoch' that is a number"
    if not all(_is_rate(rate) for part in ("base_lrs", "_last_lr") for rate in schedule.get(part) or (None,)):
        return "'lr_schedulers' has a learning rate that is none"
    if absent := _absent({"fit_loop": trainer.fit_loop.state_dict()}, checkpoint["loops"], "loops"):
        return f"it has no '{absent}'"
    return None


def _absent(expected: Mapping[str, Any], found: Any, name: str) -> str | None:
    """The first entry of nested mappings that is not there."""
    if not isinstance(found, Mapping):
        return name
    for key, value in expected.items():
        inner = f"{name}.{key}" if name else key
        if key not in found or (_is_count(value) and not _is_count(found[key])):
            return inner
        if isinstance(value, Mapping) and (absent := _absent(value, found[key], inner)):
            return absent
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_rate(value: Any) -> bool:
    # The graph of a GPU has its rates in tensors.
    return isinstance(value, int | float | Tensor) and bool(torch.isfinite(torch.as_tensor(value)).all())


def _other_optimizer(method: Checked, states: Sequence[Mapping[str, Any]]) -> str | None:
    """How the state of an optimiser differs from that of the method's own."""
    own = [group["params"] for group in method.optimizer_groups()]
    try:
        saved = [list(group["params"]) for group in states[0]["param_groups"]]
        entries = dict(states[0]["state"])
    except (KeyError, TypeError, ValueError):
        return "the state of its optimiser is not whole"
    found, expected = [len(group) for group in saved], [len(group) for group in own]
    if found != expected:
        return f"its optimiser has groups of {found} parameters, and the method has {expected}"
    if not all(_is_rate(group.get("lr")) for group in states[0]["param_groups"]):
        return "the state of its optimiser has no learning rate, or one that is none"
    parameters = [p for group in own for p in group]
    for number, p in zip([number for group in saved for number in group], parameters, strict=True):
        for key, value in (entries.get(number) or {}).items():
            if isinstance(value, Tensor) and value.dim() and value.shape != p.shape:
                return f"'{key}' of its optimiser has the shape {tuple(value.shape)}, expected {tuple(p.shape)}"
    return None
