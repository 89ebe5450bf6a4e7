"""Run folders."""

import os
from pathlib import Path

import pytest

from segzoo.cli.rundir import claim, discard_unused, newest_checkpoint, run_folder
from segzoo.errors import CheckpointError, ConfigError


def test_a_taken_folder_is_never_used_again(tmp_path: Path) -> None:
    parent = tmp_path / "joint" / "toy"
    assert [claim(parent, "a-s0").name for _ in range(3)] == ["a-s0", "a-s0-2", "a-s0-3"]


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write to .*file"):
        claim(tmp_path / "file" / "toy", "a-s0")


def test_the_run_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_folder(Path("runs/a-s0/checkpoints/last.ckpt")) == Path("runs/a-s0")
    assert run_folder(Path("/somewhere/model.ckpt")) == Path("/somewhere")


def test_only_a_run_that_did_not_start_is_discarded(tmp_path: Path) -> None:
    empty, begun = tmp_path / "empty", tmp_path / "begun"
    for folder in (empty, begun):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").touch()
    (empty / "tensorboard").mkdir()
    (empty / "tensorboard" / "events.out.tfevents.0").touch()
    (begun / "checkpoints" / "last.ckpt").touch()
    discard_unused(empty)
    discard_unused(begun)
    assert not empty.exists()
    assert (begun / "config.yaml").is_file()


def test_where_the_data_were_forgotten_the_newest_run_of_the_method_is_named(tmp_path: Path) -> None:
    parent = tmp_path / "semi-supervised" / "minicity"
    with pytest.raises(CheckpointError, match=r"below \S+; give its path as --ckpt_path FILE"):
        newest_checkpoint(parent, "default", 0)
    for age, place in enumerate(("mine/default-s0", "mine/default-s1", "other/default-s0", "minicity/default-s7")):
        last = tmp_path / "semi-supervised" / place / "checkpoints" / "last.ckpt"
        last.parent.mkdir(parents=True)
        last.touch()
        os.utime(last, (200 - 10 * age, 200 - 10 * age))
    run = tmp_path / "semi-supervised" / "mine" / "default-s0"
    with pytest.raises(CheckpointError) as error:
        newest_checkpoint(parent, "default", 0)
    assert f"; the newest run of semi-supervised on other data is {run}: add --data, or give its path" in str(
        error.value
    )
