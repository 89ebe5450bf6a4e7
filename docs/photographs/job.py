"""One run of a study, in a process of its own: training, scores and labelled examples. Free of torch until it is performed."""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segzoo.configs import config_path
from segzoo.study.plan import Row
from segzoo.study.results import find_run
from segzoo.yaml_files import read_yaml

COMMANDS = {"val": "validate", "test": "test"}
EXAMPLES = 3
"""Images that all rows label for the picture."""


def scores_of(split: str) -> str:
    """The file of a run's scores on a split, below its folder."""
    return f"{split}/scores-{split}.json"


@dataclass(frozen=True)
class Job:
    """What is left to do for one run.

    Attributes:
        fit: words of `segzoo fit`; empty where it is trained.
        folder: of the runs of its pair.
        row: whose run it is.
        seed: of the run.
        splits: that are scored.
        device: options of the trainer that say where.
        data: name of the packaged data, or a YAML.
        root: where the data are.
        examples: for the labels of some images of the last split; None: they are not asked for.
    """

    fit: tuple[str, ...]
    folder: Path
    row: Row
    seed: int
    splits: tuple[str, ...]
    device: tuple[str, ...]
    data: str
    root: str
    examples: Path | None

    def perform(self) -> int:
        """Does it, and returns the exit status of the first command that failed, or 0."""
        if self.fit and (status := command(self.fit)):
            return status
        run = find_run(self.folder, self.row, self.seed, scores_of("val"))
        for split in self.splits:
            if not (run / scores_of(split)).is_file():
                words = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--out", str(run / split)]
                words += ["--trainer.limit_test_batches", "1.0"]  # the training left it out
                if status := command([COMMANDS[split], *words, *self.device]):
                    return status
        if self.examples is not None and not self.examples.is_file():
            label_examples(run, self.data, self.splits[-1], self.root, self.examples)
        return 0


def command(words: Sequence[str]) -> int:
    """Runs `segzoo` in this process."""
    from segzoo.cli.main import main

    sys.argv = ["segzoo", *words]  # as the manifest notes it
    print("segzoo", *words, flush=True)
    return main(list(words))


def example_images(data: str, split: str, root: str) -> tuple[Any, Any, list[int]]:
    """The target, its images of a split, and which of them are the examples: evenly spread."""
    from segzoo.data.splits import evenly

    target = read_yaml(config_path("data", data))["data"]["target"]
    module, _, name = target["class_path"].rpartition(".")
    domain = getattr(importlib.import_module(module), name)(**target["init_args"])
    images = domain.images(split, Path(root))
    return domain, images, evenly(len(images), EXAMPLES)


def label_examples(run: Path, data: str, split: str, root: str, path: Path) -> None:
    """Writes what a run's network says of the examples: label ids (H, W), by position."""
    import numpy as np

    import segzoo

    _, images, chosen = example_images(data, split, root)
    network = segzoo.load(run)
    labels = {str(i): network.predict(images.image(i)).labels.astype(np.uint8) for i in chosen}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **labels)
