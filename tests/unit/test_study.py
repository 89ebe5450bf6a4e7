"""A comparison without its command: plan, runs that are found, and trainings that are left to do."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from segzoo.errors import ConfigError, SegzooError
from segzoo.evaluation import Protocol, Scores
from segzoo.study.plan import Plan, Row, parse_row, parse_seeds, parse_variants
from segzoo.study.results import find_run, mean_weight
from segzoo.study.running import Training, next_training, train_all
from segzoo.study.study_file import single
from segzoo.study.table import make_table


@pytest.mark.parametrize(("text", "seeds"), [("0-2", [0, 1, 2]), ("3", [3]), ("0,2-3", [0, 2, 3])])
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == tuple(seeds)


def test_the_mean_weight_is_over_training(tmp_path: Path) -> None:
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "weight/mean"])
        writer.writeheader()
        writer.writerows([{"step": 0, "weight/mean": 0.8}, {"step": 1}, {"step": 2, "weight/mean": 0.4}])
    assert mean_weight(tmp_path) == pytest.approx(0.6)
    with pytest.raises(ConfigError, match="needs the row"):
        mean_weight(tmp_path / "absent")
    (tmp_path / "metrics.csv").write_text("step,train/loss\n0,1.0\n")
    with pytest.raises(ConfigError, match="has no weight/mean"):
        mean_weight(tmp_path)


def test_rows_wait_for_what_they_start_from(tmp_path: Path) -> None:
    variants = parse_variants(["c: joint --x {b}/file --y {e: 1}", "b: joint --x {target-only}"])
    waves = {name: parse_row(name, variants).wave for name in ("target-only", "b", "c", "joint@metapix", "b@c")}
    assert waves == {"target-only": 0, "b": 1, "c": 2, "joint@metapix": 1, "b@c": 3}
    row = parse_row("b", variants)
    with pytest.raises(ConfigError, match="row b starts from a checkpoint of target-only, seed 1: add target-only"):
        next_training(tmp_path, Plan((row,), (1,), "b"), row, 1)


def test_a_run_without_a_checkpoint_does_not_stand_in_the_way(tmp_path: Path) -> None:
    row, parent = Row("half", "joint"), tmp_path / "half" / "joint" / "tiny"
    (parent / "default-s0").mkdir(parents=True)
    assert find_run(tmp_path, row, 0) == tmp_path / "half"
    (parent / "default-s0-2" / "checkpoints").mkdir(parents=True)
    (parent / "default-s0-2" / "checkpoints" / "last.ckpt").touch()
    (parent / "default-s01").mkdir()
    assert find_run(tmp_path, row, 0) == parent / "default-s0-2"
    (parent / "default-s0-3").mkdir()
    (parent / "default-s0-3" / "scores-test.json").touch()
    assert find_run(tmp_path, row, 0) == parent / "default-s0-3"


def test_a_plan_has_each_row_once_and_a_reference_among_them() -> None:
    row = Row("joint", "joint")
    with pytest.raises(ConfigError, match="rows joint,joint: each one once"):
        Plan((row, row), (0,), "joint")
    with pytest.raises(ConfigError, match="seeds 3,3: each one once"):
        Plan((row,), (3, 3), "joint")
    with pytest.raises(ConfigError, match="reference jiont is not a row; did you mean 'joint'"):
        Plan((row,), (0,), "jiont")


def test_waves_hold_all_seeds_of_the_rows_that_may_run_together() -> None:
    rows = tuple(parse_row(name, {}) for name in ("joint@metapix", "joint", "metapix"))
    waves = Plan(rows, (0, 1), "joint").waves
    assert [[(row.name, seed) for row, seed in wave] for wave in waves] == [
        [("joint", 0), ("metapix", 0), ("joint", 1), ("metapix", 1)],
        [("joint@metapix", 0), ("joint@metapix", 1)],
    ]


class Trainer:
    """Does in no time what `segzoo fit` would; notes what it was given."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.given: list[Training] = []

    def __call__(self, training: Training, log: Path, environment: Mapping[str, str]) -> int:
        self.given.append(training)
        log.write_text("began\nout of luck\n")
        if not self.status:
            run = training.folder / training.row.method / "toy" / f"default-s{training.seed}"
            (run / "checkpoints").mkdir(parents=True, exist_ok=True)
            (run / "checkpoints" / "last.ckpt").touch()
            (run / "metrics.csv").write_text("step,weight/mean\n0,0.25\n")
            facts = Protocol(classes="toy", num_classes=2, split="test", images=3)
            Scores(np.eye(2, dtype=int), ("a", "b")).save(run, "scores-test", facts)
        return self.status


def test_a_comparison_trains_what_is_left_and_hands_on_weights_and_checkpoints(tmp_path: Path) -> None:
    variants = parse_variants(["b: joint --x {metapix}/file"])
    rows = tuple(parse_row(name, variants) for name in ("b", "metapix", "joint@metapix"))
    plan, trainer, said = Plan(rows, (4,), "b", ("--common", "1")), Trainer(), []
    train_all(tmp_path, single(plan), 1, trainer, said.append)
    metapix, b, joint = trainer.given
    assert (metapix.row.name, metapix.seed, metapix.checkpoint) == ("metapix", 4, None)
    last = tmp_path / "metapix" / "metapix" / "toy" / "default-s4" / "checkpoints" / "last.ckpt"
    assert b.options == ("--common", "1", "--x", f"{last}/file")
    assert (b.weight, joint.weight) == (None, "0.2500")
    assert said[0] == f"trains metapix, seed 4: {tmp_path / 'metapix-s4.log'}" and said[-1].startswith("3/3  ")
    assert json.loads((tmp_path / "joint@metapix-s4.json").read_text())["command"][-1] == "@metapix"
    assert "| b | ✓ | ✓ |  | 1 |" in make_table(
        tmp_path, single(plan).comparisons[0]
    )  # what its method declares: these scores do not say it
    train_all(tmp_path, single(plan), 1, trainer, said.append)
    assert len(trainer.given) == 3, "a complete run was repeated"


def test_an_interrupted_run_is_continued_from_its_last_checkpoint(tmp_path: Path) -> None:
    row = Row("joint", "joint")
    plan, trainer = Plan((row,), (0,), "joint"), Trainer()
    train_all(tmp_path, single(plan), 1, trainer, lambda line: None)
    run = find_run(tmp_path, row, 0)
    (run / "scores-test.json").unlink()
    training = next_training(tmp_path, plan, row, 0)
    assert training is not None and training.checkpoint == run / "checkpoints" / "last.ckpt"


def test_the_last_line_of_a_failed_training_is_the_error(tmp_path: Path) -> None:
    plan = Plan((Row("joint", "joint"),), (0,), "joint")
    with pytest.raises(SegzooError, match=r"joint with seed 0 failed, see .*joint-s0.log: out of luck"):
        train_all(tmp_path, single(plan), 1, Trainer(2), lambda line: None)
