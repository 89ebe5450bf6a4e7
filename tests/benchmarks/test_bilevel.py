"""`segzoo bench bilevel` from end to end, and what its rows share."""

import json
import sys
from collections.abc import Callable
from io import StringIO
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from segzoo.bench import problem, runner
from segzoo.bench.measure import main as measure_as_process
from segzoo.bench.measure import measure
from segzoo.bench.meter import Meter
from segzoo.bench.peers import Peer, load_peers
from segzoo.bench.problem import create_batch, create_method, write_start
from segzoo.bench.process import Process
from segzoo.bench.rows import REFERENCE, ROWS, UNIT, WAITS, Row, Task
from segzoo.bench.runner import Runner
from segzoo.cli.main import main
from segzoo.errors import ConfigError, SegzooError
from tests.benchmarks.conftest import PEERS, SMALL, Ended

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a .validation_step. but have no"),  # a step alone is measured
    pytest.mark.filterwarnings("ignore:the packaged generator draws"),  # which is as good as any for its time
]

CPU = torch.device("cpu")
Make = Callable[..., Task]


def check_output(folder: Path, out: str) -> None:
    found = json.loads((folder / "bench.json").read_text())
    assert list(found) == ["joint", "metapix/sequential", "settings"]
    for name in ("joint", "metapix/sequential"):
        row = found[name]
        assert row["seconds_quartiles"][0] <= row["seconds"] <= row["seconds_quartiles"][1]
        assert row["ratio"] == row["seconds"] / found["joint"]["seconds"]  # as there is one step
    assert found["joint"]["cosine"] is None
    assert found["metapix/sequential"]["cosine"] > 0.999
    assert {"device", "torch", "threads", "size", "batch", "precision"} <= set(found["settings"])
    assert (folder / "bench.png").stat().st_size > 0
    assert "| metapix/sequential |" in out and "round 1, turn 1 of 1" in out


@pytest.mark.usefixtures("in_process")
def test_a_small_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--json", str(tmp_path / "new" / "bench.json"), "--figure", str(tmp_path / "new" / "bench.png")]
    assert main(["bench", "bilevel", "--rows", "metapix/sequential", *SMALL, *files]) == 0
    check_output(tmp_path / "new", capsys.readouterr().out)


@pytest.mark.slow
def test_the_same_in_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--json", str(tmp_path / "bench.json"), "--figure", str(tmp_path / "bench.png")]
    assert main(["bench", "bilevel", "--rows", "metapix/sequential", *SMALL, *files]) == 0
    check_output(tmp_path, capsys.readouterr().out)
    if sys.platform == "linux":
        found = json.loads((tmp_path / "bench.json").read_text())
        assert all(found[name]["peak_bytes"] > 0 for name in ("joint", "metapix/sequential"))


APPROXIMATE = ("metapix/decoder", "metapix/head", "metapix/finite-difference")


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if name != UNIT and not row.device])
def test_rows_compute_the_reference_hypergradient(name: str, task: Make) -> None:
    measure(task(REFERENCE, precision="64"))
    truth = np.load(task(name).gradient)
    measure(task(name, steps=ROWS[name].period))
    found = np.load(task(name).gradient)
    cosine = found @ truth / np.linalg.norm(found) / np.linalg.norm(truth)
    assert -1 < cosine < 1 if name in APPROXIMATE else cosine > 0.999


def test_the_annotators_rows_compute_one_gradient(task: Make) -> None:
    measure(task("annotator/double-backward", suite="annotator", precision="64", size=(64, 64)))
    truth = np.load(task("").gradient)
    measure(task("annotator/forward", suite="annotator", size=(64, 64)))
    found = np.load(task("").gradient)
    assert found @ truth / np.linalg.norm(found) / np.linalg.norm(truth) > 0.999


def test_all_rows_start_from_the_same_segmenter(task: Make) -> None:
    write_start(task(UNIT), CPU)
    first, *others = (create_method(task(name), row) for name, row in ROWS.items())
    for other in others:
        for name, p in first.segmenter.state_dict().items():
            assert torch.equal(p, other.segmenter.state_dict()[name]), name
    assert not [m for m in first.modules() if isinstance(m, nn.Dropout) and m.p > 0]


