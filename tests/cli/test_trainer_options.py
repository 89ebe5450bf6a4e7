"""Options of Lightning's Trainer do what they say, or are refused by name."""

from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Segzoo

CALLBACKS = "lightning.pytorch.callbacks"


@pytest.mark.fault("profile-that-nobody-sees")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--trainer.profiler", "simple"],
        ["--trainer.profiler", "lightning.pytorch.profilers.SimpleProfiler", "--trainer.profiler.extended", "false"],
    ],
)
def test_a_profile_is_written_and_shown(segzoo: Segzoo, toy: Path, arguments: list[str]) -> None:
    result = segzoo("fit", "--method", "source-only", "--data", toy, *arguments)
    assert result.status == 0, result.err
    found = sorted(Path("runs/source-only/toy/default-s0").glob("*-profile*.txt"))
    assert [path.name.split("-")[0] for path in found] == ["fit", "test"]
    for path in found:
        assert "run_t" in path.read_text() or "test_step" in path.read_text()
        assert f"profile: {path}" in result.out
    assert "FIT Profiler Report" in result.out
    row = next(line for line in result.out.splitlines() if "run_training_batch" in line)
    assert float(row.split()[-1].rstrip("%")) > 0 and len(row) < 160


@pytest.mark.fault("trainer-option-that-cannot-work")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [
                "--trainer.callbacks",
                f"{CALLBACKS}.GradientAccumulationScheduler",
                "--trainer.callbacks.scheduling",
                "{1: 2}",
            ],
            "--trainer.callbacks: GradientAccumulationScheduler acts after a number of epochs",
        ),
        (
            ["--trainer.callbacks", f"{CALLBACKS}.StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", "0.1"],
            "--trainer.callbacks: StochasticWeightAveraging acts after a number of epochs",
        ),
        (["--trainer.plugins", "lightning.pytorch.plugins.AsyncCheckpointIO"], "--trainer.plugins: AsyncCheckpointIO"),
        (["--trainer.profiler", "simpel"], "--trainer: When passing string value for the `profiler` parameter"),
        (["--trainer.log_every_n_steps", "-1"], "--trainer.log_every_n_steps -1: expected 0 or more"),
        (["--trainer.accumulate_grad_batches", "-1"], "--trainer.accumulate_grad_batches -1: expected above 0"),
        (["--trainer.val_check_interval", "-1"], "--trainer.val_check_interval -1: expected above 0"),
        (["--trainer.num_sanity_val_steps", "-2"], "--trainer.num_sanity_val_steps -2: expected -1 or more"),
        (["--trainer.min_steps", "4"], "--trainer.min_steps 4 is more than --trainer.max_steps 2"),
        (["--trainer.gradient_clip_val", "-1"], "--trainer.gradient_clip_val -1: expected 0 or more"),
        (["--trainer.gradient_clip_val", "1", "--trainer.gradient_clip_algorithm", "foo"], "--trainer: "),
        (["--trainer.max_time", "00:00:00:00"], "--trainer.max_time 00:00:00:00: expected above 0"),
        (
            ["--trainer.limit_test_batches", "0.1"],
            "--trainer.limit_test_batches 0.1: that share of 1 test batches is none",
        ),
        (["--trainer.limit_predict_batches", "1"], "unknown option '--trainer.limit_predict_batches'"),
        (["--trainer.reload_dataloaders_every_n_epochs", "1"], "unknown option '--trainer.reload_dataloaders_every"),
    ],
)
def test_what_cannot_work_is_refused_before_the_training(
    segzoo: Segzoo, toy: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = segzoo("fit", "--method", "source-only", "--data", toy, *arguments)
    assert result.status == 2
    assert result.err.splitlines()[-1].startswith(f"error: {message}")
    assert not list(tmp_path.rglob("default-s0*"))


def test_a_configuration_of_an_earlier_version_is_refused_by_name(segzoo: Segzoo, toy: Path) -> None:
    for content, message in (
        (
            {"model": {"lr": 1.0, "weight": 2.0}},
            "the section 'model' is gone: 'model.lr' is 'optimizer.lr' now, 'model.weight' is 'method.weight' now",
        ),
        ({"trainer": {"limit_predict_batches": None}}, "unknown key 'trainer.limit_predict_batches' (in own.yaml)"),
    ):
        Path("own.yaml").write_text(yaml.safe_dump({"method": "joint", **content}))
        result = segzoo("fit", "--data", toy, "--config", "own.yaml", "--print_config")
        assert result.status == 2 and message in result.err and result.err.count("\n") == 1
