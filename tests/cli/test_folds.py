"""`segzoo folds`: the checkpoints that a run kept, and what the command makes of them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from segzoo.cli.folds import _per_image, _run, kept_checkpoints
from segzoo.cli.rundir import VARIABLE
from segzoo.errors import ConfigError
from segzoo.evaluation import Scores
from segzoo.runtime.lock import release_all
from tests.cli.conftest import Segzoo

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_folds_of_a_run(segzoo: Segzoo, toy: Path) -> None:
    result = segzoo("fit", "--method", "source-only", "--data", toy, "--trainer.max_steps", 3, "--keep_steps", 2)
    assert result.status == 0, result.err
    run = Path("runs/source-only/toy/default-s0")
    names = [path.name for path in kept_checkpoints(run)]
    assert names == ["step00000002.ckpt", "last.ckpt"]
    step = torch.load(run / "checkpoints" / names[0], weights_only=True)["global_step"]
    assert step == 2
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    result = segzoo("folds", "--run", run, "--folds", 2)
    assert result.status == 0, result.err
    found = json.loads((run / "folds-toy.json").read_text())
    assert found["images"] == 2 and found["checkpoints"] == names and len(found["mIoU"]) == 2
    assert "mean ± std" in result.out and "fold 2" in result.out
    assert {path: path.read_bytes() for path in before} == before, "the run's own files were touched"
    # Of one checkpoint the folds are the two images: the other one's score each.
    segzoo("folds", "--run", run, "--folds", 2, "--latest", 1)
    one = json.loads((run / "folds-toy.json").read_text())
    assert one["chosen"] == ["last.ckpt"] * 2
    # Together the images are what the test after the training counted.
    cli = _run(["--ckpt_path", str(run / "checkpoints/last.ckpt"), "--out", "scratch", "--data.eval_batch_size", "1"])
    matrices = _per_image(cli, run / "checkpoints" / "last.ckpt")
    assert matrices.shape == (2, 3, 3)
    assert np.array_equal(matrices.sum(0), Scores.load(run / "scores-test.json").confusion)
    os.environ.pop(VARIABLE, None)  # what the command does at its end
    release_all()


def test_a_last_checkpoint_that_stays_counts_once(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name, content in (("step00000002", "a"), ("step00000004", "b"), ("last", "b")):
        (folder / f"{name}.ckpt").write_text(content)
    assert [path.stem for path in kept_checkpoints(tmp_path)] == ["step00000002", "step00000004"]


def test_wrong_arguments_are_one_line(segzoo: Segzoo, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no checkpoint in"):
        kept_checkpoints(tmp_path)
    for arguments, message in (
        (["--run", tmp_path], "expected the folder of a run"),
        (["--run", tmp_path, "--folds", "1"], "--folds 1: expected 2 or more"),
        (["--rn", tmp_path], "did you mean '--run'"),
    ):
        result = segzoo("folds", *arguments)
        assert result.status == 2 and message in result.err and result.err.count("\n") == 1
