"""Real signals to real processes: nothing is lost, and what is continued ends in the same bits."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from segzoo.callbacks import Interruption
from segzoo.stopping import Stopped, StopRequest
from segzoo.study.results import check_complete
from tests.processes import Fork, at

LAST = Path("runs/joint/toy/default-s0/checkpoints/last.ckpt")


def fit(toy: Path, *more: str) -> list[Any]:
    """Twelve steps, validated and saved after every third."""
    options = {
        "--trainer.max_steps": 12,
        "--trainer.val_check_interval": 3,
        "--checkpoint_steps": 3,
        "--panel_steps": 100,
        "--trainer.enable_model_summary": "false",
    }
    return ["fit", "--method", "joint", "--data", toy, *(w for pair in options.items() for w in pair), *more]


@pytest.fixture(scope="module")
def whole(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an uninterrupted training."""
    folder = tmp_path_factory.mktemp("whole")
    ended = Fork(folder, *fit(toy)).wait()
    assert ended.status == 0, ended.err
    return folder / "runs/joint/toy/default-s0"


def assert_same_run(whole: Path, run: Path) -> None:
    one, two = (torch.load(path / "checkpoints/last.ckpt", weights_only=True) for path in (whole, run))
    assert one["global_step"] == two["global_step"] == 12 and one["loops"] == two["loops"]
    assert [n for n, value in one["state_dict"].items() if not torch.equal(value, two["state_dict"][n])] == []
    assert str(one["optimizer_states"]) == str(two["optimizer_states"])
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    for name in ("scores-test.csv", "scores-test.json"):
        assert (run / name).read_text() == (whole / name).read_text()


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


LINUX = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes in /proc")
MOMENTS = [
    pytest.param("on_train_batch_start", 4, "SIGINT", 2, 5, marks=pytest.mark.fault("ctrl-c")),
    pytest.param("on_before_optimizer_step", 4, "SIGTERM", 2, 5, marks=pytest.mark.fault("sigterm")),
    pytest.param("on_train_batch_start", 7, "SIGHUP", 0, 8, marks=pytest.mark.fault("sighup")),
    pytest.param("on_validation_batch_start", 6, "SIGTERM", 0, 6, marks=pytest.mark.fault("stopped-in-validation")),
    pytest.param("on_validation_batch_start", 6, "SIGINT", 0, 6, marks=[pytest.mark.slow, pytest.mark.fault("ctrl-c")]),
    pytest.param("on_train_end", 12, "SIGTERM", 0, 12, marks=[pytest.mark.slow, pytest.mark.fault("sigterm")]),
    pytest.param("on_test_batch_start", 12, "SIGINT", 0, 12, marks=pytest.mark.fault("stopped-in-test")),
]


@LINUX
@pytest.mark.parametrize(("hook", "step", "name", "workers", "saved"), MOMENTS)
def test_a_signal_saves_and_the_run_goes_on_bit_for_bit(
    hook: str, step: int, name: str, workers: int, saved: int, toy: Path, whole: Path, tmp_path: Path
) -> None:
    number = signal.Signals[name]
    argv = fit(toy, "--data.num_workers", str(workers), *(["--checkpoint_steps", "100"] if step != 12 else []))

    def send() -> None:
        os.killpg(os.getpid(), number)  # as a terminal does
        if number == signal.SIGTERM:  # as the system's own manager does: to every process
            for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                os.kill(int(child), number)

    ended = Fork(tmp_path, *argv, callback=at(hook, step, send)).wait()
    assert (ended.status, ended.err) == (
        128 + number,
        f"interrupted; continue with: segzoo fit --ckpt_path {LAST}\n",
    )
    run = tmp_path / LAST.parents[1]
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == saved
    assert (manifest(run)["status"], manifest(run)["training"]["steps"]) == ("stopped", saved)
    assert not list(run.rglob("*.partial"))
    ended = Fork(tmp_path, *argv, "--ckpt_path", "last").wait()
    assert ended.status == 0, ended.err
    assert_same_run(whole, run)


