"""Options of the trainer that count epochs or batches, as they are typed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Segzoo

ROOT = Path(__file__).parents[2]


@pytest.mark.fault("epochs-without-end")
@pytest.mark.fault("training-without-end")
@pytest.mark.fault("schedule-without-length")
def test_a_training_without_end_is_one_line_and_leaves_no_folder(segzoo: Segzoo, toy: Path, tmp_path: Path) -> None:
    for options, message in (
        (["--trainer.max_epochs", "3"], "--trainer.max_epochs 3 counts epochs"),
        (["--trainer.max_steps", "-1"], "nothing would end this training"),
        (["--trainer.max_steps", "-1", "--trainer.max_time", "00:00:01:00"], "--optimizer.schedule poly"),
        (["--trainer.limit_train_batches", "0.5"], "--trainer.limit_train_batches 0.5"),
    ):
        done = segzoo("fit", "--method", "source-only", "--data", toy, *options)
        assert done.status == 2 and done.err.startswith(f"error: {message}"), done.err
        assert done.err.count("\n") == 1 and list(tmp_path.glob("runs/*/*/*")) == []


@pytest.mark.fault("training-of-no-steps")
@pytest.mark.parametrize("option", ["max_steps", "limit_train_batches"])
def test_a_training_of_no_steps_is_no_training(segzoo: Segzoo, toy: Path, tmp_path: Path, option: str) -> None:
    done = segzoo("fit", "--method", "source-only", "--data", toy, f"--trainer.{option}", "0")
    assert (done.status, done.err.count("\n")) == (2, 1) and "mIoU" not in done.out
    assert "is 0: nothing would be trained" in done.err and list(tmp_path.glob("runs/*/*/*")) == []


@pytest.mark.fault("start-that-is-not-reached")
def test_a_warning_of_a_method_is_one_line(segzoo: Segzoo, toy: Path) -> None:
    argv = ["fit", "--method", "maxsquare", "--data", toy, "--method.target_start", "9"]
    command = [sys.executable, "-m", "segzoo", *map(str, argv), "--trainer.limit_val_batches", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0
    assert done.stderr == "warning: --method.target_start 9 is not reached in 2 steps\n"


@pytest.mark.fault("epochs-of-two-batches")
def test_epochs_that_have_a_length_are_counted(segzoo: Segzoo, toy: Path, tmp_path: Path) -> None:
    lengths = ["--trainer.max_steps", "-1", "--trainer.max_epochs", "2", "--trainer.limit_train_batches", "2"]
    assert segzoo("fit", "--method", "source-only", "--data", toy, *lengths, "--name", "epochs").status == 0
    assert segzoo("fit", "--method", "source-only", "--data", toy, "--trainer.max_steps", "4").status == 0
    epochs, steps = (tmp_path / "runs" / "source-only" / "toy" / f"{name}-s0" for name in ("epochs", "default"))
    assert (epochs / "scores-test.csv").read_text() == (steps / "scores-test.csv").read_text()

    def losses(run: Path) -> list[str]:
        table = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
        return [row[table[0].index("train/loss")] for row in table if row[table[0].index("train/loss")]]

    assert losses(epochs) == losses(steps) and len(losses(steps)) == 5
