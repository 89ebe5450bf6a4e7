"""The study of docs/photographs: what it plans, what it runs and repeats, and the numbers of its tables."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from docs.photographs import tables
from docs.photographs.plan import read_study
from segzoo.cli.expand import expand
from segzoo.errors import ConfigError
from segzoo.methods.registry import methods

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "docs" / "photographs" / "study.yaml"


def read(path: Path = STUDY, **options: Any) -> list[Any]:
    return read_study(path, **({"seeds": None, "steps": None, "only": (), "words": ()} | options))


def test_every_run_of_the_study_is_one_that_fit_knows() -> None:
    for pair in read(steps=500):
        for row in pair.plan.rows:
            words = ["fit", "--method", row.method, *pair.plan.common, *row.options, "--data.root", "."]
            assert expand("fit", words[1:], lambda path: {}) is not None
            assert pair.references[row.name] in pair.plan.names and pair.costs[row.name] > 0
            labels = "labels" in methods()[row.method].resources
            assert (pair.references[row.name].startswith("target-only")) == labels


def test_patterns() -> None:
    (pair,) = read(steps=500, only=["cracks/m*"], seeds="3", words=("--network.encoder", "resnet18"))
    assert pair.plan.names == ("minent", "maxsquare", "metapix") and pair.plan.seeds == (3,)
    common = " ".join(pair.plan.common)
    assert common.startswith("--data cracks --trainer.max_steps 500") and common.endswith("--network.encoder resnet18")
    assert [one.name for one in read(only=["*-all"])] == ["carla_to_camvid", "airsim_to_camvid"]
    with pytest.raises(ConfigError, match="expected a PAIR, a ROW or PAIR/ROW"):
        read(only=["crack"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rwos": {}}, "unknown key 'rwos'; did you mean 'rows'"),
        ({"rows": {"a": {"run": "jont"}}}, "unknown method 'jont'; did you mean 'joint'"),
        ({"rows": {"a": {"run": "joint", "costs": 2}}}, "unknown key 'costs'"),
        ({"rows": {"a": {"run": "joint --network.initial_checkpoint {b}"}}}, "starts from b, which is no row above"),
    ],
)
def test_what_a_study_cannot_be(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(yaml.safe_load(STUDY.read_text()) | change))
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / "study.yaml")


def run(row: str, seed: int, miou: float, reference: str = "base", resources: tuple[str, ...] = ("source",)) -> Any:
    classes = {"road": {"iou": miou, "precision": None, "recall": 0.5}}
    scores = {"protocol": "whole image", "miou": miou, "pixel_accuracy": 0.5, "classes": classes}
    manifest = {"device": "cpu", "packages": {"torch": "2"}, "max_steps": 6, "data": {"images": {"target/labelled": 3}}}
    names = {"row": row, "seed": seed, "pair": "toy", "reference": reference, "resources": list(resources)}
    return {**names, "scores": {"val": scores}, "manifest": manifest}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6))
def test_differences_are_paired_and_their_interval_is_students(pairs: list[tuple[float, float]]) -> None:
    ours, others = ([run("a", i, pair[j]) for i, pair in enumerate(pairs)] for j in (0, 1))
    middle, interval = tables.paired(ours, others[::-1], "val")
    d = 100 * np.array([a - b for a, b in pairs])
    half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
    assert float(middle) == pytest.approx(d.mean(), abs=0.051)
    low, high = map(float, interval.split(" to "))
    assert (low, high) == pytest.approx((d.mean() - half, d.mean() + half), abs=0.06)


def test_only_seeds_that_both_have_are_compared() -> None:
    assert tables.paired([run("a", 0, 0.5)], [run("b", 1, 0.1)], "val") == ("–", "–")
    assert tables.paired([run("a", 0, 0.5), run("a", 1, 0.9)], [run("b", 1, 0.4)], "val") == ("+50.0", "–")


def test_rows_are_grouped_by_what_they_learn_from() -> None:
    both = ("source", "labels")
    entries = [run("base", 0, 0.5), run("mine", 0, 0.75, "alone", both), run("alone", 0, 0.5, "alone", ("labels",))]
    text = tables.study_tables([*entries, run("other", 0, 0.25)], "val")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert [line[:2] for line in lines[2:6]] == [
        ["source", "base"],
        ["", "other"],
        ["source + 3 target labels", "mine"],
        ["3 target labels", "alone"],
    ]
    assert [line[6] for line in lines[2:6]] == ["–", "-25.0", "+25.0", "–"]
    assert ["precision %", "road"] in lines and ["base", "–"] in lines
    assert tables.study_tables(entries, "test") == "no run is scored on test yet"


# A whole one


def write(folder: Path, count: int) -> None:
    for i in range(count):
        label = np.zeros((32, 40), np.uint8)
        label[8:24, 3 * i : 3 * i + 12] = 1
        for name, pixels in (("image", np.stack([label * 200] * 3, -1)), ("mask", label)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A study of two rows, one that fails and one that starts from another, on a few squares."""
    for folder in ("syn", "real/train", "real/val", "real/test"):
        write(tmp_path / folder, 4)
    (tmp_path / "space.yaml").write_text("name: toy\nclasses: {ground: [90, 90, 90], square: [230, 159, 0]}\n")
    space = str(tmp_path / "space.yaml")
    domains = {
        domain: {
            "class_path": "segzoo.data.PairedFolders",
            "init_args": {"images": f"{place}/image", "masks": f"{place}/mask", "label_space": space},
        }
        for domain, place in (("source", "syn"), ("target", "real/{split}"))
    }
    data = {"name": "toy", "size": [32, 32], "batch_size": 2, **domains}
    decoder = {"decoder_channels": [16, 16, 8, 8, 8]}
    network = {"architecture": "unet", "encoder": "tu-test_resnet", "encoder_weights": None, "options": decoder}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump({"data": data, "network": network}))
    rows = {
        "source-only": {"run": "source-only"},
        "broken": {"run": "joint --network.initial_checkpoint nowhere.ckpt"},
        "tuned": {"run": "target-only --network.initial_checkpoint {source-only}", "reference": "source-only"},
    }
    content = yaml.safe_load(STUDY.read_text()) | {"pairs": {str(tmp_path / "toy.yaml"): None}, "rows": rows}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content | {"seeds": "0", "steps": 3}, sort_keys=False))
    return tmp_path


