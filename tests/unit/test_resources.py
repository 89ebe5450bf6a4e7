"""How many images a method learned from, where it is written and what becomes of it."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from segzoo.callbacks import FinalReport, RunManifest
from segzoo.data.resources import count_images
from segzoo.data.streams import Stream
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore")
COUNTED = {
    "source-only": {"source": 8},
    "metapix": {"source": 8, "labels": 4},  # some of them in a stream of their own
    "maxsquare": {"source": 8, "unlabelled": 8},
}


@pytest.mark.parametrize("slug", sorted(COUNTED))
def test_scores_and_manifest_say_what_was_learned_from(tmp_path: Path, slug: str) -> None:
    L.seed_everything(0, verbose=False)
    method, data = tiny.method(slug), tiny.data()
    assert method.learned_from == dict.fromkeys(method.resources)
    trainer = tiny.trainer(1, callbacks=[RunManifest(tmp_path), FinalReport(tmp_path)], default_root_dir=str(tmp_path))
    trainer.fit(method, datamodule=data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert json.loads((tmp_path / "manifest.json").read_text())["resources"] == COUNTED[slug]
    trainer.test(method, datamodule=data, verbose=False)
    assert json.loads((tmp_path / "scores-test.json").read_text())["resources"] == COUNTED[slug]
    # A test of its own has the numbers of the training, whatever its data are.
    again = tiny.method(slug)
    other = tiny.trainer(1, callbacks=[FinalReport(tmp_path / "again")])
    other.test(again, datamodule=tiny.data(target_labels=2), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert json.loads((tmp_path / "again" / "scores-test.json").read_text())["resources"] == COUNTED[slug]


@pytest.mark.parametrize("loaders", [None, [], {"source": object()}])
def test_images_of_other_loaders_are_not_counted(loaders: Any) -> None:
    assert count_images(loaders, {"source": Stream("source")}, ("source", "labels")) == {"source": None, "labels": None}


def test_a_checkpoint_from_before_counted_nothing() -> None:
    method = tiny.fit("source-only")
    checkpoint = {"segzoo": {}, "state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams)}
    method.on_save_checkpoint(checkpoint)
    assert checkpoint["segzoo"].pop("resources") == {"source": 8}
    fresh = tiny.method("source-only")
    fresh.on_load_checkpoint(checkpoint)
    assert fresh.learned_from == {"source": None}