def test_the_start_is_trained_on_batches_of_its_own_if_asked_for(task: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    loss = problem.cross_entropy
    monkeypatch.setattr(problem, "cross_entropy", lambda z, y, n: seen.append(y) or loss(z, y, n))  # type: ignore[func-returns-value]
    measured = create_batch(task(UNIT), CPU)
    write_start(task(UNIT), CPU)
    assert len(seen) == 2 * 10 and all(torch.equal(y, measured["source"]["label"]) for y in seen[::2])
    seen.clear()
    write_start(task(UNIT, start_steps=3), CPU)
    labels = [measured["source"]["label"], *seen[::2]]
    assert len(labels) == 4 and not any(torch.equal(a, b) for a, b in combinations(labels, 2))


def test_the_batch_is_the_same_in_every_process_and_has_void(task: Make) -> None:
    one, other = create_batch(task(UNIT), CPU), create_batch(task(UNIT), CPU)
    for name, images in one.items():
        assert torch.equal(images["image"], other[name]["image"])
        assert torch.equal(images["label"], other[name]["label"])
        assert images["image"].shape == (2, 3, 32, 32) and images["label"].shape == (2, 32, 32)
        assert (images["label"] == 255).any() and (images["label"] != 255).any()
    assert not torch.equal(one["source"]["image"], one["target"]["image"])


def test_a_time_is_the_mean_over_a_period(task: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    every_2 = Row("metapix", ROWS["metapix/sequential"].options | {"meta_every": 2})
    monkeypatch.setitem(ROWS, "metapix/every-2", every_2)
    assert len(measure(task("metapix/every-2", steps=4))["seconds"]) == 2
    steps = []

    def start(task: Task, environment: dict[str, str]) -> Ended:
        steps.append((task.row, task.steps))
        Path(task.result).write_text(json.dumps({"seconds": [1.0], "peak_bytes": None, "environment": {}}))
        return Ended()

    monkeypatch.setattr(runner, "start", start)
    Runner(task("", steps=3), Path(task("").result).parent, rounds=1).run([UNIT, "metapix/every-2"])
    assert steps[1:] == [(UNIT, 1), ("metapix/every-2", 2), (UNIT, 3), ("metapix/every-2", 6)]


LOG = "import sys; write = lambda t: print(t, file=open(sys.argv[1], 'a', buffering=1))\n"


def process(folder: Path, name: str, steps: int, last: str = "") -> Process:
    program = (
        f"{LOG}for step in range({steps}):\n"
        f"    print({WAITS!r}, flush=True); sys.stdin.readline(); write('{name}' + str(step))\n{last}"
    )
    return Process([sys.executable, "-c", program, str(folder / "log")], {})


def test_processes_take_turns(tmp_path: Path) -> None:
    with process(tmp_path, "a", 2) as a, process(tmp_path, "b", 2, "print('x'); raise SystemExit(3)") as b:
        a.await_turn()
        b.await_turn()
        for _ in range(3):  # once more than they have steps: nothing happens
            a.proceed()
            b.proceed()
    assert (tmp_path / "log").read_text().split() == ["a0", "b0", "a1", "b1"]
    assert (a.status, b.status, b.last_words()) == (0, 3, "x")


def test_a_process_that_dies_while_it_waits(tmp_path: Path) -> None:
    with process(tmp_path, "a", 2) as a:
        a.await_turn()
        a._process.kill()
        a._process.wait()
        a.proceed()
    assert (a.status, a.last_words()) == (-9, "killed by signal 9")


def test_a_process_is_killed_at_the_end_of_its_context(tmp_path: Path) -> None:
    with process(tmp_path, "a", 2) as a:
        a.await_turn()
        a.proceed()
        assert a.status is None
    assert a.last_words() == "killed by signal 9"
    assert (tmp_path / "log").read_text().split() == ["a0"]


def test_the_measuring_process_waits_before_every_period(
    task: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at: list[int] = []
    begin = Meter.begin
    monkeypatch.setattr(Meter, "begin", lambda self, step: (at.append(step), begin(self, step))[1])
    waits: list[list[int]] = []
    measure(task("metapix/every-4", steps=8, warmup=1), lambda: waits.append(list(at)))
    assert [steps[-1:] for steps in waits] == [[], [1], [5]]
    monkeypatch.setattr("sys.stdin", StringIO("\n\n\n\n"))
    assert measure_as_process([task(UNIT, steps=3, warmup=1).to_json()]) == 0
    assert capsys.readouterr().out.count(WAITS) == 4  # the first time when all is imported


def test_the_measuring_process_does_not_outlive_the_one_that_started_it(
    task: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("\n\n"))
    with pytest.raises(SystemExit, match="has ended"):
        measure_as_process([task(UNIT, steps=3, warmup=1).to_json()])
    assert capsys.readouterr().out.count(WAITS) == 3
    assert not Path(task("").result).exists()


class Turns(Ended):
    """Measures nothing, and says when it has imported what it needs (in capitals) and when it proceeds."""

    said: ClassVar[list[str]] = []

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.name = "r" if task.precision == "64" else {UNIT: "a", "metapix/fused": "b"}[task.row]
        self.left, self.status = 1 + task.steps, None  # the first time for the warm-up
        found = {"seconds": [1.0] * task.steps, "peak_bytes": 2**20, "environment": {}}
        Path(task.result).write_text(json.dumps(found))

    def await_turn(self) -> None:
        self.said.append(self.name.upper())

    def proceed(self) -> None:
        self.said.append(self.name)
        self.left -= 1
        self.status = None if self.left else 0


ALONE = "Rrr" + "Aaa" + "Bbb"


@pytest.mark.parametrize(
    ("device", "turns"),
    [("cpu", ALONE + 2 * ("AaBb" + "abba")), ("cuda:0", "BAR" + "rr" + "aaabbb" + "BA" + "aaabbb")],
)
def test_rows_take_turns_but_on_cuda(
    device: str,
    turns: str,
    task: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(runner, "start", lambda task, environment: Turns(task))
    Turns.said.clear()
    costs = Runner(task("", steps=2, device=device), tmp_path, 2, sys.stdout.write).run([UNIT, "metapix/fused"])
    assert "".join(Turns.said) == turns
    assert [(len(cost.seconds), cost.peak_bytes) for cost in costs.values()] == 2 * [(4, 2**20)]
    # The announced number of tasks is that of those done.
    assert (last := capsys.readouterr().out.splitlines()[-1].split()[0].split("/"))[0] == last[1]


def peak_of_a_known_load() -> int | None:
    held: list[torch.Tensor] = []
    meter = Meter(CPU, 2, held.clear)
    always = torch.ones(2**24)  # 64 MiB that do not count
    for step in range(4):
        meter.begin(step)
        held[:] = [torch.ones(2**24)]  # 64 MiB that are "gradients", 128 MiB while they are made anew
        meter.end(step)
    assert always.sum() > 0 and len(meter.seconds) == 2
    return meter.peak_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_counted_from_an_idle_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # In a process of its own, as in the product: this one's allocator may hold memory that other tests have freed.
    for name, value in runner.ALLOCATOR.items():
        monkeypatch.setenv(name, value)
    with get_context("spawn").Pool(1) as pool:
        peak = pool.apply(peak_of_a_known_load)
    assert peak is not None and 120 < peak / 2**20 < 140


# What can go wrong


def outcome(**results: dict[str, object] | int) -> Callable[[Task, dict[str, str]], Ended]:
    """A process that finds what is given for its row, or dies with a status."""

    def start(task: Task, environment: dict[str, str]) -> Ended:
        key = "reference" if task.precision == "64" else task.row.partition("/")[0]
        found = results.get(key, {"seconds": [1.0], "peak_bytes": 1, "environment": {}})
        if isinstance(found, int):
            return Ended(found, "Traceback\n  ...\nValueError: no\n")
        Path(task.result).write_text(json.dumps(found))
        return Ended()

    return start


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_rows_that_do_not_fit_are_skipped(
    device: str, task: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "start", outcome(reference=-9, metapix={"failed": "out of memory"}, peer=1))
    run = Runner(task("", device=device), tmp_path, rounds=2)
    assert list(run.run([UNIT, "metapix/fused", "peer"])) == [UNIT]
    assert run.skipped == {
        "cosine": "killed by signal 9",
        "metapix/fused": "out of memory",
        "peer": "ValueError: no",
    }


def test_a_row_that_dies_in_a_later_round_is_skipped(
    task: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    starts: list[str] = []

    def start(task: Task, environment: dict[str, str]) -> Ended:
        starts.append(task.row)
        return outcome(
            peer=-9 if starts.count("peer") == 3 else {"seconds": [1.0], "peak_bytes": 1, "environment": {}}
        )(task, environment)

    monkeypatch.setattr(runner, "start", start)
    run = Runner(task(""), tmp_path, 3, sys.stdout.write)
    assert {name: len(cost.seconds) for name, cost in run.run([UNIT, "peer"]).items()} == {UNIT: 3}
    assert run.skipped == {"peer": "killed by signal 9"} and starts.count("peer") == 3
    assert "round 2, warm-up of peer ... killed by signal 9" in capsys.readouterr().out


def test_a_row_of_ours_that_fails_is_an_error(task: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "start", outcome(metapix=1))
    with pytest.raises(SegzooError, match="row 'metapix/fused' failed: ValueError: no"):
        Runner(task(""), tmp_path, rounds=1).run([UNIT, "metapix/fused"])
    monkeypatch.setattr(runner, "start", outcome(joint={"failed": "out of memory"}))
    for device in ("cpu", "cuda"):
        with pytest.raises(SegzooError, match="row 'joint' could not be measured: out of memory"):
            Runner(task("", device=device), tmp_path, rounds=1).run([UNIT])


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "tpu9"], "device tpu9 is not available"),
        (["--device", "auto"], "--device auto: name the device"),
        (["--device", "meta"], "steps are measured on cpu or cuda"),
        (["--precision", "16"], "--precision 16 needs a CUDA device"),
        (["--architecture", "unett"], "did you mean 'unet'"),
    ],
)
def test_wrong_settings_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "bilevel", "--rows", "joint", *SMALL, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.usefixtures("in_process")
def test_missing_and_broken_peers_are_named_and_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peers = tmp_path / "peers.py"
    peers.write_text(
        "from segzoo.bench.peers import Peer\n"
        "def build(problem):\n    raise ImportError('broken')\n"
        "PEERS = {'absent': Peer(build, 'no-such-library', '1.0', 'no-such-library==1.0'),\n"
        "         'broken': Peer(build, 'pytest', '1.0', 'pytest')}\n"
    )
    output = tmp_path / "bench.json"
    arguments = ["--rows", "absent,broken", "--peers", str(peers), "--json", str(output), *SMALL]
    assert main(["bench", "bilevel", *arguments]) == 0
    assert "absent: not installed: pip install no-such-library==1.0" in capsys.readouterr().out
    found = json.loads(output.read_text())
    assert list(found) == ["joint", "settings"]
    assert found["settings"]["skipped"]["broken"] == "ImportError: broken"


def test_a_peer_of_an_older_version_is_refused() -> None:
    old = Peer(lambda problem: tuple, "pytest", "999.1", "pytest==999.1")
    assert (old.missing() or "").startswith("needs pytest 999.1, found ")
    assert Peer(lambda problem: tuple, "pytest", "1.10", "pytest").missing() is None


def test_files_that_are_no_peers(tmp_path: Path) -> None:
    assert load_peers(None) == {}
    assert list(load_peers(PEERS)) == ["higher", "torchopt", "betty"]
    with pytest.raises(ConfigError, match="is not a Python file"):
        load_peers(tmp_path / "absent.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ConfigError, match="defines no PEERS"):
        load_peers(tmp_path / "empty.py")
