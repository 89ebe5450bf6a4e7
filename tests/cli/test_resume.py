"""A run that goes on with other options: they apply and are said, or are refused by name."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.cli.conftest import SPACE, Segzoo


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of two steps that a test may continue."""
    folder = tmp_path / "runs" / "source-only" / "toy" / "default-s0"
    shutil.copytree(trained, folder)
    return folder


@pytest.mark.fault("resumed-with-another-option")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer.lr", "0.5"], "--optimizer.lr 0.5: the run of {last} was begun with 0.001"),
        (["--optimizer.name", "sgd"], "--optimizer.name sgd: the run of {last} was begun with adamw"),
        (["--optimizer.schedule", "constant"], "--optimizer.schedule constant: the run of {last} was begun with poly"),
        (["--network.encoder", "resnet18"], "--network.encoder resnet18: "),
        (["--network.initial_checkpoint", "a.ckpt"], "--network.initial_checkpoint a.ckpt: "),
        (["--data.batch_size", "3"], "--data.batch_size 3: the run of {last} was begun with 2"),
        (["--data.size", "64", "64"], "--data.size [64, 64]: the run of {last} was begun with [32, 32]"),
        (["--data.flip", "false"], "--data.flip false: the run of {last} was begun with true"),
        (["--data.target_labels", "1"], "--data.target_labels 1: the run of {last} was begun with 3"),
        (["--data.source.images", "other"], "--data.source.images other: the run of {last} was begun with syn/image"),
        (["--data", "minicity"], "--data.source.class_path segzoo.data.MiniCity"),
        (["--trainer.gradient_clip_val", "1"], "--trainer.gradient_clip_val 1: the run of {last} was begun with null"),
        (["--speed.micro_batches", "2"], "--speed.micro_batches 2: the run of {last} was begun with 1"),
        (["--trainer.accumulate_grad_batches", "2"], "--trainer.accumulate_grad_batches 2: "),
        (["--config", "own.yaml"], "--optimizer.lr 0.5 (in own.yaml): the run of {last} was begun with 0.001"),
        (["--config", "seed.yaml"], "--seed_everything 1 (in seed.yaml): the run of {last} was begun with 0"),
        (["--recipe", "recipe.yaml"], "--optimizer.lr 0.25 (in recipe.yaml): the run of {last} was begun with 0.001"),
    ],
)
def test_what_decides_the_learning_is_refused_by_name(
    segzoo: Segzoo, run: Path, arguments: list[str], message: str
) -> None:
    Path("own.yaml").write_text("optimizer: {lr: 0.5}")
    Path("seed.yaml").write_text("seed_everything: 1")
    Path("recipe.yaml").write_text("method: source-only\noptimizer: {lr: 0.25}")
    last = run / "checkpoints" / "last.ckpt"
    result = segzoo("fit", "--ckpt_path", last, "--trainer.max_steps", "4", *arguments)
    assert result.status == 2
    assert result.err.startswith(f"error: {message.format(last=last)}")
    assert "leave --ckpt_path out and begin a new run at its weights" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.fault("resumed-with-another-option")
