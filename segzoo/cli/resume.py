"""What a continued run may change. Free of torch.

A checkpoint carries the options of its run. Those that say where and how long the run goes, and what it shows of itself, may be
others now; those that decide what is learned may not: the optimiser's state, the schedule and the order of images would be of
one training and the configuration of another.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segzoo.cli.explain_options import origin
from segzoo.cli.sections import flatten
from segzoo.errors import ConfigError

if TYPE_CHECKING:
    from segzoo.cli.expand import Invocation

HONOURED = (
    "logger",
    "checkpoint_steps",
    "keep_steps",
    "panel_steps",
    "upload_checkpoint",
    "data.num_workers",
    "data.eval_batch_size",
    # Where the data lies; that it is the same is looked at when its files are (`segzoo.callbacks.SameData`).
    "data.root",
    "data.source.label_space",
    "data.target.label_space",
    "protocol",
    "speed",
    "trainer",
)
"""Options and sections that apply in a continued run."""
LEARNING = (
    "speed.micro_batches",  # batch norms normalise each part by itself
    "trainer.accumulate_grad_batches",
    "trainer.gradient_clip_val",
    "trainer.gradient_clip_algorithm",
    "trainer.limit_train_batches",
    "trainer.overfit_batches",
)
"""Those of a section of `HONOURED` that do not."""
PLACE = ("name", "runs")
"""Where a run lies: a continued one stays there, and a checkpoint that lies elsewhere begins a run of any name."""
Flat = Mapping[str, Any]


def compare_runs(
    before: Mapping[str, Any], now: Mapping[str, Any], invocation: "Invocation"
) -> tuple[dict[str, tuple[Any, Any]], list[str]]:
    """What a continued run does otherwise than its checkpoint says.

    Args:
        before: the configuration that the checkpoint carries, with all defaults.
        now: that of the command line.
        invocation: the command line.

    Returns:
        old and new value of the options that changed, and lines that say so.

    Raises:
        ConfigError: an option that a continued run cannot change.
    """
    checkpoint = invocation.checkpoint
    assert checkpoint is not None
    carried = next(layer.content for layer in invocation.before if layer.origin == str(checkpoint))
    old, new = (
        {name: value for name, value in flatten(one).items() if name.split(".")[0] in carried} for one in (before, now)
    )
    changed = changed_options(
        old, new, checkpoint, invocation.in_place, lambda key: origin(key, invocation.layers, invocation.flags)
    )
    lines = [describe_changes(changed, new)] if changed else []
    lines += [describe_kept(flatten(file.content), flatten(now), changed, file.origin) for file in invocation.overruled]
    return changed, [line for line in lines if line]


def changed_options(
    before: Flat, now: Flat, checkpoint: Path, in_place: bool, origin: Callable[[str], str]
) -> dict[str, tuple[Any, Any]]:
    """The options that are others than in the checkpoint, all of which apply.

    Args:
        before: options of the checkpoint by their dotted names.
        now: those of the command line.
        checkpoint: its file.
        in_place: whether its run goes on in its folder; else a new run begins at its state.
        origin: where an option was given, e.g. `` (in own.yaml)``.

    Returns:
        old and new value by name; None where there is none.

    Raises:
        ConfigError: an option that a continued run cannot change.
    """
    names = dict.fromkeys([*before, *now])
    changed = {name: (before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)}
    free = HONOURED if in_place else (*HONOURED, "seed_everything")
    refused = [name for name in changed if name not in PLACE and (_in(name, LEARNING) or not _in(name, free))]
    if refused:
        old, new = changed[name := refused[0]]
        more = f" (and {len(refused) - 1} more options differ)" if len(refused) > 1 else ""
        option = f"--{name}"
        raise ConfigError(
            f"{option} {value_text(new)}{origin(name)}: the run of {checkpoint} was begun with {value_text(old)}{more}, and a "
            f"continued run keeps what decides its learning; leave {option} out, or leave --ckpt_path out and begin a new "
            "run at its weights with --network.initial_checkpoint"
        )
    return {name: values for name, values in changed.items() if name not in PLACE}


def describe_changes(changed: Mapping[str, tuple[Any, Any]], now: Flat) -> str:
    """What applies from here on, in one line."""
    texts = [f"--{name} {value_text(new)} (was {value_text(old)})" for name, (old, new) in changed.items()]
    line = f"continues with {', '.join(texts)}"
    if (
        "trainer.max_steps" in changed
        and now.get("optimizer.schedule") == "poly"
        and not now.get("optimizer.schedule_steps")
    ):
        line += f"; the learning rates fall to 0 at step {now['trainer.max_steps']}"
    if changed.get("trainer.max_time", (None,))[0] is not None:
        line += "; --trainer.max_time counts the earlier starts, too"
    if any(_in(name, ("trainer.devices", "trainer.num_nodes")) for name in changed):
        line += "; --data.batch_size is per process"
    return line


def value_text(value: Any) -> str:
    """A value as it is typed."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def describe_kept(content: Flat, now: Flat, changed: Mapping[str, Any], where: str) -> str:
    """What a data file says and the checkpoint overrules, in one line; empty where they agree.

    Args:
        content: options of the file by their dotted names.
        now: those that apply.
        changed: what is said already.
        where: what the file is called.
    """
    kept = [name for name, value in content.items() if name not in changed and now.get(name, value) != value]
    texts = [f"--{name} {value_text(now[name])} ({where}: {value_text(content[name])})" for name in kept]
    return f"kept from the checkpoint: {', '.join(texts)}" if texts else ""


def _in(name: str, options: tuple[str, ...]) -> bool:
    name = re.sub(r"\[\d+\]", "", name)  # what applies to a source applies to each of several
    return any(name == option or name.startswith(f"{option}.") for option in options)
