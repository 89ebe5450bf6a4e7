"""The start that several runs of `segzoo bench` share, and the reference in float64 that belongs to it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from segzoo.bench.rows import Task
from segzoo.errors import ConfigError

SETTINGS = ("architecture", "encoder", "size", "batch", "device", "suite", "start_steps", "weight_width")
"""What the start and the reference depend on; the precision and the rows of a run are its own."""


class KeptStart:
    """A folder with the trained segmenter, the hypergradient of double backward in float64, and what they are of.

    Args:
        folder: made where it is absent.
        task: the settings of this run.

    Attributes:
        start: the file that all rows start from; the first process writes it.

    Raises:
        ConfigError: the folder is that of other settings.
    """

    def __init__(self, folder: Path, task: Task) -> None:
        self.start = folder / "start.pt"
        self._reference = folder / "reference.npy"
        wanted: dict[str, Any] = {name: asdict(task)[name] for name in SETTINGS} | {"size": list(task.size)}
        settings = folder / "settings.json"
        if settings.is_file():
            found = json.loads(settings.read_text())
            others = [name for name in SETTINGS if found.get(name) != wanted[name]]
            if others:
                name = others[0]
                raise ConfigError(
                    f"{folder}: its start is of {name} {found.get(name)}, not {wanted[name]}; name another folder"
                )
        else:
            folder.mkdir(parents=True, exist_ok=True)
            settings.write_text(json.dumps(wanted))

    @property
    def has_reference(self) -> bool:
        """Whether an earlier run left it."""
        return self.start.is_file() and self._reference.is_file()

    def reference(self, found: Any) -> Any:
        """The reference: what this run found is kept, else that of an earlier run; None if there is none."""
        if found is not None:
            np.save(self._reference, found)
            return found
        return np.load(self._reference) if self._reference.is_file() else None
