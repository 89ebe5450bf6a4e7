"""The Python of the README runs as it stands there, on drawn images and with fewer steps."""

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

README = Path(__file__).parents[2] / "README.md"
SHORTER = {
    "max_steps=4000": "max_steps=2",
    "val_check_interval=500": "val_check_interval=1",
    "(256, 256)": "(32, 32)",
    '{"encoder": "resnet50"}': '{"encoder": "resnet18", "encoder_weights": None}',
}
LINES = 8
SIZE = (40, 48)


def blocks() -> list[str]:
    """The blocks of Python in the section "In Python"."""
    section = README.read_text().partition("\n## In Python\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def draw(folder: Path, count: int) -> None:
    """Images of ground with a crack, and their masks."""
    for i in range(count):
        mask = np.zeros(SIZE, np.uint8)
        mask[:, 5 * i + 3 : 5 * i + 9] = 1
        image = np.where(mask[..., None], 60, 170) + np.random.default_rng(i).normal(0, 9, (*SIZE, 3))
        for kind, pixels in (("images", image.clip(0, 255).astype(np.uint8)), ("masks", mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / f"{i}.png")


def test_the_code_is_short() -> None:
    found = blocks()
    assert found
    for block in found:
        assert len([line for line in block.splitlines() if line.strip()]) <= LINES


@pytest.mark.filterwarnings("ignore")
def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path("synthetic"), 6)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        draw(Path("photos", split), count)
    Image.fromarray(np.full((*SIZE, 3), 120, np.uint8)).save("photo.jpg")
    code = "\n".join(blocks()).replace("target_labels=16", "target_labels=3")
    for text, shorter in SHORTER.items():
        assert text in code
        code = code.replace(text, shorter)
    names: dict[str, Any] = {}
    exec(compile(ast.parse(code), str(README), "exec"), names)
    assert names["trainer"].global_step == 2 and "mIoU" in capsys.readouterr().out
    assert names["found"].labels.shape == SIZE and Image.open("seen.jpg").size == SIZE[::-1]
