"""Which runs of a study are trained, in what order, and what one that fails keeps from running."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from segzoo.cli.main import main
from segzoo.cli.study_run import left, train_and_score, words
from segzoo.errors import ConfigError, SegzooError
from segzoo.runtime.lock import locked
from segzoo.study.entries import image_counts, study_entries
from segzoo.study.findings import find
from segzoo.study.plan import Row
from segzoo.study.running import Training, train_all
from segzoo.study.study_file import Study, read_study
from segzoo.study.table import make_table
from segzoo.study.trainings import Trainings
from tests.study_runs import write_run, write_runs

ROWS = {
    "source-only": None,
    "joint": None,
    "tuned": "target-only --network.initial_checkpoint {source-only}",
}


def read(tmp_path: Path, seeds: str = "0-1", **change: Any) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"rows": ROWS, "seeds": seeds, "data": "minicity"} | change, sort_keys=False))
    return read_study(path)


class Trainer:
    """Trains at once, and notes what."""

    def __init__(self, study: Study, out: Path, failing: tuple[str, ...] = ()) -> None:
        self.study, self.out, self.failing = study, out, failing
        self.trained: list[str] = []
        self._noting = threading.Lock()

    def __call__(self, training: Training, log: Path, threads: Mapping[str, str]) -> int:
        name = f"{training.row.name}-s{training.seed}"
        log.write_text("a line\nthe reason\n")
        with self._noting:
            self.trained.append(name)
        if name in self.failing:
            return 1
        one = next(one for one in self.study.comparisons if training.folder.is_relative_to(one.folder(self.out)))
        run = write_run(one, self.out, training.row, training.seed, 0.7)
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "last.ckpt").touch()
        return 0


def train(study: Study, out: Path, failing: tuple[str, ...] = (), jobs: int = 2) -> tuple[list[str], list[str]]:
    trainer, said = Trainer(study, out, failing), list[str]()
    try:
        train_all(out, study, jobs, trainer, said.append)
    finally:
        said.append(",".join(trainer.trained))
    return trainer.trained, said


def test_a_study_goes_on_and_more_seeds_or_rows_only_run_what_is_new(tmp_path: Path) -> None:
    trained, said = train(read(tmp_path), tmp_path / "out")
    assert sorted(trained) == sorted(f"{row}-s{seed}" for row in ROWS for seed in (0, 1))
    assert said[-2].startswith("6/6  minicity/")
    assert train(read(tmp_path), tmp_path / "out")[0] == []
    assert sorted(train(read(tmp_path, "0-2"), tmp_path / "out")[0]) == ["joint-s2", "source-only-s2", "tuned-s2"]
    more = read(tmp_path, "0-2", rows=ROWS | {"metapix": None})
    assert sorted(train(more, tmp_path / "out")[0]) == ["metapix-s0", "metapix-s1", "metapix-s2"]
    other = read(tmp_path, options="--trainer.max_steps 9")
    with pytest.raises(ConfigError, match="choose another folder"):
        train(other, tmp_path / "out")


@pytest.mark.fault("one-run-of-a-study-fails")
def test_a_run_that_fails_keeps_only_those_that_start_from_it_from_running(tmp_path: Path) -> None:
    trainer, out = Trainer(read(tmp_path), tmp_path / "out", ("source-only-s1",)), tmp_path / "out"
    with pytest.raises(
        SegzooError, match=r"2 of 6 runs failed, the first: source-only with seed 1 failed, see .*: the reason"
    ):
        train_all(out, trainer.study, 1, trainer, lambda line: None)
    assert sorted(trainer.trained) == ["joint-s0", "joint-s1", "source-only-s0", "source-only-s1", "tuned-s0"]
    assert sorted(train(read(tmp_path), out)[0]) == ["source-only-s1", "tuned-s1"]


def failing_all(reasons: Mapping[str, str], out: Path, study: Study, jobs: int = 1) -> tuple[list[str], str]:
    """The runs that began, and what was said, where the runs of each row fail for its reason; others are trained."""
    begun: list[str] = []
    trained = Trainer(study, out)

    def fail(training: Training, log: Path, threads: Mapping[str, str]) -> int:
        begun.append(f"{training.row.name}-s{training.seed}")
        if training.row.name not in reasons:
            return trained(training, log, threads)
        log.write_text(f"step 1/9\n{reasons[training.row.name]}\n")
        return 2

    with pytest.raises(SegzooError) as error:
        train_all(out, study, jobs, fail, lambda line: None)
    return begun, str(error.value)


def test_where_two_rows_fail_for_the_same_reason_first_no_further_run_begins(tmp_path: Path) -> None:
    study = read(tmp_path, "0-2")
    weights = "error: cannot load the weights"
    begun, said = failing_all(dict.fromkeys(ROWS, weights), tmp_path / "out", study)
    assert begun == ["source-only-s0", "joint-s0"]
    assert said.startswith("2 of 9 runs failed, the first: source-only with seed 0 failed, see ")
    assert said.endswith(f"{weights}; the other 7 would fail for the same reason, and were not begun")
    assert said.count(weights) == 1
    again, _ = failing_all(dict.fromkeys(ROWS, weights), tmp_path / "out", study, jobs=2)
    assert len(again) < 9


@pytest.mark.parametrize(
    "reasons",
    [
        {"source-only": "this", "joint": "that"},  # of different reasons
        {"joint": "this", "tuned": "this"},  # of one reason, but others are trained
        {"joint": "this"},  # of one row
    ],
)
def test_rows_that_fail_beside_others_or_for_other_reasons_leave_these_alone(
    tmp_path: Path, reasons: dict[str, str]
) -> None:
    begun, said = failing_all(reasons, tmp_path / "out", read(tmp_path))
    assert "not begun" not in said
    assert set(begun) >= {f"{row}-s{seed}" for row in ("source-only", "joint") for seed in (0, 1)}


def test_a_run_that_is_complete_says_how_long_the_others_take(tmp_path: Path) -> None:
    study, said = read(tmp_path, "0", rows={"joint": None, "source-only": None}), list[str]()
    train_all(tmp_path / "out", study, 1, Trainer(study, tmp_path / "out"), said.append, lambda: ", about 9 s left")
    assert [line for line in said if line.startswith(("1/2", "2/2"))] == [
        "1/2  minicity/joint, seed 0, about 9 s left",
        "2/2  minicity/source-only, seed 0, about 9 s left",
    ]


class Recorder(Trainings):
    """Runs nothing, and notes what it was told."""

    def __init__(self, run: Path, statuses: dict[str, int]) -> None:
        super().__init__(["segzoo"], {})
        self.last, self.statuses, self.commands = run / "checkpoints" / "last.ckpt", statuses, list[list[str]]()

    def run(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        self.commands.append(list(command))
        log.write_text(f"log of {command[0]}\n")
        self.last.parent.mkdir(parents=True, exist_ok=True)
        self.last.touch()
        return self.statuses.get(command[0], 0)


@pytest.mark.parametrize("failing", [None, "fit", "validate"])
def test_rows_of_a_choice_leave_the_test_images_alone(failing: str | None, tmp_path: Path) -> None:
    row, log = Row("mine", "joint"), tmp_path / "mine-s3.log"
    run = tmp_path / "mine/joint/toy/default-s3"
    training = Training(row, 3, tmp_path / "mine", None, ("--data", "toy"))
    recorder = Recorder(run, {failing: 7} if failing else {})
    assert train_and_score(recorder, training, log, {}, "val") == (7 if failing else 0)
    fit, *rest = recorder.commands
    assert fit == [*words(training), "--trainer.limit_test_batches", "0"]
    if failing == "fit":
        assert rest == [] and log.read_text() == "log of fit\n"
        return
    assert [command[:5] for command in rest] == [
        ["validate", "--ckpt_path", str(recorder.last), "--out", str(run / "val")]
    ]
    assert log.read_text() == "log of fit\nlog of validate\n" and list(tmp_path.glob("*.log")) == [log]


def test_rows_of_a_choice_are_told_by_scores_of_validation_images_alone(tmp_path: Path) -> None:
    study, out = read(tmp_path, split="val", rows={"joint": None}), tmp_path / "out"
    write_runs(study, out, lambda row, seed: 0.6)
    run = out / "minicity/joint/joint/toy/default-s1"
    (entry, other), (tested, _) = study_entries(out, study), study_entries(out, replace(study, split="test"))
    assert set(entry["scores"]) == {"val"} and set(tested["scores"]) == {"test", "val"}
    assert image_counts(entry, out) is None and image_counts(tested, out) is not None, "of the test images"
    assert [one.split for one in find([entry, other], out)] == ["val"] and left(out, study) == []
    table = make_table(out / "minicity", study.comparisons[0], split="val")
    (run / "scores-test.json").unlink()
    assert make_table(out / "minicity", study.comparisons[0], split="val") == table and left(out, study) == []
    assert [one.name for one in left(out, replace(study, split="test"))] == ["minicity/joint-s1"]
    (run / "val/scores-val.json").unlink()
    assert len(study_entries(out, study)) == 1 and [one.seed for one in left(out, study)] == [1]


def test_two_at_once_in_one_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, out = read(tmp_path, rows={"joint": None}), tmp_path / "out"
    write_runs(study, out, lambda row, seed: 0.6)
    command = ["compare", str(tmp_path / "study.yaml"), "--out", str(out)]
    with locked(out):
        assert main(command) == 2
    assert "is being written by another process" in capsys.readouterr().err
    assert main(command) == 0


def test_one_run_beside_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, out = read(tmp_path, rows={"joint": None}), tmp_path / "out"
    write_runs(study, out, lambda row, seed: 0.6)
    command = ["compare", str(tmp_path / "study.yaml"), "--out", str(out)]
    with locked(out):  # as tasks of a cluster run while another one reports
        assert main([*command, "--run", "minicity/joint-s1"]) == 0
    assert "minicity/joint, seed 1 is complete" in capsys.readouterr().out
    assert main([*command, "--run", "minicity/jiont-s1"]) == 2
    assert "is not one of this study; did you mean 'minicity/joint-s1'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to compare: expected a study (segzoo compare STUDY.yaml) or --rows LIST"),
        (["minicty"], "unknown study 'minicty'; did you mean 'minicity'?"),
        (["no.yaml"], "no such file: no.yaml"),
        (["no.json"], "no.json is no results.json of a study"),
        (["minicity", "--rows", "joint"], "--rows joint: the rows of"),
        (["--rows", "joint", "--only", "joint"], "--only joint chooses from a study's file"),
        (["minicity", "--", "--trainer.max_step", "2"], "row 'source-only': unknown option '--trainer.max_step'"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
