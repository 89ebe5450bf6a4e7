"""One training step, `test` and `predict` on packaged sets of different kinds, by their names alone."""

import json
from pathlib import Path

import lightning as L
import pytest

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
    again = segzoo("test", "--ckpt_path", last, "--out", "again", *names[2:4])
    assert again.status == 0, again.err
    photographs = next(path.parent for path in sorted(root.rglob("*")) if path.suffix in (".png", ".jpg"))
    predicted = segzoo("predict", "--ckpt_path", last, "--input", photographs, "--out", "predicted")
    assert predicted.status == 0, predicted.err
    assert list(Path("predicted").rglob("*.png"))
