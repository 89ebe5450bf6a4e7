"""`segzoo choose`: what it trains, what it refuses, and what it says."""

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from segzoo.cli import choose as command
from segzoo.cli import study_run
from segzoo.study.plan import Plan
from segzoo.study.running import Training
from segzoo.study.study_file import Study, single
from segzoo.study.trainings import Trainings
from tests.cli.conftest import Segzoo
from tests.study_runs import write_run

SKILLS = {
    "target-only": 0.4,
    "joint": 0.3,
    "semi-supervised": 0.5,
    "ssda": 0.6,
    "metapix": 0.2,
    "source-only": 0.1,
    "fine-tuned": 0.45,
}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Study]]:
    """The studies that were to be trained; their runs are made up."""
    found: list[tuple[Path, Study]] = []

    def train(out: Path, study: Study, jobs: int) -> None:
        found.append((out, study))
        (one,) = study.comparisons
        for row in one.plan.rows:
            for seed in one.plan.seeds:
                if not (out / row.name).exists() or not any((out / row.name).glob(f"*/*/default-s{seed}")):
                    write_run(one, out, row, seed, SKILLS[row.name] + 0.02 * seed)

    monkeypatch.setattr(command, "train_study", train)
    return found


def chosen_warning(out: Path) -> object:
    return json.loads((out / "choice.json").read_text())["warning"]


def option(study: Study, name: str) -> str:
    common = study.comparisons[0].plan.common
    return common[common.index(name) + 1]


