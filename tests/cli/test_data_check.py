"""`segzoo data check`."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Segzoo

pytestmark = pytest.mark.filterwarnings("ignore")


def test_data_that_are_right(segzoo: Segzoo, toy: Path) -> None:
    result = segzoo("data", "check", toy)
    assert result.status == 0, result.err
    assert "12 images, 0 errors" in result.out and "source/train" in result.out and "2 car" in result.out
    assert sorted(path.name for path in Path("check-toy").iterdir()) == [
        "files.csv",
        "near-duplicates.csv",
        "report.txt",
        "source.png",
        "target.png",
    ]
    assert len(Path("check-toy/files.csv").read_text().splitlines()) == 13
    with Image.open("check-toy/target.png") as file:
        pixels = np.asarray(file.convert("RGB")).reshape(-1, 3)
    assert {(90, 120, 200), (100, 100, 100), (200, 40, 40)} <= set(map(tuple, pixels.tolist()))  # the classes' colours


def test_every_file_that_is_wrong_is_named(segzoo: Segzoo, toy: Path) -> None:
    shutil.copytree(toy.parent, "data")
    Path("data/syn/mask/001.png").unlink()
    Path("data/real/test/image/000.png").write_bytes(b"nothing")
    Image.fromarray(np.full((24, 32), 9, np.uint8)).save("data/real/val/mask/001.png")
    result = segzoo("data", "check", toy, "--data.root", "data", "--out", "seen", "--workers", "1")
    assert result.status == 1
    for part in ("syn/image/001.png has no mask", "test/image/000.png", "unknown label id 9", "3 errors"):
        assert part in result.err + result.out
    assert Path("seen/report.txt").read_text().count("error: ") == 3


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("data", ("check",)),
        ("data chek", ("unknown command 'chek'", "'check'")),
        ("data check", ("DATA",)),
        ("data check nothing", ("unknown data 'nothing'",)),
        ("data check --data.root .", ("DATA",)),
        ("data check nothing.yaml", ("no such file: nothing.yaml",)),
        ("data check TOY --workers 0", ("--workers 0: expected 1 or more",)),
        ("data check TOY --data.sise 3 3", ("unknown option '--data.sise'", "'--data.size'")),
        ("data check TOY --data.root nowhere", ("--data.root nowhere is not a folder",)),
        ("data check TOY --data.blur 2", ("--data.blur 2", "0 to 1")),
        ("data check TOY --method joint", ("unknown option '--method'",)),
        ("data check TOY --out TOY", ("cannot write to",)),
        ("data check TOY more", ("unrecognized arguments: more",)),
    ],
)
def test_what_is_wrong_is_one_line(segzoo: Segzoo, toy: Path, command: str, parts: tuple[str, ...]) -> None:
    result = segzoo(*command.replace("TOY", str(toy)).split())
    assert result.status == 2 and result.err.count("\n") <= 1
    assert all(part in result.err + result.out for part in parts), result.err
