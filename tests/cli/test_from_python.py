"""A script with a plain Trainer does what the command does."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

import segzoo
from segzoo.data import from_folders
from segzoo.errors import ConfigError
from segzoo.evaluation import Scores
from segzoo.methods import SourceOnly
from tests import tiny

OWN = ("source", "target", "name", "root")


@pytest.mark.filterwarnings("ignore")
def test_scripts_and_commands_train_the_same_network(
    toy: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    root, config = toy.parent, saved["segzoo"]["config"]
    options: dict[str, Any] = {name: value for name, value in config["data"].items() if name not in OWN}
    L.seed_everything(0, verbose=False)
    data = from_folders(root / "syn", root / "real", label_space=root / "space.yaml", **options)
    method = SourceOnly(
        label_space=data.label_space, **{name: config[name] for name in ("network", "optimizer", "loss")}
    )
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_steps=2, val_check_interval=100, accelerator="cpu", **quiet)
    trainer.fit(method, data)
    trainer.test(method, data, verbose=False)
    state = method.state_dict()
    assert state.keys() == saved["state_dict"].keys()
    assert all(torch.equal(value, saved["state_dict"][name]) for name, value in state.items())
    assert method.scores == Scores.load(trained / "scores-test.json")
    # No validation came, and so none of Lightning's checkpoints.
    loaded = segzoo.load(str(trainer.log_dir)).method.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in state.items())
    assert [path.name for path in Path(str(trainer.log_dir)).glob("checkpoints/*")] == ["last.ckpt"]


def test_a_method_that_was_loaded_is_not_trained_in_evaluation_mode() -> None:
    method = tiny.method("source-only").eval()
    with pytest.raises(ConfigError, match="is in evaluation mode"):
        tiny.trainer(1).fit(method, datamodule=tiny.data())
    tiny.trainer(1).fit(method.train(), datamodule=tiny.data())
    assert method.trainer.global_step == 1