def test_what_a_continued_run_honours_applies_and_is_said(segzoo: Segzoo, run: Path) -> None:
    last = run / "checkpoints" / "last.ckpt"
    before = torch.load(last, weights_only=True)
    assert before["optimizer_states"][0]["param_groups"][0]["lr"] == 0  # the schedule had come to its end
    options = ["--trainer.max_steps", "4", "--trainer.val_check_interval", "1", "--keep_steps", "1"]
    result = segzoo("fit", "--ckpt_path", last, *options, "--data.num_workers", "1")
    assert result.status == 0, result.err
    said = result.out.splitlines()[0]
    assert said == (
        "continues with --data.num_workers 1 (was 0), --trainer.max_steps 4 (was 2), --trainer.val_check_interval 1 (was 2), "
        "--keep_steps 1 (was null); the learning rates fall to 0 at step 4"
    )
    written = yaml.safe_load(run.joinpath("config.yaml").read_text())
    assert written == torch.load(last, weights_only=True)["segzoo"]["config"]
    assert written["trainer"]["max_steps"] == 4 and written["trainer"]["val_check_interval"] == 1
    after = torch.load(run / "checkpoints" / "step00000003.ckpt", weights_only=True)
    assert after["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(1e-3 * 0.25**0.9)
    name = next(name for name in before["state_dict"] if name.startswith("segmenter") and name.endswith("weight"))
    # The first step is taken at the rate of the new schedule, not at the 0 that the checkpoint has.
    moved = (after["state_dict"][name] - before["state_dict"][name]).abs().max().item()
    assert moved > 0.25 * 1e-3 * 0.5**0.9
    validated = [line for line in (run / "metrics.csv").read_text().splitlines()[1:] if line.split(",")[-1]]
    assert validated


@pytest.mark.fault("resumed-with-another-option")
def test_a_runs_own_configuration_changes_nothing(segzoo: Segzoo, run: Path, toy: Path) -> None:
    for arguments in (["--config", run / "config.yaml"], ["--method", "source-only", "--data", toy]):
        result = segzoo("fit", *arguments, "--ckpt_path", "last")
        assert result.status == 0, result.err
        assert result.out.startswith("nothing to train: the checkpoint is of step 2 of 2")


@pytest.mark.fault("data-file-says-other-than-the-checkpoint")
def test_what_a_data_file_says_and_the_checkpoint_overrules_is_said(segzoo: Segzoo, run: Path, toy: Path) -> None:
    content = yaml.safe_load(toy.read_text())
    content["data"]["batch_size"] = 4
    Path("own.yaml").write_text(yaml.safe_dump(content))
    result = segzoo("fit", "--method", "source-only", "--data", "own.yaml", "--ckpt_path", "last")
    assert result.out.startswith("kept from the checkpoint: --data.batch_size 2 (own.yaml: 4)\n")


@pytest.mark.fault("checkpoint-elsewhere-begins-a-run")
def test_a_checkpoint_elsewhere_begins_a_run_with_a_seed_of_its_own(segzoo: Segzoo, run: Path) -> None:
    moved = shutil.copy(run / "checkpoints" / "last.ckpt", "moved.ckpt")
    result = segzoo("fit", "--ckpt_path", moved, "--optimizer.lr", "0.5")
    assert result.err.startswith("error: --optimizer.lr 0.5: the run of moved.ckpt was begun with 0.001")
    options = ["--runs", "runs", "--seed_everything", "7", "--trainer.max_steps", "3"]
    result = segzoo("fit", "--ckpt_path", moved, *options)
    assert result.status == 0, result.err
    assert result.out.startswith("continues with --trainer.max_steps 3 (was 2), --seed_everything 7 (was 0)")
    config = yaml.safe_load(Path("runs/source-only/toy/default-s7/config.yaml").read_text())
    assert config["seed_everything"] == 7


@pytest.mark.fault("data-changed-between-two-starts")
def test_other_images_or_another_class_map_under_the_same_name_are_refused(
    segzoo: Segzoo, toy: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(toy.parent, root)
    space: dict[str, Any] = {**SPACE, "maps": {"raw": {0: "sky", 1: "road", 2: "car"}}}
    (root / "space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    content = yaml.safe_load(toy.read_text())
    content["data"]["root"] = str(root)
    for domain in ("source", "target"):
        content["data"][domain]["init_args"] |= {"label_space": str(root / "space.yaml"), "class_map": "raw"}
    (root / "toy.yaml").write_text(yaml.safe_dump(content))
    assert segzoo("fit", "--method", "source-only", "--data", root / "toy.yaml").status == 0

    more = ["fit", "--ckpt_path", "runs/source-only/toy/default-s0/checkpoints/last.ckpt", "--trainer.max_steps", "3"]
    space["maps"]["raw"] = {0: "road", 1: "sky", 2: "car"}
    (root / "space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    result = segzoo(*more)
    assert result.status == 2
    assert result.err.startswith("error: the class map of the source masks changed since the run began")
    space["maps"]["raw"] = {0: "sky", 1: "road", 2: "car"}
    (root / "space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    for kind in ("image", "mask"):
        shutil.copy(root / "syn" / kind / "003.png", root / "syn" / kind / "004.png")
    result = segzoo(*more)
    assert result.status == 2
    assert result.err.startswith("error: the source images (number or names) changed since the run began")


@pytest.mark.fault("run-folder-as-checkpoint")
def test_a_runs_folder_stands_for_its_last_checkpoint(segzoo: Segzoo, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "photos").mkdir()
    shutil.copy(next((trained / "figures").rglob("*.png")), tmp_path / "photos" / "a.png")
    for folder in ("run", "run/checkpoints"):
        result = segzoo("test", "--ckpt_path", folder, "--out", "scores")
        assert result.status == 0, result.err
        assert (tmp_path / "scores" / "scores-test.json").is_file()
    assert segzoo("predict", "--ckpt_path", "run", "--input", "photos", "--out", "seen").status == 0
    for arguments in (["test"], ["fit"], ["predict", "--input", "photos", "--out", "x"], ["annotate", "--out", "x"]):
        result = segzoo(*arguments, "--ckpt_path", "photos")
        assert result.status == 2
        assert result.err.startswith("error: photos is a folder without checkpoints/last.ckpt; expected a run's folder")
    result = segzoo("folds", "--run", "run/checkpoints/last.ckpt")
    assert result.err == "error: --run run/checkpoints/last.ckpt: expected the folder of a run: run\n"


@pytest.mark.fault("resumed-to-an-earlier-end")
def test_a_run_does_not_end_before_it_goes_on(segzoo: Segzoo, run: Path) -> None:
    scores = (run / "scores-test.json").stat().st_mtime_ns
    result = segzoo("fit", "--ckpt_path", run, "--trainer.max_steps", "1")
    assert result.status == 2 and "mIoU" not in result.out
    assert "is of step 2, and the training would end at step 1 (--trainer.max_steps)" in result.err
    assert (run / "scores-test.json").stat().st_mtime_ns == scores


@pytest.mark.fault("run-folder-as-checkpoint")
def test_a_run_folder_stands_for_its_last_checkpoint_as_a_starting_point_too(
    segzoo: Segzoo, run: Path, toy: Path
) -> None:
    argv = ["fit", "--method", "target-only", "--data", toy, "--network.initial_checkpoint", run]
    assert segzoo(*argv, "--trainer.max_steps", "1").status == 0
