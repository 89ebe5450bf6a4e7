"""Sweeps: the packaged files by wandb's own schema, the commands of its agents, and `segzoo sweep` without a server."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from segzoo.cli.expand import expand, split_arguments
from segzoo.cli.literals import plain_pairs
from segzoo.cli.options import read_options
from segzoo.cli.sections import flatten
from segzoo.cli.train import read
from segzoo.configs import config_names, config_path
from segzoo.methods.registry import load_method
from segzoo.study.trainings import Trainings
from segzoo.sweep.files import Sweep, draw, library, read_sweep
from segzoo.sweep.runs import failures_in_a_row
from segzoo.yaml_files import parse_yaml
from tests import wandb_files
from tests.cli.conftest import Segzoo

SWEEPS = config_names("sweeps")
SIMPLE = (
    st.none() | st.booleans() | st.integers(-9999, 9999) | st.floats(1e-9, 1e9) | st.sampled_from(["a", "b_c", "d-e"])
)
VALUES = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
OWN: dict[str, Any] = {
    "method": "grid",
    "metric": {"name": "val/miou", "goal": "maximize"},
    "command": ["${env}", "segzoo", "fit", "--method=source-only", "${args}"],
    "parameters": {"optimizer.lr": {"values": [0.001, 0.01]}, "seed_everything": {"values": [0, 1]}},
}


def write(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**OWN, **changes}))
    return path


def two_sets(sweep: Sweep) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = []
    for value in (0.25, 0.5):
        drawn = draw(sweep, runs)
        assert drawn is not None
        runs.append({"parameters": drawn, "state": "finished", "value": value})
    return [run["parameters"] for run in runs]


# What an agent types


@given(VALUES)
def test_values_as_python_writes_them_are_read_as_they_are(value: Any) -> None:
    ((option, text),) = plain_pairs("--data.x", str(value))
    assert option == "--data.x" and parse_yaml(text, "") == (str(value) if isinstance(value, str) else value)


@given(st.dictionaries(st.sampled_from(["encoder", "norm", "options"]), VALUES, min_size=1))
def test_a_section_as_a_whole_is_its_options(section: dict[str, Any]) -> None:
    pairs = split_arguments([f"--network={section}"])
    assert {name: parse_yaml(text or "", "") for name, text in pairs} == {
        f"--network.{key}": value for key, value in section.items()
    }


@pytest.mark.parametrize("text", ["[1, 2", "{a: null}", "[a, None]", "{1: 2}", "none", "null", "Nones", "{[]: 1}"])
def test_what_python_does_not_read_stays(text: str) -> None:
    assert plain_pairs("--network.options", text) == [("--network.options", text)]


# The packaged files


@pytest.mark.parametrize("name", SWEEPS)
def test_wandb_takes_every_packaged_sweep_and_so_does_fit(name: str) -> None:
    """Two sets of each arrive, value by value, where the method will find them."""
    path = config_path("sweeps", name)
    assert not library().schema_violations_from_proposed_config(yaml.safe_load(path.read_text()))
    sweep = read_sweep(path)
    assert (sweep.name, sweep.metric, sweep.maximize) == (name, "val/miou", True)
    assert {"method", "network", "optimizer", "data"}.isdisjoint(sweep.content["parameters"])
    sets = two_sets(sweep)
    assert sets[0] != sets[1] and sets == two_sets(sweep)
    for parameters in sets:
        invocation = expand("fit", sweep.words(parameters), read)
        assert invocation is not None
        options = read_options("fit", load_method(invocation.method), invocation)
        found = flatten(options.config)
        assert {key: found[key] for key in parameters} == parameters
        assert options.config["logger"] == "csv,wandb"


def test_the_words_are_those_of_wandbs_agent(tmp_path: Path) -> None:
    command = ["${env}", "${interpreter}", "/opt/bin/segzoo", "fit", "--data=a.yaml", "${args_no_boolean_flags}"]
    sweep = read_sweep(write(tmp_path / "own.yaml", command=command))
    assert sweep.words({"a.b": None, "c": [1, "x"], "d": 1e-05}) == [
        "--data=a.yaml",
        "--a.b=None",
        "--c=[1, 'x']",
        "--d=1e-05",
    ]
    assert sweep.name == "own"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": {"a": {"min": 3, "max": 1}}}, "is no sweep of wandb: a: min 3 is not less than max 1"),
        ({"parameters": {"a": {"value": 1, "valuse": 2}}}, "is no sweep of wandb: "),
        ({"parameters": {"a": 3}}, "is no sweep of wandb: "),
        ({"method": "rnadom"}, "is no sweep of wandb: 'rnadom' is not one of ["),
        ({"metric": {"goal": "maximize"}}, "'metric.name' is missing; expected what a run logs, e.g. val/miou"),
        ({"command": ["python", "train.py", "${args}"]}, "'command' is 'python train.py'; expected one of segzoo"),
    ],
)
def test_a_file_that_is_no_sweep_is_one_line(
    segzoo: Segzoo, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    result = segzoo("sweep", write(tmp_path / "own.yaml", **changes))
    assert result.status == 2 and message in result.err and result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["metapx", "--count", "2"], "unknown sweep 'metapx'; did you mean 'metapix'?"),
        (["metapix"], "a search by 'bayes' has no end: add --count N"),
        (["metapix", "--count", "0"], "--count 0: expected 1 or more"),
        (["methods", "--jobs", "0"], "--jobs 0: expected 1 or more"),
        (["methods", "--", "--runs", "x"], "--runs: `segzoo sweep` gives every run its own"),
        (["methods", "--", "--seed_everything=3"], "--seed_everything: the sweep draws it"),
        (["methods", "--", "--data.sise", "3"], "set 1: unknown option '--data.sise'"),
    ],
)
def test_wrong_arguments_are_one_line(segzoo: Segzoo, arguments: list[str], message: str) -> None:
    result = segzoo("sweep", *arguments)
    assert result.status == 2 and message in result.err and result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ([], True),
        (["--trainer.val_check_interval", "11"], True),
        (["--trainer.val_check_interval", "10"], False),
        (["--trainer.val_check_interval", "0.5"], False),
        (["--trainer.accumulate_grad_batches", "40"], False),
    ],
)
def test_a_search_without_a_validation_is_refused_before_its_folder_is_made(
    segzoo: Segzoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], refused: bool
) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(Trainings, "run", lambda *words: ran.append(words) or 143)
    (tmp_path / "base.yaml").write_text("trainer: {val_check_interval: 400}")
    words = ["--config", "base.yaml", "--trainer.max_steps", "10", *options]
    result = segzoo("sweep", write(tmp_path / "own.yaml"), "--count", "1", "--", *words)
    assert ("the first run would have no val/miou" in result.err) == refused
    assert bool(ran) != refused and Path("runs").exists() != refused
    if refused:
        assert result.status == 2 and "the training ends at step 10 (--trainer.max_steps)" in result.err
        assert "give an interval of 10 or less" in result.err and result.err.count("\n") == 1


def test_without_the_library_it_says_what_to_install(segzoo: Segzoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sweeps", None)
    assert "pip install 'segzoo-da[sweeps]'" in segzoo("sweep", "methods").err


# The runs


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that ended at once: the better the larger the learning rate; with seed 7 they fail, with 8 they are stopped."""
    commands: list[list[str]] = []

    def run(_: Trainings, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        commands.append(list(command))
        given = dict(word.removeprefix("--").split("=") for word in command if "=" in word)
        run = (
            Path(command[command.index("--runs") + 1]) / "source-only" / "toy" / f"default-s{given['seed_everything']}"
        )
        run.mkdir(parents=True, exist_ok=True)
        log.write_text("some\nerror: no such luck\n")
        (run / "checkpoints").mkdir(exist_ok=True)
        (run / "checkpoints" / "last.ckpt").touch()
        rate = float(given["optimizer.lr"]) + int(given["seed_everything"]) / 1e6
        (run / "metrics.csv").write_text(f"step,val/miou,train/loss\n1,0.9,\n2,{rate},\n3,,1\n")
        if given["seed_everything"] == "8" and "last" not in command:
            (run / "manifest.json").write_text('{"status": "interrupted"}')
            return 143
        (run / "manifest.json").write_text('{"status": "finished"}')
        if given["seed_everything"] == "7":
            (run / "manifest.json").write_text('{"status": "failed"}')
            return 2
        return 0

    monkeypatch.setattr(Trainings, "run", run)
    monkeypatch.setattr("segzoo.cli.sweep.expand", lambda *_: None)
    return commands


def test_a_grid_is_trained_once_and_ranked_by_its_metric(
    segzoo: Segzoo, tmp_path: Path, started: list[list[str]]
) -> None:
    path = write(tmp_path / "own.yaml")
    first = segzoo("sweep", path, "--count", "3")
    assert first.status == 0 and len(started) == 3
    again = segzoo("sweep", path)
    assert len(started) == 4 and len({tuple(words) for words in started}) == 4
    assert started[0][:2] == ["fit", "--method=source-only"] and started[0][-2:] == ["--runs", "runs/sweeps/own/001"]
    lines = [line for line in again.out.splitlines() if line.startswith("| 0.")]
    values = [line.split(" | ")[0] for line in lines]
    assert len(lines) == 4 and values == sorted(values, reverse=True)  # of step 2: the last that was logged
    assert "best: segzoo fit --method=source-only --optimizer.lr=0.01 --seed_everything=1\n" in again.out
    assert (
        Path("runs/sweeps/own/sweep.md").read_text().splitlines()[0]
        == "| val/miou | optimizer.lr | seed_everything | run |"
    )
    other = segzoo("sweep", path, "--", "--data.batch_size", "2")
    assert other.status == 2 and "was begun with another options" in other.err and len(started) == 4


def test_a_sweep_stops_at_the_first_complete_run_without_the_metric(
    segzoo: Segzoo, tmp_path: Path, started: list[list[str]]
) -> None:
    path = write(tmp_path / "own.yaml", metric={"name": "val/other", "goal": "maximize"})
    first = segzoo("sweep", path)
    assert first.status == 2 and len(started) == 1
    assert "source-only/toy/default-s0 is complete, and its metrics.csv has no val/other" in first.err
    assert "no best one: no complete run has logged val/other" in first.out and "--trainer.max_steps" in first.err
    again = segzoo("sweep", path)
    assert (again.status, again.err) == (2, first.err) and len(started) == 1, "the same command begins no further run"


def test_what_all_sets_share_stands_below_the_table(segzoo: Segzoo, tmp_path: Path, started: list[list[str]]) -> None:
    parameters = {
        "optimizer.lr": {"values": [0.1, 0.2]},
        "seed_everything": {"value": 1},
        "data.crop_size": {"values": [[96, 96]]},
    }
    out = segzoo("sweep", write(tmp_path / "own.yaml", parameters=parameters)).out
    assert "| val/miou | optimizer.lr | run |" in out
    assert "\n\nin all sets: data.crop_size [96, 96]; seed_everything 1\n\nbest: segzoo fit" in out
    assert "in all sets" not in segzoo("sweep", write(tmp_path / "two.yaml"), "--out", "two").out


def test_less_is_better_where_the_sweep_says_so(segzoo: Segzoo, tmp_path: Path, started: list[list[str]]) -> None:
    out = segzoo(
        "sweep", write(tmp_path / "own.yaml", metric={"name": "val/miou", "goal": "minimize"}), "--jobs", "2"
    ).out
    assert (
        "best: segzoo fit --method=source-only --optimizer.lr=0.001 --seed_everything=0\n" in out and len(started) == 4
    )


def test_an_interrupted_run_goes_on_and_a_failed_one_is_told(
    segzoo: Segzoo, tmp_path: Path, started: list[list[str]]
) -> None:
    parameters = {"optimizer.lr": {"value": 0.1}, "seed_everything": {"values": [8, 7, 1]}}
    path = write(tmp_path / "own.yaml", parameters=parameters)
    segzoo("sweep", path)
    assert len(started) == 1 and "last" not in started[0]
    result = segzoo("sweep", path)
    assert started[1][-2:] == ["--ckpt_path", "last"] and len(started) == 4 and result.status == 0
    assert "failed 2: no such luck" in result.err and "| failed: no such luck | 7 |" in result.out


def test_three_failures_in_a_row_end_it(segzoo: Segzoo, tmp_path: Path, started: list[list[str]]) -> None:
    parameters = {"optimizer.lr": {"values": [0.1, 0.2, 0.3, 0.4]}, "seed_everything": {"value": 7}}
    result = segzoo("sweep", write(tmp_path / "own.yaml", parameters=parameters))
    assert result.status == 1 and len(started) == 3 and "stopped: 3 trainings in a row failed" in result.err
    assert [failures_in_a_row(ended) for ended in ([], [False], [False, True], [True, False, False])] == [0, 1, 0, 2]


def test_a_draw_is_a_function_of_the_runs_and_the_seed_and_uses_their_values(tmp_path: Path) -> None:
    parameters = {"optimizer.lr": {"min": 0.0, "max": 1.0}}
    sweep = read_sweep(write(tmp_path / "own.yaml", method="bayes", parameters=parameters))
    runs = [
        {"parameters": {"optimizer.lr": x / 20}, "state": "finished", "value": -((x / 20 - 0.7) ** 2)}
        for x in range(21)
    ]
    drawn = [draw(sweep, runs, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert abs(drawn[0]["optimizer.lr"] - 0.7) < 0.2  # type: ignore[index]


# wandb itself


@pytest.mark.fault("wandb-run-goes-on")
def test_what_an_agent_starts_is_a_run_with_configuration_and_metric_and_goes_on_as_that_run(
    segzoo: Segzoo, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    sweep = read_sweep(config_path("sweeps", "ssda"))
    parameters = two_sets(sweep)[0] | {"method.fourier": 0.0}
    given = tmp_path / "config.yaml"
    given.write_text(yaml.safe_dump({"wandb_version": 1} | {name: {"value": one} for name, one in parameters.items()}))
    agent = {
        "WANDB_SWEEP_ID": "abcd",
        "WANDB_SWEEP_PARAM_PATH": str(given),
        "WANDB_RUN_ID": "ofagent",
        "WANDB_PROJECT": "mine",
    }
    for name, value in (agent | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}).items():
        monkeypatch.setenv(name, value)
    words = [*sweep.words(parameters), "--data", str(toy), "--data.target_labels", "2", "--upload_checkpoint", "True"]
    try:
        assert segzoo("fit", *words).status == 0
        wandb.finish()
        folder = Path("runs/ssda/toy/default-s0")
        assert json.loads((folder / "wandb" / "run.json").read_text()) == {
            "id": "ofagent",
            "project": "mine",
            "entity": None,
        }
        for name in agent:
            monkeypatch.delenv(name)
        assert (
            segzoo("fit", "--method", "ssda", "--data", toy, "--ckpt_path", "last", "--trainer.max_steps", "4").status
            == 0
        )
        wandb.finish()
    finally:
        wandb.teardown()
    first, second = wandb_files.read(folder)
    assert first.id == second.id == "ofagent" and first.project == second.project == "mine"
    # Whole, nested, and with the sweep's own names; nothing beside it.
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (
        first.config["method"]["pseudo"] == config["method"]["pseudo"] and first.config["network"] == config["network"]
    )
    assert first.config["data"]["size"] == [32, 32] and {name: first.config[name] for name in parameters} == parameters
    assert set(first.config) <= {*config, *parameters, "_wandb", "run"} and first.config["run"]["segzoo"]
    # The metric under the name of the sweep, last and best.
    rows = [row for row in first.history + second.history if sweep.metric in row]
    assert [run.summary[sweep.metric] for run in (first, second)] == [row[sweep.metric] for row in rows]
    assert second.summary.get("best/val/miou", first.summary["best/val/miou"]) == max(row[sweep.metric] for row in rows)
    scores = json.loads((folder / "scores-test.json").read_text())
    assert second.summary["test/miou"] == pytest.approx(scores["miou"])
    # Pictures, masks, tables, the checkpoint.
    overlay = first.summary["overlay/target"]
    assert set(overlay["all_masks"][0]) == {"label", "prediction"} and overlay["count"] == 2
    assert first.summary["classes/test"]["ncols"] == 4 and first.summary["confusion/test_table"]["nrows"] == 9
    assert "checkpoint-ofagent" in first.artifacts


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_every_packaged_sweep_runs_twice_without_a_server(
    segzoo: Segzoo, toy: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    options = ["--data", toy, "--data.size", "32", "32"]
    result = segzoo("sweep", name, "--count", "2", "--", *options)
    assert result.status == 0, result.err
    folders = sorted(Path(f"runs/sweeps/{name}").glob("0*/*/*/default-s*"))
    runs = [run for folder in folders for run in wandb_files.read(folder)]
    assert len(runs) == 2 and all("val/miou" in run.summary and run.group == name for run in runs)
