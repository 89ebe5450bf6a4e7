"""A row of metrics.csv holds what its step found out, and nothing older."""

import csv
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from segzoo.loggers.metrics_csv import MetricsCsv
from tests import tiny
from tests.unit.test_length import SaveAt

pytestmark = pytest.mark.filterwarnings("ignore")


class Present(L.Callback):
    """Names of the source classes of each step."""

    def __init__(self) -> None:
        self.classes: dict[int, set[str]] = {}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        ids = set(batch["source"]["label"].unique().tolist()) - {255}
        self.classes[trainer.global_step] = {pl_module.label_space.classes[i] for i in ids}


def rows(folder: Path) -> dict[int, dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return {int(row.pop("step")): {k: v for k, v in row.items() if v} for row in csv.DictReader(file)}


def train(folder: Path, stop: int | None = None, **options: Any) -> Present:
    present = Present()
    callbacks: list[L.Callback] = [present, *([SaveAt(stop, folder / "c.ckpt")] if stop else [])]
    trainer = tiny.trainer(8, logger=MetricsCsv(folder), callbacks=callbacks)
    trainer.fit(tiny.method("region-selection"), datamodule=tiny.data(batch_size=1, crop_scale=(0.1, 0.2)), **options)
    return present


@pytest.mark.fault("weight-of-an-absent-class")
def test_a_class_that_is_absent_has_no_weight_in_that_row(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    present = train(whole).classes
    assert len({frozenset(classes) for classes in present.values()}) > 1
    for step, row in rows(whole).items():
        named = {name.removeprefix("weight/class/") for name in row if name.startswith("weight/class/")}
        assert named == present[step]
    train(parts, stop=3)
    train(parts, ckpt_path=parts / "c.ckpt", weights_only=True)
    assert rows(parts) == rows(whole)