@pytest.mark.fault("stopped-before-the-first-step")
@pytest.mark.parametrize("hook", ["on_train_start", pytest.param("setup", marks=pytest.mark.slow)])
def test_a_signal_before_the_first_step_leaves_nothing(hook: str, toy: Path, tmp_path: Path) -> None:
    act = at(hook, 0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    ended = Fork(tmp_path, *fit(toy), callback=act).wait()
    line = "interrupted before the first checkpoint; nothing to continue from\n"
    assert (ended.status, ended.err) == (143, line)
    assert not list((tmp_path / "runs").rglob("default-s0"))


@pytest.mark.fault("sighup")
def test_under_nohup_the_end_of_the_login_is_no_end(toy: Path, tmp_path: Path) -> None:
    ended = Fork(
        tmp_path,
        *fit(toy),
        before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        callback=at("on_train_batch_start", 4, lambda: os.kill(os.getpid(), signal.SIGHUP)),
    ).wait()
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.slow
@pytest.mark.fault("sigterm")
def test_a_signal_between_the_batches_of_a_step_waits_for_its_last(toy: Path, tmp_path: Path) -> None:
    def command(folder: str, *more: str, **how: Any) -> int:
        return Fork(tmp_path / folder, *fit(toy, "--trainer.accumulate_grad_batches", "3", *more), **how).wait().status

    hooks = ("on_after_backward", "on_before_optimizer_step")
    assert command("whole") == 0
    for hook in hooks:
        act = at(hook, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert command(hook, callback=act) == 143
        assert torch.load(tmp_path / hook / LAST, weights_only=True)["global_step"] == 5
        assert command(hook, "--ckpt_path", "last") == 0
        assert_same_run(tmp_path / "whole" / LAST.parents[1], tmp_path / hook / LAST.parents[1])


@pytest.mark.fault("ctrl-c-twice")
def test_a_second_interrupt_ends_at_once(toy: Path, tmp_path: Path) -> None:
    def hang() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)  # two presses of a key; the system merges what comes at once
        time.sleep(60)

    started = time.monotonic()
    ended = Fork(tmp_path, *fit(toy), callback=at("on_train_batch_start", 4, hang)).wait()
    assert (ended.status, ended.err) == (130, "interrupted twice: ended at once\n")
    assert time.monotonic() - started < 40
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 3
    assert manifest(tmp_path / LAST.parents[1])["status"] == "stopped"


@pytest.mark.fault("stopped-scoring")
def test_a_signal_ends_scoring_without_half_a_result(whole: Path, tmp_path: Path) -> None:
    argv = ["test", "--ckpt_path", whole / "checkpoints/last.ckpt", "--out", tmp_path / "scores"]
    act = at("on_test_batch_start", 0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    ended = Fork(tmp_path, *argv, callback=act).wait()
    assert (ended.status, ended.err) == (143, "interrupted\n")
    assert not list((tmp_path / "scores").rglob("scores*"))


@pytest.mark.fault("killed-after-a-checkpoint")
@pytest.mark.parametrize(
    ("hook", "step"),
    [
        ("on_validation_batch_start", 6),
        ("on_train_batch_start", 6),
        pytest.param("on_train_batch_start", 8, marks=pytest.mark.slow),
        pytest.param("on_validation_end", 6, marks=pytest.mark.slow),
        pytest.param("on_test_start", 12, marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_moment_no_row_is_lost(hook: str, step: int, toy: Path, whole: Path, tmp_path: Path) -> None:
    ended = Fork(tmp_path, *fit(toy), callback=at(hook, step, lambda: os.kill(os.getpid(), signal.SIGKILL))).wait()
    assert ended.status == -signal.SIGKILL
    ended = Fork(tmp_path, *fit(toy), "--ckpt_path", "last").wait()
    assert ended.status == 0, ended.err
    assert_same_run(whole, tmp_path / LAST.parents[1])


@pytest.mark.fault("manifest-of-a-resumed-run")
def test_the_manifest_keeps_the_first_start_and_lists_the_others(toy: Path, tmp_path: Path) -> None:
    argv, run = fit(toy, "--trainer.limit_val_batches", "0"), tmp_path / LAST.parents[1]
    assert Fork(tmp_path, *argv, "--trainer.max_steps", "2").wait().status == 0
    first = manifest(run)
    assert (first["seed"], first["resumed_at_step"]) == (0, None) and "resumed" not in first
    for steps in ("4", "5"):
        assert Fork(tmp_path, *argv, "--trainer.max_steps", steps, "--ckpt_path", "last").wait().status == 0
    last = manifest(run)
    assert (last["started"], last["command"]) == (first["started"], first["command"])
    assert [entry["step"] for entry in last["resumed"]] == [2, 4]
    assert last["resumed"][0].keys() == {"started", "command", "step", "changed"}
    assert last["training"]["steps"] == 5 and last["status"] == "finished"


@pytest.mark.fault("run-folder-removed")
def test_a_run_folder_that_is_removed_is_made_again_complete(toy: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / LAST.parents[1]
    ended = Fork(tmp_path, *fit(toy), callback=at("on_train_batch_start", 7, lambda: run.rename(tmp_path / "moved")))
    assert ended.wait().status == 0
    assert_same_run(whole, run)
    for name in ("config.yaml", "manifest.json", "confusion.npz"):
        assert (run / name).is_file(), name
    assert manifest(run)["status"] == "finished"


def processes(toy: Path, folder: Path, *more: str) -> subprocess.Popen[str]:
    """Two of them, in a session of their own."""
    devices = ["--trainer.devices=2", "--trainer.strategy=ddp", *more]
    command = [sys.executable, "-m", "segzoo", *map(str, fit(toy, "--checkpoint_steps", "100", *devices))]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ranks(main: int) -> list[int]:
    """The process ids by rank."""
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    return [main, *(int(c) for c in children if b"LOCAL_RANK=1" in Path(f"/proc/{c}/environ").read_bytes())]


def gone(pid: int) -> bool:
    """Whether a process has ended, at most a moment from now; one whose parent was killed may stay listed as a zombie."""
    for _ in range(100):
        status = Path(f"/proc/{pid}/status")
        try:
            if "State:\tZ" in status.read_text():
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def wait_for_steps(run: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not ((run / "metrics.csv").is_file() and len((run / "metrics.csv").read_text().splitlines()) > 2):
        assert process.poll() is None and time.monotonic() < deadline, "no step was taken"
        time.sleep(0.01)


@LINUX
@pytest.mark.fault("signal-to-one-of-several-processes")
@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("1", "SIGTERM"),
        pytest.param("0", "SIGTERM", marks=pytest.mark.slow),
        pytest.param("group", "SIGTERM", marks=pytest.mark.slow),
        pytest.param("group", "SIGINT", marks=pytest.mark.slow),
    ],
)
def test_all_processes_stop_after_the_same_step(target: str, name: str, toy: Path, tmp_path: Path) -> None:
    number, run = signal.Signals[name], tmp_path / LAST.parents[1]
    long = ["--trainer.max_steps=200", "--trainer.val_check_interval=1000"]
    process = processes(toy, tmp_path, *long)
    wait_for_steps(run, process)
    pids = ranks(process.pid)
    assert len(pids) == 2
    if target == "group":
        os.killpg(process.pid, number)
    else:
        os.kill(pids[int(target)], number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (
        128 + number,
        f"interrupted; continue with: segzoo fit --ckpt_path {LAST}\n",
    )
    assert gone(pids[1]), "a process outlived the command"
    assert manifest(run)["status"] == "stopped"
    assert 0 < torch.load(tmp_path / LAST, weights_only=True)["global_step"] < 200


@pytest.mark.fault("signal-to-one-of-several-processes")
@pytest.mark.parametrize("then", ["on_train_batch_end", "on_validation_start", "on_train_end"])
def test_what_another_process_got_is_known_one_step_late(then: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But before a validation begins: this process would score it all, while the other one waits."""
    got = [0]
    monkeypatch.setattr("segzoo.callbacks.interruption.dist.all_reduce", lambda number, _: number.fill_(got[0]))
    monkeypatch.setattr("segzoo.callbacks.interruption.accumulates", lambda _: False)
    trainer: Any = SimpleNamespace(
        world_size=2,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        checkpoint_callback=None,
        state=SimpleNamespace(fn="fit"),
        global_step=3,
        sanity_checking=False,
    )
    module: Any = None
    callback = Interruption(StopRequest())
    callback.on_train_batch_end(trainer, module, None, None, 0)
    got[0] = signal.SIGTERM
    callback.on_train_batch_end(trainer, module, None, None, 1)
    got[0] = 0  # whoever is asked again says no
    with pytest.raises(Stopped) as stopped:
        getattr(callback, then)(trainer, module, *([None, None, 2] if then == "on_train_batch_end" else []))
    assert stopped.value.signum == signal.SIGTERM


@LINUX
@pytest.mark.slow
@pytest.mark.fault("signal-to-one-of-several-processes")
def test_two_processes_go_on_bit_for_bit(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    process = processes(toy, tmp_path / "whole")
    assert process.wait(240) == 0
    folder = tmp_path / "cut"
    folder.mkdir()
    process = processes(toy, folder)
    wait_for_steps(folder / LAST.parents[1], process)
    os.kill(ranks(process.pid)[1], signal.SIGTERM)
    assert process.wait(60) == 143
    process = processes(toy, folder, "--ckpt_path=last")
    assert process.wait(240) == 0
    assert_same_run(tmp_path / "whole" / LAST.parents[1], folder / LAST.parents[1])


@LINUX
@pytest.mark.slow
@pytest.mark.fault("process-killed")
@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_process_is_killed_the_others_end(rank: int, toy: Path, tmp_path: Path) -> None:
    run = tmp_path / LAST.parents[1]
    process = processes(toy, tmp_path, "--trainer.max_steps=200", "--trainer.val_check_interval=1000")
    wait_for_steps(run, process)
    pids = ranks(process.pid)
    os.kill(pids[rank], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err and "a process of this run ended" in err
    assert gone(pids[1]), "a process outlived the command"
    if rank == 1:
        assert (process.returncode, err.count("\n")) == (2, 1)
        assert manifest(run)["status"] == "failed"


@LINUX
@pytest.mark.fault("test-that-is-made-good")
@pytest.mark.parametrize("how", ["stopped", "failed"])
def test_a_run_whose_test_is_made_good_is_finished(how: str, toy: Path, tmp_path: Path) -> None:
    def end() -> None:
        if how == "failed":
            raise OSError(errno.ENOSPC, "No space left on device", "scores-test.json")
        os.kill(os.getpid(), signal.SIGTERM)

    argv = ("fit", "--method", "source-only", "--data", toy)
    ended = Fork(tmp_path, *argv, callback=at("on_test_batch_start", 2, end)).wait()
    run = tmp_path / "runs/source-only/toy/default-s0"
    assert (ended.status, manifest(run)["status"]) == ({"stopped": 143, "failed": 2}[how], how)
    ended = Fork(tmp_path, *argv, "--ckpt_path", "last").wait()
    assert (ended.status, ended.err) == (0, "")
    assert manifest(run)["status"] == "finished" and "test" in manifest(run)["scores"]
    assert "error" not in manifest(run)
    check_complete(run)  # what a comparison asks before it takes the row
    path = run / "manifest.json"  # a training that did not come to its end does not come to it by a test
    path.write_text(json.dumps(manifest(run) | {"status": "stopped", "max_steps": 4}))
    assert Fork(tmp_path, *argv, "--ckpt_path", "last").wait().status == 0
    assert manifest(run)["status"] == "stopped"


@LINUX
@pytest.mark.fault("stopped-in-validation")
def test_a_validation_at_the_end_of_an_epoch_is_made_good(toy: Path, tmp_path: Path) -> None:
    options = ("--trainer.limit_train_batches", "3", "--trainer.max_steps", "-1", "--trainer.max_epochs", "4")
    runs = [tmp_path / name / LAST.parents[1] for name in ("whole", "stopped")]
    assert Fork(tmp_path / "whole", *fit(toy, *options)).wait().status == 0
    stop = at("on_validation_start", 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert Fork(tmp_path / "stopped", *fit(toy, *options), callback=stop).wait().status == 143
    assert Fork(tmp_path / "stopped", *fit(toy, *options), "--ckpt_path", "last").wait().status == 0
    for name in ("metrics.csv", "scores-test.json"):
        assert (runs[0] / name).read_text() == (runs[1] / name).read_text()
