"""metrics.csv and the choice of loggers."""

import csv
from pathlib import Path

import pytest
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from segzoo.errors import ConfigError
from segzoo.loggers.create import create_loggers
from segzoo.loggers.metrics_csv import MetricsCsv


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_per_step_and_columns_as_they_come(tmp_path: Path) -> None:
    logger = MetricsCsv(tmp_path)
    logger.log_metrics({"epoch": 0, "loss": 2.0}, 0)
    logger.log_metrics({"epoch": 0, "loss": 1.0}, 1)
    logger.save()
    assert [row["step"] for row in rows(tmp_path)] == ["0"]  # the row of step 1 may still grow
    logger.log_metrics({"val/miou": 0.5}, 1)
    logger.finalize("success")
    logger.log_metrics({"test/miou": 0.25}, 1)
    logger.finalize("success")
    assert rows(tmp_path) == [
        {"step": "0", "epoch": "0", "loss": "2.0", "val/miou": "", "test/miou": ""},
        {"step": "1", "epoch": "0", "loss": "1.0", "val/miou": "0.5", "test/miou": "0.25"},
    ]


def test_the_file_grows_while_training(tmp_path: Path) -> None:
    logger = MetricsCsv(tmp_path)
    for step in range(5):
        logger.log_metrics({"loss": float(step)}, step)
        logger.save()
    assert [row["loss"] for row in rows(tmp_path)] == ["0.0", "1.0", "2.0", "3.0"]


def test_a_resumed_run_replaces_the_steps_it_does_again(tmp_path: Path) -> None:
    killed = MetricsCsv(tmp_path)
    for step in range(6):
        killed.log_metrics({"loss": 10.0 + step}, step)
    killed.finalize("failed")
    resumed = MetricsCsv(tmp_path)
    for step in range(3, 5):
        resumed.log_metrics({"loss": 20.0 + step, "new": 1.0}, step)
    resumed.finalize("success")
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [
        ("0", "10.0"), ("1", "11.0"), ("2", "12.0"), ("3", "23.0"), ("4", "24.0"),
    ]  # fmt: skip


def test_a_resumed_run_that_ends_before_its_first_row_keeps_the_file(tmp_path: Path) -> None:
    earlier = MetricsCsv(tmp_path)
    earlier.log_metrics({"loss": 1.0}, 0)
    earlier.finalize("success")
    resumed = MetricsCsv(tmp_path)
    resumed.save()
    resumed.finalize("failed")
    assert [row["loss"] for row in rows(tmp_path)] == ["1.0"]


@pytest.mark.fault("killed-after-a-checkpoint")
def test_half_a_row_is_none(tmp_path: Path) -> None:
    earlier = MetricsCsv(tmp_path)
    for step in (10, 11):
        earlier.log_metrics({"loss": float(step)}, step)
    earlier.finalize("success")
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("1")  # of step 12
    resumed = MetricsCsv(tmp_path)
    resumed.log_metrics({"loss": 12.0}, 12)
    resumed.finalize("success")
    assert [row["step"] for row in rows(tmp_path)] == ["10", "11", "12"]


@pytest.mark.fault("killed-after-a-checkpoint")
def test_a_row_on_the_disk_stays_there_while_it_grows(tmp_path: Path) -> None:
    logger = MetricsCsv(tmp_path)
    logger.log_metrics({"loss": 1.0}, 0)
    logger.finalize("running")  # as before a checkpoint
    logger.log_metrics({"val/miou": 0.5}, 0)
    logger.save()
    assert [(row["loss"], row["val/miou"]) for row in rows(tmp_path)] == [("1.0", "0.5")]


def test_csv_is_always_on_and_others_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert [type(logger) for logger in create_loggers("csv", tmp_path, {})] == [MetricsCsv]
    kinds = create_loggers("tensorboard, wandb", tmp_path, {})
    assert [base.__name__ for base in (MetricsCsv, TensorBoardLogger, WandbLogger)] == [
        next(c.__name__ for c in type(logger).__mro__ if c in (MetricsCsv, TensorBoardLogger, WandbLogger))
        for logger in kinds
    ]
    with pytest.raises(ConfigError, match="unknown logger 'tensorbord'; did you mean 'tensorboard'"):
        create_loggers("csv,tensorbord", tmp_path, {})
