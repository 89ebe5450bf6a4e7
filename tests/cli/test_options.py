"""Options of methods, data and trainer: their help, and what a wrong one gets to hear."""

from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Segzoo


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--method.wieght", "3"], "unknown option '--method.wieght'; did you mean '--method.weight'?"),
        (
            ["--trainer.max_step", "3"],
            "unknown option '--trainer.max_step'; did you mean '--trainer.max_steps'?",
        ),
        (["--seed", "3"], "unknown option '--seed'; did you mean '--seed_everything'?"),
        (["--out", "x"], "unknown option '--out'"),
        (
            ["--data.target.maks", "x"],
            "unknown option '--data.target.maks'; did you mean '--data.target.masks'?",
        ),
        (["--optimizer.lr"], "option '--optimizer.lr' needs a value"),
        (["--optimizer.lr", "fast"], "--optimizer.lr: expected float, found 'fast'"),
        (["--optimizer.name", "adm"], "--optimizer.name: expected one of adamw, adam, sgd, found 'adm'"),
        (["--data.target_labels", "x"], "--data.target_labels: expected int or null, found 'x'"),
        (["--data.target.gap", "x"], "--data.target.gap: expected int, found 'x'"),
        (["--data.source", "Folders"], "--data.source: no class 'Folders'; expected its import path"),
        (["--logger", "csv,tensorbord"], "unknown logger 'tensorbord'; did you mean 'tensorboard'?"),
        (["--trainer.devices", "99999"], "--trainer.devices 99999: 99999 processes, but this machine has "),
        (["--trainer.accelerator", "gpus"], "--trainer: You selected an invalid accelerator name"),
        (["--network.encoder", "resnet1"], "unknown encoder 'resnet1'; did you mean 'resnet18'?"),
        (["--data.target.images", "no/{split}"], "the folder "),
        (["--name", "a/b"], "--name 'a/b': expected a folder's name, without '/'"),
        (["--data.size", "192"], "--data.size: expected two numbers, height width, found '192'"),
        (["--data.size", "1", "2", "3"], "--data.size: expected two numbers, height width, found '[1, 2, 3]'"),
        (["--panel_steps", "0"], "--panel_steps: expected null or a whole number above 0, found '0'"),
        (["--trainer.val_check_interval", "0"], "--trainer.val_check_interval 0: expected above 0"),
        (["--trainer.accumulate_grad_batches", "0"], "--trainer.accumulate_grad_batches 0: expected above 0"),
        (["--method.weight", "-1"], "--method.weight -1.0: expected 0 or more"),
        (["--data.batch_size", "0"], "--data.batch_size 0: expected 1 or more"),
        (["--data.size", "0", "32"], "--data.size (height, width) 0: expected 1 or more"),
        (["--data.crop_scale", "0.5", "2"], "--data.crop_scale 0.5 2.0: expected the smallest and the largest share"),
        (["--data.num_workers", "-1"], "--data.num_workers -1: expected 0 or more"),
        (["--optimizer.lr", "-1"], "--optimizer.lr -1.0: expected 0 or more"),
        (["--optimizer.weight_decay", "-1"], "--optimizer.weight_decay -1.0: expected 0 or more"),
        (["--seed_everything", "-1"], "--seed_everything -1: expected 0 to 4294967295"),
        (["--data.root", "/nowhere"], "--data.root /nowhere is not a folder"),
        (["--data.target_labels", "9"], "--data.target_labels 9 but the target's train split has 4"),
        (
            ["--data.target_labels", "0"],
            "this method learns from target labels but --data.target_labels is 0",
        ),
    ],
)
def test_one_line_says_what_is_wrong(segzoo: Segzoo, toy: Path, tmp_path: Path, argv: list[str], message: str) -> None:
    result = segzoo("fit", "--method", "joint", "--data", toy, *argv)
    assert result.status == 2
    assert result.err.startswith(f"error: {message}")
    assert result.err.count("\n") == 1
    assert not list(tmp_path.rglob("default-s0*"))  # a run that never began leaves nothing


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"method": {"wight": 3}}, "unknown key 'method.wight' (in own.yaml); did you mean 'method.weight'?"),
        ({"modle": {"weight": 3}}, "unknown key 'modle.weight' (in own.yaml)"),
        ({"trainer": {"max_steps": "many"}}, "--trainer.max_steps (in own.yaml): expected int, found 'many'"),
        (
            {"data": {"target": {"init_args": {"blocs": 1}}}},
            "unknown option '--data.target.blocs' (in own.yaml); did you mean '--data.target.blocks'?",
        ),
    ],
)
def test_a_wrong_entry_names_its_file(
    segzoo: Segzoo, toy: Path, tmp_path: Path, content: dict[str, object], message: str
) -> None:
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    result = segzoo("fit", "--method", "joint", "--data", toy, "--config", "own.yaml")
    assert result.status == 2
    assert result.err.startswith(f"error: {message}")
    assert result.err.count("\n") == 1


def test_method_help_lists_the_options_of_that_method_only(segzoo: Segzoo) -> None:
    out = segzoo("fit", "--method", "metapix", "--method.help").out
    assert "--method.weight_lr" in out
    assert all(text in out for text in ("--network.encoder", "--optimizer.lr", "--speed.cuda_graph"))
    assert not any(text in out for text in ("--model", "--method.name", "--data.", "--trainer.", "label_space"))


def test_help_with_a_method_lists_everything(segzoo: Segzoo) -> None:
    out = segzoo("fit", "--method", "joint", "--help").out
    assert all(option in out for option in ("--method.weight", "--data.target_labels", "--trainer.max_steps"))
    assert "--model" not in out


def test_help_shows_the_values_that_would_be_used(segzoo: Segzoo) -> None:
    out = " ".join(segzoo("fit", "--method", "joint", "--optimizer.lr", "0.125", "--method.help").out.split())
    assert "at the start of the schedule. (type: float, default: 0.125)" in out


def test_a_class_of_data_has_help(segzoo: Segzoo) -> None:
    argv = ["--data.source.help", "segzoo.data.PairedFolders", "--data.batch_size", "2"]
    result = segzoo("fit", "--method", "joint", *argv)
    assert result.status == 0
    assert "--data.source.masks" in result.out


def test_print_config_can_be_fed_back(segzoo: Segzoo, toy: Path, tmp_path: Path) -> None:
    flags = ["--data.size", "32", "64", "--method.weight", "0.5", "--seed_everything", "3"]
    first = segzoo("fit", "--method", "joint", "--data", toy, *flags, "--print_config").out
    (tmp_path / "full.yaml").write_text(first)
    content = yaml.safe_load(first)
    assert content["data"]["size"] == [32, 64]
    assert content["method"] == {"name": "joint", "weight": 0.5, "pixel_mean": "valid"}
    assert content["seed_everything"] == 3
    assert segzoo("fit", "--config", "full.yaml", "--print_config").out == first
    changed = segzoo("fit", "--config", "full.yaml", "--seed_everything", "4", "--print_config").out
    assert yaml.safe_load(changed) == {**content, "seed_everything": 4}


def test_the_default_is_the_embedded_data(segzoo: Segzoo) -> None:
    content = yaml.safe_load(segzoo("fit", "--method", "metapix", "--print_config").out)
    assert content["data"]["name"] == "minicity"
