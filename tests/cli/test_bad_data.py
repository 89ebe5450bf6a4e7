"""Broken files, through the command: one line that names the file, and status 2."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segzoo.cli.main import main
from tests import tiny


def mask_of_another_size(folder: Path) -> None:
    Image.fromarray(np.zeros((30, 64), np.uint8)).save(folder / "masks" / "1.png")


def last_mask_of_another_size(folder: Path) -> None:
    Image.fromarray(np.zeros((30, 64), np.uint8)).save(folder / "masks" / "3.png")


def unknown_id(folder: Path) -> None:
    Image.fromarray(np.full((32, 64), 77, np.uint8)).save(folder / "masks" / "1.png")


def unreadable_image(folder: Path) -> None:
    (folder / "images" / "1.png").write_text("not an image")


def mask_without_image(folder: Path) -> None:
    (folder / "images" / "1.png").unlink()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (mask_of_another_size, "masks/1.png is 64x30"),
        (last_mask_of_another_size, "masks/3.png is 64x30"),
        (unknown_id, "unknown label id 77 in"),
        (unreadable_image, "images/1.png"),
        (mask_without_image, "1.png"),
    ],
)
def test_a_broken_file_is_named(
    spoil: Callable[[Path], None], message: str, workers: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(4):
        image = generator.integers(0, 255, (32, 64, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(generator.integers(0, 9, (32, 64), np.uint8)).save(tmp_path / "masks" / f"{i}.png")
    domain = {
        "class_path": "segzoo.data.PairedFolders",
        "init_args": {"images": "images", "masks": "masks", "label_space": "minicity", "blocks": [0.5, 0.25, 0.25]},
    }
    data = {"name": "bad", "root": str(tmp_path), "size": [32, 64], "batch_size": 2, "num_workers": workers}
    config = {"data": data | {"source": domain, "target": domain}, "network": tiny.NETWORK, "trainer": {"max_steps": 2}}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(config))
    spoil(tmp_path)

    arguments = ["--method", "source-only", "--data", str(tmp_path / "bad.yaml"), "--runs", str(tmp_path / "runs")]
    assert main(["fit", *arguments, "--trainer.accelerator", "cpu"]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in errors[0]
    assert spoil is not last_mask_of_another_size or not (tmp_path / "runs").exists(), "said before the run"
