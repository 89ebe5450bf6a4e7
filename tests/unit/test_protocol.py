"""The protocol is one line and plain data."""

import json

import numpy as np
import pytest

from segzoo.errors import DataError
from segzoo.evaluation import Protocol, Scores

PROTOCOL = Protocol("cityscapes", 19, "val", 500, (512, 1024), (512, 512), flips=True)


def test_says_everything_in_one_line():
    assert PROTOCOL.describe() == (
        "val, 500 images; 19 classes (cityscapes), label 255 ignored; input 1024x512 (WxH); "
        "window 512x512 (WxH); flips averaged; truth at native size; last checkpoint"
    )
    assert Protocol("toy", 2, "test", 1, checkpoint="step7.ckpt").describe().endswith("size; checkpoint step7.ckpt")
    plain = Protocol("toy", 2, "test", 1)
    assert plain.describe() == (
        "test, 1 image; 2 classes (toy), label 255 ignored; input native; whole image; "
        "no flips; truth at native size; last checkpoint"
    )


@pytest.mark.parametrize("protocol", [PROTOCOL, Protocol("toy", 2, "test", 1)])
def test_survives_json(protocol):
    content = json.loads(json.dumps(protocol.to_dict()))
    assert Protocol.from_dict(content) == protocol
    assert Protocol.from_dict({**content, "from a later version": 1}) == protocol


def test_different_conditions_are_different_protocols():
    assert Protocol("toy", 2, "test", 1) != Protocol("toy", 2, "test", 1, flips=True)


def test_a_part_of_a_split_is_called_one(tmp_path):
    part = Protocol("toy", 2, "test", 1, split_images=4)
    assert not part.complete and part.describe().startswith("test, only 1 of 4 images; ")
    assert Protocol("toy", 2, "test", 4, split_images=4).describe().startswith("test, 4 images; ")
    Scores(np.eye(2, dtype=int), ("a", "b")).save(tmp_path, protocol=part)
    assert Protocol.load(tmp_path / "scores.json") == part
    with pytest.raises(DataError, match="cannot read the scores"):
        Protocol.load(tmp_path / "absent.json")
