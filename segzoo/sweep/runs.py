"""The runs of a sweep in one folder: which sets there are, what became of them, and which comes next. Free of torch."""

import csv
import json
import shlex
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segzoo.errors import ConfigError
from segzoo.files import write_text
from segzoo.sweep.files import Sweep, draw
from segzoo.yaml_files import dump_yaml, read_yaml

SCORES = "scores-test.json"
"""What a complete run has, unless its data have no labels to test with; then its manifest says that it is finished."""


@dataclass
class SetOfOptions:
    """One set of a sweep.

    Attributes:
        number: its place, from 1.
        folder: for its run.
        parameters: the values that were drawn.
        running: whether this process trains it.
        failed: the last line of a training that ended with an error.
    """

    number: int
    folder: Path
    parameters: dict[str, Any]
    running: bool = False
    failed: str | None = None

    @property
    def run(self) -> Path | None:
        """The folder of its run, the newest where an earlier one had no checkpoint."""
        found = [path.parent for path in self.folder.glob("*/*/*/manifest.json")]
        return max(found, key=lambda run: (_finished(run), (run / "manifest.json").stat().st_mtime), default=None)

    @property
    def checkpoint(self) -> Path | None:
        """What its training goes on from."""
        last = self.run and self.run / "checkpoints" / "last.ckpt"
        return last if last and last.is_file() else None

    @property
    def complete(self) -> bool:
        """Whether it is trained."""
        return self.run is not None and _finished(self.run)

    def value(self, metric: str) -> float | None:
        """The last value of a metric, as wandb's summary has it; None where nothing was logged."""
        path = self.run and self.run / "metrics.csv"
        if not path or not path.is_file():
            return None
        with path.open(newline="", encoding="utf-8") as file:
            found = [row[metric] for row in csv.DictReader(file) if row.get(metric)]
        return float(found[-1]) if found else None


@dataclass
class Runs:
    """The folder of a sweep.

    Args:
        folder: where it is, or will be.
        sweep: what is searched.
        seed: of the draws.
        options: further words of every command.

    Raises:
        ConfigError: the folder is that of another sweep, or of other options.
    """

    folder: Path
    sweep: Sweep
    seed: int = 0
    options: tuple[str, ...] = ()
    sets: list[SetOfOptions] = field(default_factory=list)
    _drawing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        record = self.folder / "sweep.yaml"
        now = {"sweep": self.sweep.content, "seed": self.seed, "options": list(self.options)}
        now = json.loads(json.dumps(now))
        if record.is_file():
            then = read_yaml(record, "sweep")
            if changed := [name for name in now if not isinstance(then, dict) or then.get(name) != now[name]]:
                raise ConfigError(
                    f"{self.folder} holds a sweep that was begun with another {' and another '.join(changed)} (its "
                    "sweep.yaml has them); choose another folder, or remove that one"
                )
        else:
            write_text(record, dump_yaml(now))
        for path in sorted(self.folder.glob("*/parameters.json")):
            parameters = json.loads(path.read_text())
            self.sets.append(SetOfOptions(int(path.parent.name), path.parent, parameters))

    def next(self, count: int | None) -> SetOfOptions | None:
        """The first set that is not complete and that nobody trains, else a new one; None when all are there.

        Args:
            count: of all sets; None for those of a grid.
        """
        with self._drawing:
            for one in self.sets[:count]:
                if not (one.complete or one.running or one.failed):
                    one.running = True
                    return one
            if count is not None and len(self.sets) >= count:
                return None
            parameters = draw(self.sweep, [self._as_wandb(one) for one in self.sets], self.seed)
            if parameters is None:
                return None
            number = len(self.sets) + 1
            one = SetOfOptions(number, self.folder / f"{number:03}", parameters, running=True)
            one.folder.mkdir(exist_ok=True)
            write_text(one.folder / "parameters.json", json.dumps(parameters) + "\n")
            self.sets.append(one)
            return one

    def ranking(self) -> list[SetOfOptions]:
        """The complete sets that have the metric, the best first."""
        valued = [(value, one) for one in self.sets if one.complete and (value := self._value(one)) is not None]
        return [one for _, one in sorted(valued, key=lambda pair: pair[0], reverse=self.sweep.maximize)]

    def without_metric(self) -> Path | None:
        """The run of a complete set where none has logged the metric, so that those to come would not, either; else None."""
        complete = [one for one in self.sets if one.complete]
        if any(self._value(one) is not None for one in complete):
            return None
        return next((one.run for one in complete), None)

    def table(self) -> str:
        """Markdown: a line per set, the best first, with what differs between them; what does not; the command of the best."""
        names = list(dict.fromkeys(name for one in self.sets for name in one.parameters))
        varied = [name for name in names if len({json.dumps(one.parameters.get(name)) for one in self.sets}) > 1]
        ranking = self.ranking()
        lines = [[self.sweep.metric, *varied, "run"], ["---:", *["---"] * len(varied), "---"]]
        for one in ranking + [one for one in self.sets if one not in ranking]:
            value = self._value(one) if one.complete else None
            state = f"failed: {one.failed}" if one.failed else "" if one.complete else "not complete"
            shown = f"{value:.4f}" if value is not None else state or "–"
            lines.append([shown, *[_text(one.parameters.get(name)) for name in varied], str(one.run or one.folder)])
        text = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
        if same := [name for name in names if name not in varied]:
            text += (
                f"\n\nin all sets: {'; '.join(f'{name} {_text(self.sets[0].parameters.get(name))}' for name in same)}"
            )
        if ranking:
            text += f"\n\nbest: segzoo fit {shlex.join([*self.sweep.words(ranking[0].parameters), *self.options])}"
        elif any(one.complete for one in self.sets):
            text += f"\n\nno best one: no complete run has logged {self.sweep.metric}"
        return text

    def _value(self, one: SetOfOptions) -> float | None:
        return one.value(self.sweep.metric)

    def _as_wandb(self, one: SetOfOptions) -> Mapping[str, Any]:
        state = "finished" if one.complete else "failed" if one.failed else "running"
        value = self._value(one) if one.complete else None
        return {"parameters": one.parameters, "state": state, "value": value}


def _finished(run: Path) -> bool:
    if (run / SCORES).is_file():
        return True
    try:
        return str(json.loads((run / "manifest.json").read_text())["status"]) == "finished"
    except (OSError, ValueError, KeyError):
        return False


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def failures_in_a_row(ended: Sequence[bool]) -> int:
    """How many of the last trainings failed, one after the other.

    Args:
        ended: whether each came to its end, in their order.
    """
    return len(ended) - max((place for place, well in enumerate(ended, 1) if well), default=0)
