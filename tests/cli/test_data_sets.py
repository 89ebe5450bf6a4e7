"""One training step, `test` and `predict` on packaged sets of different kinds, by their names alone."""

import json
from pathlib import Path

import lightning as L
import pytest

from segzoo.cli.data_options import build_data, read_invocation
from tests.cli.conftest import Segzoo
from tests.unit.test_data_sets import SETS

SMALL = [
    "--data.size=[32,64]",
    "--data.num_workers=0",
    "--data.batch_size=2",
    "--trainer.max_steps=1",
    "--trainer.val_check_interval=1",
    "--trainer.accelerator=cpu",
    "--network.encoder=tu-test_resnet",
    "--network.encoder_weights=null",
]
PAIRS = [
    ("gta5", "cityscapes_polygons", ()),  # a palette; polygons
    ("replicator", "acdc", ()),  # colours that a JSON names; four conditions
    ("synthia", "supervisely", ("--data.target.blocks=[0.5,0,0.5]",)),  # 16 bits; bitmaps
    ("carla", "mapillary", ()),  # a channel; a map of classes with ranges
]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.filterwarnings("ignore")
def test_every_set_is_checked_by_its_name(name: str, tmp_path: Path, segzoo: Segzoo) -> None:
    """As the target where it has something to score on, else as the source."""
    _, classes, scored = SETS[name]
    other = "gta5" if scored else "cityscapes"
    source, target = ("camvid", "camvid") if name == "camvid" else (other, name) if scored else (name, other)
    root = tmp_path / "sets"
    for one in {source, target}:
        SETS[one][0](root)
    result = segzoo(
        "data", "check", "--data.source", source, "--data.target", target, "--data.root", root, "--out", "seen"
    )
    assert result.status == 0, result.err
    assert " 0 errors" in result.out
    head, *rows = Path("seen/report.txt").read_text().split("share of the labelled pixels")[1].splitlines()
    sets = ["target/val", "target/test"] if scored else ["source/train"]
    columns = [head.split().index(one) - len(head.split()) for one in sets]
    shares = {
        row.split("  ")[0].partition(" ")[2]: row.replace(" %", "").replace("< ", "").split() for row in rows if row
    }
    for column in columns:
        assert {one for one in classes if shares[one][column] == "-"} == set()
    again = segzoo("data", "check", f"{source}_to_{target}", "--data.root", root, "--out", "again")
    assert again.out.replace("again", "seen") == result.out


@pytest.mark.filterwarnings("ignore")
def test_a_pair_is_copied_by_its_names(tmp_path: Path, segzoo: Segzoo) -> None:
    root = tmp_path / "sets"
    for name in ("gta5", "cityscapes"):
        SETS[name][0](root)
    options = ("gta5_to_cityscapes", "--data.root", root, "--data.size", "12", "24", "--out", "copy")
    result = segzoo("data", "prepare", *options)
    assert result.status == 0 and "8 images copied" in result.out, result.err
    data = build_data(read_invocation("copy/data.yaml", []))
    assert (data.name, data.size, data.label_space.name) == ("gta5_to_cityscapes", (12, 24), "cityscapes")
    assert len(data.images("target", "val")) == 2


@pytest.mark.parametrize(
    ("source", "target", "options"),
    [pytest.param(*pair, marks=pytest.mark.slow if number > 1 else ()) for number, pair in enumerate(PAIRS)],
)
@pytest.mark.filterwarnings("ignore")
def test_from_the_archives_to_a_score(
    source: str,
    target: str,
    options: tuple[str, ...],
    tmp_path: Path,
    segzoo: Segzoo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for picture in ("ImagePanels", "HistoryFigures"):  # they take longer than the step
        monkeypatch.setattr(f"segzoo.cli.run.{picture}", lambda *_, **__: L.Callback())
    root = tmp_path / "sets"
    for name in (source, target):
        SETS[name][0](root)
    names = ("--data.source", source, "--data.target", target, "--data.root", root, *options)
    result = segzoo("fit", "--method", "source-only", *names, *SMALL)
    assert result.status == 0, result.err
    pair = "_to_".join(name.removesuffix("_polygons") for name in (source, target))
    (run,) = Path("runs/source-only", pair).iterdir()
    scores = json.loads((run / "scores-test.json").read_text())
    seen = {entry["name"] for entry in scores["classes"] if entry["share"]}
    assert seen == set(SETS[target][1])
    last = run / "checkpoints/last.ckpt"
    again = segzoo("test", "--ckpt_path", last, "--out", "again", *names[2:4], *options)
    assert again.status == 0, again.err
    photographs = next(path.parent for path in sorted(root.rglob("*")) if path.suffix in (".png", ".jpg"))
    predicted = segzoo("predict", "--ckpt_path", last, "--input", photographs, "--out", "predicted")
    assert predicted.status == 0, predicted.err
    assert list(Path("predicted").rglob("*.png"))
