"""What a command takes from a checkpoint: the configuration of its run, and the sections of a method from Python."""

from pathlib import Path
from typing import Any

from segzoo.cli.sections import RESTORED, SHARED, carried_config
from segzoo.inference.checkpoints import read_checkpoint as read


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """What a run takes from a checkpoint: ``method``, ``version``, ``label_space``, ``size``, ``config``, and options.

    Of a checkpoint that was written from Python ``config`` is None; ``options`` are then the sections of its method.
    ``restored`` are the arguments of the method's constructor that only a checkpoint gives.

    Raises:
        CheckpointError: see `segzoo.inference.checkpoints.read_checkpoint`; or a configuration that is none.
    """
    path = Path(path)
    saved = read(path)
    options = saved["options"]
    shared, restored = ({name: options[name] for name in names if name in options} for names in (SHARED, RESTORED))
    others = ("label_space", *shared, *restored)
    own = {name: value for name, value in options.items() if name not in others and not name.startswith("_")}
    found = {**saved, "options": {"method": own, **shared}, "restored": restored}
    carried_config(found, path)  # may not be one
    return found
