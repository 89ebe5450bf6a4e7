"""What `segzoo fit` says before it trains, and what it does not say or draw."""

import csv
import re
from pathlib import Path

import pytest

from segzoo.callbacks import Opening, StepProgress
from segzoo.callbacks.opening import _pretrained
from tests import tiny
from tests.cli.conftest import Segzoo


def opening(text: str) -> dict[str, str]:
    lines = text.splitlines()
    last = next(i for i, line in enumerate(lines) if line.startswith("writes to: "))
    parts = [line.partition(": ") for line in lines[last - 5 : last + 1]]
    return {name: rest for name, _, rest in parts}


@pytest.mark.fault("silent-start")
def test_fit_says_what_it_trains_on_what_and_where(segzoo: Segzoo, toy: Path) -> None:
    result = segzoo("fit", "--method", "joint", "--data", toy, "--name", "said")
    assert result.status == 0
    said = opening(result.out)
    assert list(said) == ["joint", "device", "data", "batch", "steps", "writes to"]
    hint = "pretrained ones: --network.encoder_weights imagenet or --network.encoder_checkpoint FILE"
    network = rf"unet with tu-test_resnet, \d\.\d M parameters; random weights \({re.escape(hint)}\)"
    assert re.fullmatch(network, said["joint"])
    assert said["device"] == "cpu, precision 32-true"
    assert said["data"] == "toy, source 4 images; target 3 of 4 images labelled; val 2; test 2"
    assert said["batch"] == "2 images per domain, 32x32 (WxH)"
    assert (said["steps"], said["writes to"]) == ("2", "runs/joint/toy/said-s0")
    assert result.out.endswith("run folder: runs/joint/toy/said-s0\n")
    last = "runs/joint/toy/said-s0/checkpoints/last.ckpt"
    result = segzoo("fit", "--ckpt_path", last, "--trainer.max_steps", "3")
    said = opening(result.out)
    assert said["steps"] == "continues at step 2 of 3" and said["joint"].endswith(f"weights of the checkpoint {last}")
    accumulated = ("--trainer.accumulate_grad_batches", "2")
    result = segzoo("fit", "--method", "source-only", "--data", toy, "--network.initial_checkpoint", last, *accumulated)
    said = opening(result.out)
    assert said["batch"] == "2 images per domain x 2 accumulated, 32x32 (WxH)"
    assert said["source-only"].endswith(f"; weights of {last}")
    assert said["data"] == "toy, source 4 images; val 2; test 2"


@pytest.mark.fault("constant-weight-shown-as-learned")
def test_a_constant_weight_is_neither_logged_nor_drawn(
    segzoo: Segzoo, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segzoo.cli.run.StepProgress", lambda: StepProgress(seconds=0))
    for method, weighs in (("joint", False), ("metapix", True)):
        result = segzoo("fit", "--method", method, "--data", toy, "--name", "weights")
        folder = Path(f"runs/{method}/toy/weights-s0")
        with (folder / "metrics.csv").open() as file:
            names = csv.DictReader(file).fieldnames or []
        assert ("weight/mean" in names) == weighs == ("weight/mean" in result.out)
        assert (folder / "figures" / "weights.png").is_file() == weighs
        assert (folder / "figures" / "curves.png").is_file()


@pytest.mark.fault("silent-start")
def test_a_training_that_time_ends_says_so(segzoo: Segzoo, toy: Path) -> None:
    limits = ["--trainer.max_steps", "-1", "--trainer.max_time", "00:00:00:01", "--optimizer.schedule", "constant"]
    result = segzoo("fit", "--method", "source-only", "--data", toy, *limits)
    assert opening(result.out)["steps"] == "until 0:01 have passed"


@pytest.mark.fault("silent-start")
def test_the_expected_time_is_said_once_after_some_steps(capsys: pytest.CaptureFixture[str]) -> None:
    for steps, every, said in ((4, 2, 1), (2, 2, 0)):
        options = {"callbacks": [Opening("run", steps=2)], "val_check_interval": every, "limit_val_batches": 1}
        tiny.fit("source-only", steps, trainer_options=options | {"check_val_every_n_epoch": None})
        out = capsys.readouterr().out
        assert out.count("expected time: ") == said
        assert "expected time: 0:0" not in out or out.endswith("for the 1 steps that are left, without validation\n")


def test_only_weights_that_there_are_are_recommended() -> None:
    assert _pretrained("resnet18")[0] == "imagenet" and _pretrained("tu-none") == [] == _pretrained("own")
