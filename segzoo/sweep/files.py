"""A sweep as wandb's YAML has it, and the commands that its agent would run. Free of torch."""

import importlib
import json
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from segzoo.errors import ConfigError
from segzoo.yaml_files import read_yaml

INSTALL = "a sweep needs wandb's search: pip install 'segzoo-da[sweeps]', or pip install 'sweeps>=0.2,<0.3'"


def library() -> Any:
    """wandb's search library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it was written for an older pydantic
            return importlib.import_module("sweeps")
    except ImportError as error:
        raise ConfigError(f"{INSTALL} ({error})") from error


@dataclass(frozen=True)
class Sweep:
    """What a sweep searches.

    Attributes:
        path: its file.
        content: what it says.
    """

    path: Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """What wandb shows; that of the file where it has none."""
        return str(self.content.get("name") or self.path.stem)

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return str(self.content["metric"]["name"])

    @property
    def maximize(self) -> bool:
        """Whether more of it is better."""
        return str(self.content["metric"].get("goal", "minimize")) == "maximize"

    @property
    def ends(self) -> bool:
        """Whether its sets are finite."""
        return self.content["method"] == "grid"

    def words(self, parameters: Mapping[str, Any]) -> list[str]:
        """What an agent of wandb would run for a set, after ``segzoo fit``.

        Args:
            parameters: values by name.

        Raises:
            ConfigError: the command is not one of `segzoo fit`.
        """
        from wandb.sdk.launch.sweeps import utils

        values = utils.create_sweep_command_args({"args": {name: {"value": one} for name, one in parameters.items()}})
        values |= {"env": [], "interpreter": ["python"], "program": [self.content.get("program") or ""]}
        words: list[str] = []
        for word in map(str, utils.create_sweep_command(deepcopy(self.content.get("command")))):
            macro = word.startswith("${") and word.endswith("}")
            words += values.get(word[2:-1], []) if macro else [word]
        for at, (word, following) in enumerate(pairwise(words)):
            if Path(word).name == "segzoo" and following == "fit":
                return words[at + 2 :]
        raise ConfigError(
            f"{self.path}: 'command' is {' '.join(words)!r}; expected one of segzoo, such as "
            "[${env}, segzoo, fit, ..., ${args}]"
        )


def read_sweep(path: Path) -> Sweep:
    """Reads and checks the file of a sweep.

    Raises:
        ConfigError: it is not what wandb's schema asks for, has no metric, or its command is not one of segzoo.
    """
    content = read_yaml(path, "sweep")
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a sweep of wandb, with 'method', 'metric' and 'parameters'")
    metric = content.get("metric")
    if not isinstance(metric, dict) or not metric.get("name"):
        raise ConfigError(f"{path}: 'metric.name' is missing; expected what a run logs, e.g. val/miou")
    try:
        problems = library().schema_violations_from_proposed_config(content)
    except ValueError as error:  # of what is no mapping where it must be one
        problems = [str(error)]
    if problems:
        raise ConfigError(f"{path} is no sweep of wandb: {'; '.join(' '.join(str(one).split()) for one in problems)}")
    sweep = Sweep(path, content)
    sweep.words({})
    return sweep


def draw(sweep: Sweep, runs: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, Any] | None:
    """The next set, as wandb's server would draw it; the same again for the same runs and seed.

    Args:
        sweep: what is searched.
        runs: those that there are, in their order: ``parameters``, ``state`` as wandb calls it, and ``value``, the metric,
            where it is known.
        seed: of the draw.

    Returns:
        Values by name; None where a grid has no further ones.
    """
    import random

    import numpy as np

    search = library()
    states = random.getstate(), np.random.get_state()
    random.seed(seed * 10_007 + len(runs))
    np.random.seed(seed * 10_007 + len(runs))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of a Gaussian process that sees its first points
            before = [
                search.SweepRun(
                    config={name: {"value": one} for name, one in run["parameters"].items()},
                    state=run["state"],
                    summaryMetrics={} if run.get("value") is None else {sweep.metric: run["value"]},
                )
                for run in runs
            ]
            found = search.next_run(sweep.content, before)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    if found is None:
        return None
    plain: dict[str, Any] = json.loads(json.dumps(found.config, default=lambda number: number.item()))
    return {name: one["value"] for name, one in plain.items()}
