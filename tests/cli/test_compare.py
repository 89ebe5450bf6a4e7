"""`segzoo compare`: rows, seeds, and a table of runs that are not repeated."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segzoo.cli.main import main
from segzoo.evaluation import Protocol, Scores
from segzoo.study import trainings
from segzoo.study.plan import Row
from segzoo.study.results import orders
from tests.cli.conftest import Segzoo
from tests.methods.test_contract import write_config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "joint,metapx"], "did you mean 'metapix'"),
        (["--rows", "joint", "--seeds", "many"], "expected numbers and ranges"),
        (["--rows", "joint", "--seeds", "4-0"], "expected numbers and ranges"),
        (
            ["--rows", "joint", "--trainer.max_steps", "2"],
            "'--trainer.max_steps'; options of `segzoo fit` go after `--`",
        ),
        (["--rows", "joint,joint"], "rows joint,joint: each one once"),
        (["--rows", "joint", "--seeds", "0-2,2"], "seeds 0,1,2,2: each one once"),
        (["--rows", "gan"], "the method 'gan' labels no images"),
        (
            ["--rows", "a", "--variant", "a: joint --ckpt_path x"],
            "--ckpt_path: every run is given its own",
        ),
        (["--rows", "joint", "--jobs", "0"], "--jobs 0: expected 1 or more"),
        (["--rows", "joint", "--reference", "metapix"], "is not a row"),
        (["--rows", "half", "--variant", "half joint"], "expected 'NAME: METHOD OPTIONS'"),
        (["--rows", "joint", "--variant", "joint: joint"], "a name that is no method's"),
        (["--rows", "half", "--variant", "half: jiont"], "unknown method 'jiont'; did you mean 'joint'?"),
        (["--rows", "haf", "--variant", "half: joint"], "did you mean 'half'"),
        (["--rows", "a", "--variant", "a: joint --x {jiont}"], "unknown method 'jiont'; did you mean 'joint'?"),
        (
            ["--rows", "a", "--variant", "a: joint --x {b}", "--variant", "b: joint --x {a}"],
            "row 'a' would start from itself: a from b from a",
        ),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.fault("row-that-could-be-refused-before")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--", "--trainer.limit_test_batches", "2"],
            "row 'joint': --trainer.limit_test_batches 2 scores a part of the test images",
        ),
        (["--", "--trainer.limit_test_batches=0.5"], "row 'joint': --trainer.limit_test_batches 0.5 scores a part"),
        (["--", "--trainer.fast_dev_run", "true"], "row 'joint': --trainer.fast_dev_run true scores a part"),
        (["--", "--trainer.max_time", "00:01:00:00"], "row 'joint': --trainer.max_time 00:01:00:00 stops before"),
        (["--", "--config", "part.yaml"], "row 'joint': --trainer.limit_test_batches 1 (in part.yaml) scores a part"),
        (["--", "--trainer.max_step", "2"], "row 'joint': unknown option '--trainer.max_step'; did you mean"),
        (["--", "--data", "minicty"], "row 'joint': unknown data 'minicty'; did you mean 'minicity'?"),
        (["--", "--config", "no.yaml"], "row 'joint': cannot read the configuration no.yaml"),
        (["--", "--help"], "row 'joint': no help and no configuration are printed here"),
        (["--variant", "b: metapix --optimizer.lr fast"], "row 'b': --optimizer.lr: expected float, found 'fast'"),
        (
            ["--variant", "b: metapix --trainer.limit_test_batches 1"],
            "row 'b': --trainer.limit_test_batches 1 scores a part",
        ),
        (["--variant", "b: metapix --config part.yaml"], "row 'b': --trainer.limit_test_batches 1 (in part.yaml)"),
        (
            ["--variant", "b: joint --network.initial_checkpoint {sepico}"],
            "row b starts from a checkpoint of sepico, seed 0: add sepico to the rows",
        ),
        (["--variant", "b: metapix@joint"], "variant 'b: metapix@joint': unknown method"),
    ],
)
def test_what_can_be_known_before_is_said_before(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("part.yaml").write_text("trainer: {limit_test_batches: 1}")
    rows = "joint,b" if "--variant" in arguments else "joint"
    assert main(["compare", "--rows", rows, "--seeds", "0", "--out", "out", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.fault("row-that-could-be-refused-before")
def test_a_row_of_a_mean_weight_needs_an_option_for_it_and_a_row_to_take_it_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--rows", "maxsquare@metapix,metapix", "--out", str(tmp_path)]) == 2
    assert "row 'maxsquare@metapix': unknown option '--method.weight'" in capsys.readouterr().err
    assert main(["compare", "--rows", "joint@metapix", "--out", str(tmp_path)]) == 2
    assert "no weights at" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["compare", "--rows", "joint", "--out", str(tmp_path / "file" / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: cannot write to ")


def finished(out: Path, row: str = "joint", status: str = "finished", **protocol: Any) -> Path:
    """A complete run of a row, as if `compare --rows ROW --seeds 0 -- --config some.yaml` had made it."""
    run = out / row / row / "toy" / "default-s0"
    (out / "some.yaml").touch()
    facts = {"classes": "toy", "num_classes": 2, "split": "test", "images": 3, "input_size": (4, 4)}
    Scores(np.eye(2, dtype=int), ("a", "b")).save(run, "scores-test", Protocol(**facts | protocol))
    manifest = {"status": status, "max_steps": 100, "training": {"steps": 21}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    words = orders(Row(row, row), ["--config", str(out / "some.yaml")])
    (out / f"{row}-s0.json").write_text(json.dumps(words))
    return run


def again(out: Path, *rows: str, options: tuple[str, ...] = ()) -> int:
    own = ["--rows", ",".join(rows), "--seeds", "0", "--out", str(out)]
    return main(["compare", *own, "--", "--config", str(out / "some.yaml"), *options])


def test_a_run_with_other_options_is_not_taken_for_this_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "some.yaml").write_text("trainer: {}\n")
    finished(tmp_path)
    assert again(tmp_path, "joint") == 0
    capsys.readouterr()
    assert again(tmp_path, "joint", options=("--optimizer.lr", "0.1")) == 2
    error = capsys.readouterr().err
    assert "some.yaml` and not with `--method joint --config" in error
    assert "; choose another folder with --out, or remove that run" in error
    (tmp_path / "some.yaml").write_text("trainer: {max_steps: 7}\n")
    assert again(tmp_path, "joint") == 2
    error = capsys.readouterr().err
    assert "some.yaml changed; choose another folder" in error and error.count("\n") == 1
    (tmp_path / "joint-s0.json").unlink()
    assert again(tmp_path, "joint") == 2
    assert "options that nobody noted" in capsys.readouterr().err
    (tmp_path / "joint-s0.json").write_text('{"comm')
    assert again(tmp_path, "joint") == 2
    assert "is missing or damaged" in capsys.readouterr().err


@pytest.mark.fault("comparison-on-a-full-disk")
def test_a_table_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    finished(tmp_path)
    assert again(tmp_path, "joint") == 0
    table = tmp_path / "comparison.md"
    before, limits = table.read_text(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    capsys.readouterr()
    try:
        status = again(tmp_path, "joint")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (status, capsys.readouterr().err) == (2, f"error: {table}: File too large\n")
    assert table.read_text() == before and not list(tmp_path.glob("*.partial"))


def test_a_comparison_of_few_steps_says_that_it_shows_nothing_in_all_that_it_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = "20 steps show nothing about the methods: this was a trial of the software."
    run = finished(tmp_path)
    manifest = json.loads((run / "manifest.json").read_text())
    for steps in (20, 100):
        (run / "manifest.json").write_text(json.dumps(manifest | {"max_steps": steps}))
        capsys.readouterr()
        assert again(tmp_path, "joint") == 0
        said, page = capsys.readouterr().out, (tmp_path / "report.html").read_text()
        assert main(["compare", str(tmp_path / "results.json"), "--out", str(tmp_path / "copy")]) == 0
        texts = [said, (tmp_path / "comparison.md").read_text(), page[: page.index("<nav")], capsys.readouterr().out]
        assert [few in text for text in texts] == [steps == 20] * 4


def test_scores_of_a_part_of_the_split_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path, split_images=200)
    assert again(tmp_path, "joint") == 2
    error = capsys.readouterr().err
    assert "is of 3 of 200 test images" in error and error.count("\n") == 1


def test_options_that_compare_gives_itself_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert again(tmp_path, "joint", options=("--name=mine",)) == 2
    assert "--name: every run is given its own" in capsys.readouterr().err


def test_a_training_that_was_stopped_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path, status="stopped")
    assert again(tmp_path, "joint") == 2
    assert "stopped at step 21 of 100" in capsys.readouterr().err


def test_scores_of_different_images_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path)
    finished(tmp_path, "metapix", input_size=(8, 8))
    assert again(tmp_path, "joint", "metapix") == 0, "what the network saw may differ"
    for other, words in (
        ({"input_size": None}, "input native"),
        ({"window": (4, 4)}, "window"),
        ({"flips": True}, "flips"),
    ):
        finished(tmp_path, "metapix", **other)
        assert again(tmp_path, "joint", "metapix") == 2 and words in capsys.readouterr().err
    finished(tmp_path, "metapix", images=7)
    assert again(tmp_path, "joint", "metapix") == 2
    error = capsys.readouterr().err
    assert "different protocols" in error and "test, 3 images" in error and "test, 7 images" in error


def test_a_comparison_runs_resumes_and_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, "metapix")
    out = tmp_path / "out"
    shared = "--config", str(config), "--network.encoder", "tu-test_resnet"
    arguments = ["compare", "--rows", "brief,target-only", "--seeds", "0", "--jobs", "2", "--out", str(out)]
    arguments += ["--variant", "brief: source-only --trainer.max_steps 1 --network.initial_checkpoint {target-only}"]
    config.write_text(config.read_text().replace("  weight_width: 4\n", ""))
    assert main([*arguments, "--", *shared]) == 0
    table = (out / "comparison.md").read_text()
    assert table.splitlines()[3].startswith("| target-only |  | 4 |  | 1 |") and table in capsys.readouterr().out
    brief = next(out.glob("brief/source-only/tiny/*/config.yaml")).read_text()
    assert "max_steps: 1\n" in brief
    assert f"initial_checkpoint: {next(out.glob('target-only/target-only/tiny/*/checkpoints/last.ckpt'))}\n" in brief
    logs = {log: log.stat().st_mtime_ns for log in out.glob("*.log")}
    assert len(logs) == 2
    assert main([*arguments, "--", *shared]) == 0
    assert {log: log.stat().st_mtime_ns for log in logs} == logs, "a complete run was repeated"


@pytest.mark.slow
def test_copies_of_a_process_come_to_the_numbers_of_processes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, "self-training")
    for name in ("copies", "own"):
        monkeypatch.setattr(trainings, "AVAILABLE", trainings.AVAILABLE and name == "copies")
        command = ["compare", "--rows", "self-training", "--seeds", "0-1", "--out", str(tmp_path / name)]
        assert main([*command, "--", "--config", str(config), "--network.encoder", "tu-test_resnet"]) == 0
    for seed in (0, 1):
        one, other = (
            tmp_path / name / f"self-training/self-training/tiny/default-s{seed}" for name in ("copies", "own")
        )
        for file in ("metrics.csv", "scores-test.json", "config.yaml"):
            text = (other / file).read_text().replace(str(tmp_path / "own"), str(tmp_path / "copies"))
            assert (one / file).read_text() == text, file
        weights, same = (
            torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in (one, other)
        )
        assert weights.keys() == same.keys() and all(torch.equal(value, same[key]) for key, value in weights.items())


@pytest.mark.slow
def test_a_choice_first_and_the_test_images_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, out = write_config(tmp_path, "joint"), tmp_path / "out"
    command = ["compare", "--rows", "source-only", "--seeds", "0", "--out", str(out)]
    shared = ["--", "--config", str(config), "--network.encoder", "tu-test_resnet"]
    assert main([*command, "--split", "val", *shared]) == 0
    (run,) = out.glob("source-only/source-only/tiny/default-s0")
    assert (run / "val/scores-val.json").is_file() and not list(run.rglob("*scores-test*"))
    assert [set(one["scores"]) for one in json.loads((out / "results.json").read_text())] == [{"val"}]
    assert "scores:" in (out / "source-only-s0.log").read_text(), "the log of the validation"
    weights = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    manifest = json.loads((run / "manifest.json").read_text())
    assert main([*command, *shared]) == 0
    assert "nothing to train" in (out / "source-only-s0.log").read_text()
    after = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, after[name]) for name, value in weights.items())
    (one,) = json.loads((out / "results.json").read_text())
    assert set(one["scores"]) == {"test", "val"} and one["manifest"]["training"] == manifest["training"]
    assert (out / "comparison.md").read_text() in capsys.readouterr().out


def test_a_variant_that_no_row_uses_is_refused(segzoo: Segzoo, toy: Path) -> None:
    options = ["--rows", "joint", "--seeds", "0", "--variant", "light: joint --method.weight 0.5"]
    result = segzoo("compare", *options, "--", "--data", toy)
    assert (result.status, result.err) == (
        2,
        "error: --variant light is in no row; add it to --rows, or leave it out\n",
    )