def test_a_few_steps_say_how_many_fit_and_the_best_row_is_named(
    segzoo: Segzoo, toy: Path, trained: list[tuple[Path, Study]]
) -> None:
    result = segzoo("choose", toy, "--hours", "1")
    assert result.status == 0, result.err
    (probed, probe), (out, study) = trained
    assert probed == out / "probe" and out == Path("runs/choose/toy") and option(probe, "--trainer.max_steps") == "16"
    rows = study.comparisons[0].plan.names
    assert (
        rows
        == probe.comparisons[0].plan.names
        == ("target-only", "semi-supervised", "ssda", "source-only", "fine-tuned")
    )
    # 61 s for 200 steps, 10 s around them, in which the 2 test images are; 5 validations have 2 images each.
    steps = int(option(study, "--trainer.max_steps"))
    assert steps == int((3600 - 10 * 60) / (10 * 61 / 200)) // 5 * 5
    assert option(study, "--trainer.val_check_interval") == str(steps // 5)
    assert "3 labelled and 1 unlabelled photographs to learn from; 2 to choose by, 2 to test" in result.out
    assert "rows to train, recommended for these photographs (--rows LIST trains others):\n  target-only " in result.out
    assert "Take ssda: " in result.out and "points over target-only, with every seed" in result.out
    assert (out / "choice.txt").read_text() in result.out and (out / "report.html").is_file()
    chosen = json.loads((out / "choice.json").read_text())
    assert chosen["take"] == "ssda" and chosen["steps"] == steps and (out / chosen["run"] / "manifest.json").is_file()
    assert chosen["run"].endswith("default-s1")  # its better seed
    assert f"segzoo predict --ckpt_path {out / chosen['run']} --input PHOTOS --out labelled" in result.out
    # The runs that cost most begin first, and the time that is left is told by what they cost.
    assert study.comparisons[0].costs == dict.fromkeys(rows, pytest.approx(steps * 61 / 200 + 60))
    page = html.unescape((out / "report.html").read_text())
    needed = "fine-tuned also needs the training of source-only, whose steps and minutes are not in its line."
    assert needed in page[page.index("-costs") :] and page.count("also needs the training") == 1
    assert "trial of the software" not in result.out + page and chosen_warning(out) is None
    again = segzoo("choose", toy, "--hours", "1")
    assert again.status == 0 and [one for one, _ in trained[2:]] == [probed, out] and again.out == result.out


def test_rows_and_steps_of_ones_own(segzoo: Segzoo, toy: Path, trained: list[tuple[Path, Study]]) -> None:
    words = [
        "--steps",
        "8",
        "--rows",
        "target-only,metapix",
        "--seeds",
        "1",
        "--data.target_labels",
        "2",
        "--out",
        "mine",
    ]
    result = segzoo("choose", toy, *words, "--", "--optimizer.lr", "0.1")
    assert result.status == 0 and "2 labelled and 2 unlabelled" in result.out
    assert "rows to train, as --rows has them:\n  target-only " in result.out and "2 trainings of 8 steps" in result.out
    ((out, study),) = trained
    plan = study.comparisons[0].plan
    assert (out, plan.names, plan.seeds) == (Path("mine"), ("target-only", "metapix"), (1,))
    assert option(study, "--trainer.max_steps") == "8" and option(study, "--trainer.val_check_interval") == "2"
    assert option(study, "--data.target_labels") == "2" and option(study, "--optimizer.lr") == "0.1"
    assert "Take target-only: " in result.out and "with one seed, which says nothing" in result.out
    few = "8 steps show nothing about the methods: this was a trial of the software."
    assert f"\n{few}\nTake target-only" in result.out and f"\n{few}\n" in (out / "choice.txt").read_text()
    assert json.loads((out / "choice.json").read_text())["warning"] == few
    page = (out / "report.html").read_text()
    assert f"<p>{few}</p>" in page[: page.index("<nav")]


def test_other_steps_in_the_same_folder_are_told_the_option_for_another(
    segzoo: Segzoo, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Path] = []

    def fit(trainings: Trainings, training: Training, log: Path, environment: Mapping[str, str], split: str) -> int:
        at = training.options.index("--trainer.max_steps")
        (one,) = single(Plan((training.row,), (0,), training.row.name, training.options)).comparisons
        run = write_run(one, training.folder.parent, training.row, training.seed, 0.5)
        (run / "metrics.csv").write_text(f"step,val/miou\n{training.options[at + 1]},0.5\n")
        (run / "manifest.json").write_text(
            (run / "manifest.json").read_text().replace('"max_steps": 200', f'"max_steps": {training.options[at + 1]}')
        )
        log.touch()
        trained.append(run)
        return 0

    monkeypatch.setattr(study_run, "train_and_score", fit)
    words = ["choose", toy, "--rows", "target-only", "--seeds", "0"]
    assert segzoo(*words, "--steps", "20").status == 0 and len(trained) == 1
    result = segzoo(*words, "--steps", "30")
    assert result.status == 2 and "--trainer.max_steps 30" in result.err and result.err.count("\n") == 1
    assert result.err.endswith("; choose another folder with --out, or remove that run\n")
    assert segzoo(*words, "--steps", "30", "--out", "other").status == 0 and len(trained) == 2


def test_the_help_says_what_is_trained_and_how_few_steps_there_may_be(segzoo: Segzoo) -> None:
    said = " ".join(segzoo("choose", "--help").out.split())
    assert "Only these are trained. --rows LIST trains those of the list instead" in said and "at least 1" in said


def test_the_report_begins_with_the_choice_of_the_validation_images(
    segzoo: Segzoo, toy: Path, trained: list[tuple[Path, Study]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(out: Path, study: Study, jobs: int) -> None:
        (one,) = study.comparisons
        for row, val in zip(one.plan.rows, ("0.7", "0.9"), strict=True):
            for seed in one.plan.seeds:
                # The test images would take the row that the validation images do not.
                run = write_run(one, out, row, seed, {"target-only": 0.9, "joint": 0.2}[row.name])
                (run / "metrics.csv").write_text(f"step,val/miou\n99,0.5\n199,{val}\n")

    monkeypatch.setattr(command, "train_study", train)
    result = segzoo("choose", toy, "--steps", "200", "--rows", "target-only,joint", "--out", "mine")
    assert result.status == 0, result.err
    table = r"^row +val mIoU % +by seed +test mIoU %\njoint +90.0 +90.0 90.0 +[\d.]+\ntarget-only +70.0 .* –$"
    assert re.search(table, result.out, re.MULTILINE)
    page = html.unescape(Path("mine/report.html").read_text())
    lines = Path("mine/choice.txt").read_text().split("\n\n", 1)[1].splitlines()
    assert lines[0].startswith("Take joint: 90.0 % mIoU on 2 validation images (seeds 0, 1), ")
    answers = page[page.index('<div class="answer">') : page.index("<nav")]
    assert answers.split("<p>")[1].startswith(lines[0]) and all(line.strip() in answers for line in lines)
    assert "highest mean" not in page
    ranking, rest = page[page.index('id="choice"') :].split("</section>", 1)
    ranked = [
        re.findall(r"<t[hd][^>]*>([^<]*)<", line) for line in ranking.splitlines() if line.startswith("<tr><th scope")
    ]
    assert [line[:2] for line in ranked] == [["joint", "90.0"], ["target-only", "70.0"]] and ranked[1][3] == "–"
    assert f"{ranked[0][3]} % on 2 test images" in lines[0] and "test mIoU of the chosen row" in ranking
    assert "Scores on the test images, after the choice" in rest and "Take no other row because of them" in rest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0"], "--steps 0: expected 1 or more"),
        (["--hours", "-1"], "--hours -1.0: expected 0 or more"),
        (["--jobs", "0"], "--jobs 0: expected 1 or more"),
        (["--hours", "0.01"], "too little time: 100 steps, the least, of 5 rows and 2 seeds take 0."),
        (["--rows", "target-only,jiont"], "unknown method 'jiont'; did you mean 'joint'?"),
        (["--rows", "gan"], "labels no images"),
        (["--seeds", "two"], "seeds two: expected numbers and ranges"),
        (["--", "--trainer.max_steps", "7"], "`segzoo choose` sets the steps; give --steps N, or --hours"),
        (["--", "--seed_everything", "7"], "--seed_everything: every run is given its own; leave it out"),
        (["--", "--trainer.limit_test_batches", "1"], "scores a part of the test images"),
        (["--data.sizes", "7"], "sizes"),
    ],
)
def test_what_cannot_be_is_one_line(
    segzoo: Segzoo, toy: Path, trained: list[tuple[Path, Study]], words: list[str], message: str
) -> None:
    result = segzoo("choose", toy, *words)
    assert result.status == 2 and message in result.err and result.err.count("\n") == 1


def test_without_labelled_validation_images_there_is_nothing_to_choose_by(
    segzoo: Segzoo, toy: Path, tmp_path: Path, trained: list[tuple[Path, Study]]
) -> None:
    content: dict[str, Any] = yaml.safe_load(toy.read_text())
    del content["data"]["target"]["init_args"]["masks"]
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(content))
    result = segzoo("choose", tmp_path / "bare.yaml")
    assert result.status == 2 and not trained
    assert "the target has no labelled val images: rows are chosen on val" in result.err
    assert "--data.target.blocks 0.5 0.25 0.25" in result.err and "train `self-training`" in result.err


