"""``segzoo data doubts``."""

import csv
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Segzoo


def test_every_mask_is_compared_and_the_most_doubted_are_printed(segzoo: Segzoo, checkpoint: Path) -> None:
    result = segzoo("data", "doubts", "--ckpt_path", checkpoint, "--count", "2", "--out", "found")
    assert result.status == 0, result.err
    rows = list(csv.reader(Path("found/doubts.csv").read_text().splitlines()))
    assert sorted(row[0] for row in rows[1:]) == ["000", "001", "002", "003"]
    beliefs = [float(row[1]) for row in rows[1:]]
    assert beliefs == sorted(beliefs)
    assert sum(beliefs) == pytest.approx(0, abs=0.01)  # all images have one size and no void pixel
    printed = [line.split()[0] for line in result.out.splitlines()]
    assert printed[:3] == ["image", rows[1][0], rows[2][0]] and result.out.endswith("4 masks compared: found\n")
    with Image.open("found/doubts.png") as picture:
        assert picture.width > picture.height / 2


def test_photographs_have_doubts_of_their_own(segzoo: Segzoo, checkpoint: Path) -> None:
    result = segzoo("data", "doubts", "--ckpt_path", checkpoint.parents[1], "--domain", "target", "--split", "val")
    assert result.status == 0 and "2 masks compared: doubts-toy-target" in result.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "0"], "--count 0: expected 1 or more"),
        (["--domain", "source", "--split", "test"], "--split test: the source has no such split"),
        (["--data.root", "nowhere"], "nowhere"),
        (["--data", "minicity"], "the checkpoint has the classes sky, road, car, and minicity has sky, building, road"),
        (["--data.sise", "8"], "--data.sise"),
    ],
)
def test_what_cannot_be_is_one_line(segzoo: Segzoo, checkpoint: Path, options: list[str], message: str) -> None:
    result = segzoo("data", "doubts", "--ckpt_path", checkpoint, *options)
    assert result.status == 2 and message in result.err and result.err.count("\n") == 1, result.err
    assert not Path("doubts-toy-source").exists()


def test_masks_that_do_not_fit_are_named(segzoo: Segzoo, checkpoint: Path, toy: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(toy.parent / "syn", copy)
    Image.new("L", (8, 8)).save(copy / "mask/002.png")
    options = ["--data.source.images", copy / "image", "--data.source.masks", copy / "mask"]
    result = segzoo("data", "doubts", "--ckpt_path", checkpoint, *options)
    assert result.status == 2 and "8x8" in result.err and "32x24" in result.err, result.err
    for i in range(4):
        Image.new("L", (32, 24), 255).save(copy / f"mask/{i:03}.png")
    result = segzoo("data", "doubts", "--ckpt_path", checkpoint, *options)
    assert result.status == 2 and "no mask of source/train has a labelled pixel" in result.err, result.err
    assert not Path("doubts-toy-source").exists()
