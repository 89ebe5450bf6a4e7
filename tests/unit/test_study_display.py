"""What is shown of a study, how its runs get GPUs, and its script for a cluster."""

import io
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from segzoo.cli.main import main
from segzoo.cli.places import Places, environment, visible_gpus
from segzoo.cli.study_display import StudyDisplay, last_line, span


def step(log: Path, number: int, of: int = 100, left: str = "0:30") -> None:
    with log.open("a") as file:
        file.write(f"step {number}/{of} ({number}%), 2.00 steps/s, {left} left, train/loss 0.5\n")


def test_the_last_line_of_progress(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_line(log) == ""
    log.write_text("hello\n")
    assert last_line(log) == ""
    step(log, 10)
    step(log, 20)
    log.open("a").write("a warning\nstep 3 of what\n")
    assert last_line(log).startswith("step 20/100 (20%)")
    log.open("a").write("x" * 9000)
    assert last_line(log) == "", "too far from the end to be looked for"


def test_the_time_that_is_left(tmp_path: Path) -> None:
    now = [0.0]
    display = StudyDisplay(dict.fromkeys("abcde", 1.0), 2, Console(file=io.StringIO()), clock=lambda: now[0])
    assert display.seconds_left() is None and display.time_left() == ""
    logs = {name: tmp_path / name for name in "abc"}
    for name in "ab":
        logs[name].touch()
        display.begin(name, logs[name])
    now[0] = 10.0
    assert display.seconds_left() is None, "nothing is known before the first line of progress"
    step(logs["a"], 25)
    step(logs["b"], 25)
    # each takes 40 s as a whole: 30 s of the two, and three of 40 s, on two jobs
    assert display.seconds_left() == pytest.approx((30 + 30 + 3 * 40) / 2)
    now[0] = 40.0
    display.end("a")
    display.end("b")
    assert display.seconds_left() == pytest.approx(3 * 40 / 2)
    display.begin("c", logs["c"])
    now[0] = 50.0
    step(logs["c"], 1, left="1:00:05")
    assert display.seconds_left() == pytest.approx(3605), "no sooner than the longest one"


def test_the_time_that_is_left_knows_what_rows_cost(tmp_path: Path) -> None:
    now = [0.0]
    costs = {"ssda-s0": 3.0, "joint-s0": 2.0, "target-only-s0": 1.0}
    display = StudyDisplay(costs, 1, Console(file=io.StringIO()), clock=lambda: now[0])
    display.begin("ssda-s0", tmp_path / "a")
    now[0] = 180.0
    display.end("ssda-s0")
    assert display.seconds_left() == pytest.approx(180) and display.time_left() == ", about 3 min 00 s left"
    display.begin("joint-s0", tmp_path / "b")
    now[0] = 210.0
    assert display.seconds_left() == pytest.approx(90 + 60), (
        "of one that says nothing yet: what it costs, less what it took"
    )
    display.end("joint-s0")
    display.begin("target-only-s0", tmp_path / "c")
    display.end("target-only-s0")
    assert display.time_left() == "", "nothing is left to do"


@given(costs=st.lists(st.floats(0.001, 50), min_size=2, max_size=6), unit=st.floats(0.1, 1000))
def test_trainings_that_take_what_they_cost_take_as_long_as_was_said(costs: list[float], unit: float) -> None:
    now = [0.0]
    named = {str(number): cost for number, cost in enumerate(costs)}
    display = StudyDisplay(named, 1, Console(file=io.StringIO()), clock=lambda: now[0])
    for number, cost in enumerate(costs):
        display.begin(str(number), Path("no log"))
        now[0] += unit * cost
        display.end(str(number))
        assert display.seconds_left() == pytest.approx(unit * sum(costs[number + 1 :]), rel=1e-6, abs=1e-6)


def test_a_terminal_shows_all_runs_and_a_file_only_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "joint-s0.log"
    step(log, 30)
    screen = io.StringIO()
    pending = dict.fromkeys(("minicity/joint-s0", "minicity/joint-s1", "minicity/joint-s2"), 1.0)
    with StudyDisplay(pending, 1, Console(file=screen, force_terminal=True, width=120)) as display:
        display.begin("minicity/joint-s0", log, "GPU 1")
        display.say("1/3  joint, seed 0 [not markup]")
    shown = screen.getvalue()
    assert "minicity/joint-s0" in shown and "GPU 1" in shown and "30/100" in shown and "3 runs to do" in shown
    assert "[not markup]" in shown
    with StudyDisplay(pending, 1, Console(file=io.StringIO())) as display:
        display.begin("minicity/joint-s0", log)
        display.say("a line")
    assert capsys.readouterr().out == "a line\n"


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (65, "1 min 05 s"), (3600 * 2 + 61, "2 h 01 min")])
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_runs_beside_each_other_get_different_gpus() -> None:
    places, held = Places(4, ["2", "5"]), []
    barrier = threading.Barrier(4)

    def hold() -> None:
        with places.take() as place:
            held.append(place)
            barrier.wait(10)

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(held) == ["2", "2", "5", "5"]
    with places.take() as place:
        assert environment(place) == {"CUDA_VISIBLE_DEVICES": place}
    for jobs, gpus in ((1, ["0", "1"]), (2, ["0"]), (2, [])):
        with Places(jobs, gpus).take() as place:
            assert place == "" and environment(place) == {}


def test_gpus_that_were_given_to_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-7a")
    assert visible_gpus() == ["3", "GPU-7a"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


@pytest.mark.skipif(os.name != "posix", reason="a script for bash")
def test_the_script_for_slurm_gives_every_run_to_a_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = {"source-only": None, "tuned": "joint --network.initial_checkpoint {source-only}"}
    Path("a study.yaml").write_text(yaml.safe_dump({"rows": rows, "seeds": "0-1", "data": "minicity"}, sort_keys=False))
    assert main(["compare", "a study.yaml", "--slurm", "--", "--name_of.nobody", "1"]) == 2
    capsys.readouterr()
    assert main(["compare", "a study.yaml", "--slurm", "--", "--data.batch_size", "2"]) == 0
    Path("submit.sh").write_text(capsys.readouterr().out)
    # An sbatch that notes what it was given, and does the tasks at once; and a segzoo that notes its words.
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sbatch").write_text(
        '#!/bin/bash\nprintf "%s\\n" "sbatch $*" >> sbatch.log\nwhile (( $# > 1 )); do shift; done\n'
        'for i in 0 1; do SLURM_ARRAY_TASK_ID=$i sh -c "$1"; done; echo "17;cluster"\n'
    )
    (tools / "segzoo").write_text('#!/bin/bash\nprintf "<%s>" "$@" >> segzoo.log; echo >> segzoo.log\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    environ: dict[str, Any] = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    subprocess.run(["bash", "submit.sh", "--gres=gpu:1"], check=True, env=environ, capture_output=True, timeout=60)
    calls = Path("segzoo.log").read_text().splitlines()
    start, end = "<compare><a study.yaml>", "<--><--data.batch_size><2>"
    names = ["source-only-s0", "source-only-s1", "tuned-s0", "tuned-s1"]
    assert calls[:4] == [f"{start}<--run><minicity/{name}>{end}" for name in names]
    assert calls[4] == f"{start}<--report>{end}"
    submitted = [line for line in Path("sbatch.log").read_text().splitlines() if line.startswith("sbatch")]
    assert len(submitted) == 3 and "--array=0-1" in submitted[0] and "--gres=gpu:1" in submitted[1]
    assert "--dependency" not in submitted[0]
    assert all("--dependency=afterany:17 " in line for line in submitted[1:])