@pytest.mark.slow
def test_a_study_runs_goes_on_and_reports(toy: Path) -> None:
    def study(*more: str) -> Any:
        words = ["--study", "study.yaml", "--root", ".", "--out", "out", "--accelerator", "cpu"]
        command = [sys.executable, "-m", "docs.photographs.study"]
        words = [str(toy / word) if word in ("study.yaml", ".", "out") else word for word in words]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run([*command, *words, *more], cwd=ROOT, env=environment, capture_output=True, text=True)

    first = study("--jobs", "2")
    assert first.returncode == 1 and "failed: toy/broken, seed 0" in first.stderr, first.stdout + first.stderr
    assert "nowhere.ckpt" in first.stderr and "3/3" in first.stdout
    entries = {one["row"]: one for one in json.loads((toy / "out/results.json").read_text())}
    assert list(entries) == ["source-only", "tuned"] and "test" not in entries["tuned"]["scores"]
    assert entries["tuned"]["curve"]["val/miou"]["steps"] == [0, 1, 2]

    # The numbers are those of the confusion matrix, whose rows are the truth.
    place = toy / "out/toy/tuned/target-only/toy/default-s0"
    matrix = np.array(json.loads((place / "val/scores-val.json").read_text())["confusion"])
    square = entries["tuned"]["scores"]["val"]["classes"]["square"]
    hits = matrix[1, 1]
    assert square["recall"] == pytest.approx(hits / matrix[1].sum(), abs=1e-5)
    assert square["iou"] == pytest.approx(hits / (matrix[1].sum() + matrix[:, 1].sum() - hits), abs=1e-5)
    if square["precision"] is not None:
        assert square["precision"] == pytest.approx(hits / matrix[:, 1].sum(), abs=1e-5)
    table = (toy / "out/tables.md").read_text()
    assert "toy, val" in table and "| 4 target labels | tuned | 1 |" in table
    for name in ("curves.png", "examples-toy.png"):
        assert (toy / "out" / name).stat().st_size > 5000

    # What is complete is not trained again; test is scored by request, with the weights that there are.
    before = (place / "checkpoints/last.ckpt").stat().st_mtime_ns
    again = study("--only", "tuned", "--only", "source-only", "--splits", "test")
    assert again.returncode == 0 and "trains" not in again.stdout, again.stderr
    assert (place / "checkpoints/last.ckpt").stat().st_mtime_ns == before
    entries = {one["row"]: one for one in json.loads((toy / "out/results.json").read_text())}
    assert set(entries["tuned"]["scores"]) == {"val", "test"}
    assert "toy, test" in (toy / "out/tables.md").read_text()
    report = (toy / "out/report.html").read_text()
    assert "one seed, which says nothing" in report and "image 3; rows differ on" in report
    (toy / "out/results.json").rename(toy / "before.json")
    assert study("--jobs", "0", "--splits", "test").returncode == 0
    assert (toy / "out/results.json").read_text() == (toy / "before.json").read_text()
    # Results without their runs are reported, and those of other options are not.
    (toy / "out/toy").rename(toy / "elsewhere")
    assert study("--jobs", "0", "--splits", "test").returncode == 0 and "tuned" in (toy / "out/tables.md").read_text()
    assert study("--jobs", "0", "--steps", "2").returncode == 0
    assert (toy / "out/tables.md").read_text() == "no run is scored on val yet\n"