def test_a_row_that_failed_leaves_a_choice_of_the_others(
    segzoo: Segzoo, toy: Path, trained: list[tuple[Path, Study]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from segzoo.errors import SegzooError

    whole = command.train_study

    def train(out: Path, study: Study, jobs: int) -> None:
        whole(out, study, jobs)
        for run in out.glob("ssda/*/*/default-s*/scores-test.json"):
            run.unlink()
        raise SegzooError("ssda with seed 0 failed")

    monkeypatch.setattr(command, "train_study", train)
    result = segzoo("choose", toy, "--steps", "100")
    assert result.status == 2 and "ssda with seed 0 failed" in result.err and "Take semi-supervised: " in result.out


def test_where_all_failed_their_reason_is_said(segzoo: Segzoo, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segzoo.errors import SegzooError

    def train(out: Path, study: Study, jobs: int) -> None:
        raise SegzooError("joint with seed 0 failed: no weights")

    monkeypatch.setattr(command, "train_study", train)
    result = segzoo("choose", toy, "--steps", "100")
    assert result.status == 2 and result.err == "error: joint with seed 0 failed: no weights\n"


@pytest.mark.slow
def test_it_trains_and_its_choice_can_be_used(segzoo: Segzoo, toy: Path) -> None:
    result = segzoo("choose", toy, "--steps", "5", "--seeds", "0", "--rows", "target-only,ssda")
    assert result.status == 0, result.err
    chosen = json.loads(Path("runs/choose/toy/choice.json").read_text())
    assert len(chosen["rows"]) == 2 and f"Take {chosen['take']}: " in result.out
    run = Path("runs/choose/toy") / chosen["run"]
    photos = toy.parent / "real" / "test" / "image"
    assert segzoo("predict", "--ckpt_path", run, "--input", photos, "--out", "labelled").status == 0
