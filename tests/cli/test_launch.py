"""Which processes make a run together, and that none writes where another run is."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.fabric.utilities.rank_zero import rank_zero_only

from segzoo.cli.launch import CHILDREN, Place, find_place
from segzoo.cli.rundir import VARIABLE
from segzoo.errors import ConfigError
from tests.cli.conftest import Segzoo

CPU = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "plugins": None}
TASK = {"SLURM_JOB_ID": "77", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0", "SLURM_STEP_ID": "0"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
JSRUN = {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "hosts", "JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_SIZE": "2"}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in os.environ if name.startswith(("SLURM", "TORCHELASTIC", "OMPI", "JSM", "LSB"))]
    for name in (VARIABLE, "RANK", *CHILDREN, *names):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setattr(rank_zero_only, "rank", 0)


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # What Lightning makes of them when it is imported.
    monkeypatch.setattr(rank_zero_only, "rank", int(variables.get("RANK", variables.get("SLURM_PROCID", 0))))


LEFT_OVER = {
    "rank": {"RANK": "1"},
    "task number": {"SLURM_PROCID": "1"},
    "one task": TASK | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
    "four tasks": TASK | {"SLURM_NTASKS": "4"},
    "four tasks on a node": TASK | {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4"},
    "interactive": TASK | {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "bash"},
    "local rank": {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"},
    "MPI": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMI_RANK": "1"},
    "jsrun": JSRUN | {"JSM_NAMESPACE_RANK": "1"},
    "another run's folder": {VARIABLE: "1:/somewhere/else", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "9"},
    "a shell's": {VARIABLE: "/somewhere/else"},
}


@pytest.mark.fault("variables-of-a-launcher")
@pytest.mark.parametrize("name", LEFT_OVER)
def test_a_run_of_one_process_is_rank_zero(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_all(monkeypatch, LEFT_OVER[name])
    place = find_place(CPU)
    assert place.rank == 0 and place.group is None and rank_zero_only.rank == 0
    assert place.share(lambda: tmp_path) == tmp_path
    assert os.environ[VARIABLE] == f"{os.getpid()}:{tmp_path}"


@pytest.mark.fault("variables-of-a-launcher")
@pytest.mark.parametrize("name", ["task number", "four tasks", "local rank"])
def test_and_overwrites_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch, segzoo: Segzoo, toy: Path, tmp_path: Path
) -> None:
    runs, steps = tmp_path / "runs", ["--trainer.max_steps", "1"]
    command = ["fit", "--method", "source-only", "--data", toy, "--runs", runs, *steps]
    assert segzoo(*command).status == 0
    first = runs / "source-only" / "toy" / "default-s0"
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    set_all(monkeypatch, LEFT_OVER[name])
    done = segzoo(*command)
    assert done.status == 0, done.err
    second = first.with_name("default-s0-2")
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before
    assert {path.name for path in second.iterdir()} == {path.name for path in first.iterdir()}
    assert (second / "metrics.csv").read_text() == (first / "metrics.csv").read_text()
    assert ("SLURM started 4 processes, this run asks for one" in done.err) == (name == "four tasks")


@pytest.mark.fault("more-processes-than-devices")
@pytest.mark.parametrize(
    ("variables", "options", "message"),
    [
        (TORCHRUN, {}, "2 processes were started by torchrun, --trainer.devices is 1: give both the same number"),
        (TORCHRUN, {"devices": "auto"}, "2 processes were started by torchrun, --trainer.devices is 1"),
        (TORCHRUN, {"devices": 3}, "2 processes were started by torchrun, --trainer.devices is 3"),
        (TORCHRUN, {"devices": 1, "num_nodes": 3}, r"--trainer.devices is 1 on each of 3 nodes"),
        (TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"}, {"devices": 2}, "1 process was started by torchrun"),
        (TASK | {"SLURM_NTASKS": "4"}, {"devices": 2}, "4 processes were started by SLURM, --trainer.devices is 2"),
        (TASK | {"SLURM_NTASKS": "1"}, {"devices": 2}, "1 process was started by SLURM"),
        (TASK | {"SLURM_NTASKS": "2"}, {"devices": 2}, "--ntasks-per-node=2"),
        (JSRUN, {"devices": 4}, "2 processes were started by jsrun"),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, {"devices": 3}, "2 processes were started by hand"),
    ],
)
def test_other_numbers_of_processes_are_refused(
    variables: dict[str, str], options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, variables)
    with pytest.raises(ConfigError, match=message):
        find_place(CPU | options)


@pytest.mark.fault("variables-of-a-launcher")
def test_what_lightning_starts_inherits_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_all(monkeypatch, {VARIABLE: f"{os.getppid()}:{tmp_path}", "LOCAL_RANK": "1", "WORLD_SIZE": "2"})
    place = find_place(CPU | {"devices": 2})
    assert place == Place(rank=1, folder=tmp_path)
    assert place.share(lambda: pytest.fail("claimed")) == tmp_path


@pytest.mark.fault("variables-of-a-launcher")
def test_a_process_whose_run_is_gone_begins_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    set_all(monkeypatch, {VARIABLE: f"{gone.pid}:{tmp_path}", "LOCAL_RANK": "1", "WORLD_SIZE": "2"})
    with pytest.raises(ConfigError, match="the process that started this one is gone"):
        find_place(CPU | {"devices": 2})


def run(number: int, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={number}",
        "-m",
        "segzoo",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | variables
    words = [*torchrun, *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.fault("more-processes-than-devices")
def test_torchrun_without_devices_trains_nothing(toy: Path, tmp_path: Path) -> None:
    done = run(2, "fit", "--method", "source-only", "--data", toy, "--runs", tmp_path)
    assert done.returncode != 0 and list(tmp_path.iterdir()) == []
    words = "error: 2 processes were started by torchrun, --trainer.devices is 1: give both the same number"
    assert words in done.stderr.splitlines() and done.stdout == ""


@pytest.mark.fault("two-runs-of-torchrun")
def test_torchrun_shares_a_folder_of_its_own(toy: Path, tmp_path: Path) -> None:
    first = tmp_path / "source-only" / "toy" / "default-s0"
    first.mkdir(parents=True)
    options = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_steps", "1"]
    done = run(2, "fit", "--method", "source-only", "--data", toy, "--runs", tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert list(first.iterdir()) == [] and done.stdout.count("run folder:") == 1
    second = first.with_name("default-s0-2")
    assert sorted(first.parent.iterdir()) == [first, second]
    assert (second / "checkpoints" / "last.ckpt").is_file() and (second / "scores-test.json").is_file()
