"""A toy data set in folders, and a way to call the command."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image

from segzoo.cli.main import main

SPACE = {"name": "toy", "classes": {"sky": [90, 120, 200], "road": [100, 100, 100], "car": [200, 40, 40]}}


class Result(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


Segzoo = Callable[..., Result]


@pytest.fixture
def segzoo(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Segzoo:
    """Calls the command in an empty folder: ``segzoo("fit", "--method", "joint")``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEGZOO_DEBUG", raising=False)

    def call(*argv: str | Path) -> Result:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in argv])
        except SystemExit as end:
            status = int(end.code or 0)
        return Result(status, *capsys.readouterr())

    return call


def write_pairs(folder: Path, count: int) -> None:
    """Images of sky, road and one car, with masks."""
    rng = np.random.default_rng(count)
    (folder / "image").mkdir(parents=True)
    (folder / "mask").mkdir()
    for i in range(count):
        mask = np.zeros((24, 32), np.uint8)
        mask[12:] = 1
        left = int(rng.integers(0, 24))
        mask[10:18, left : left + 8] = 2
        colours = np.array(list(SPACE["classes"].values()))[mask]  # type: ignore[attr-defined]
        image = (colours + rng.normal(0, 20, colours.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(mask).save(folder / "mask" / f"{i:03}.png")
        Image.fromarray(image).save(folder / "image" / f"{i:03}.png")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data YAML with everything small: 4 source images, 4 + 2 + 2 target images."""
    root = tmp_path_factory.mktemp("toy")
    write_pairs(root / "syn", 4)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        write_pairs(root / "real" / split, count)
    (root / "space.yaml").write_text(yaml.safe_dump(SPACE, sort_keys=False))
    folders = "segzoo.data.PairedFolders"
    space = str(root / "space.yaml")
    source = {"images": "syn/image", "masks": "syn/mask", "label_space": space}
    target = {"images": "real/{split}/image", "masks": "real/{split}/mask", "label_space": space}
    content = {
        "data": {
            "name": "toy",
            "root": str(root),
            "size": [32, 32],
            "batch_size": 2,
            "num_workers": 0,
            "target_labels": 3,
            "source": {"class_path": folders, "init_args": source},
            "target": {"class_path": folders, "init_args": target},
        },
        "trainer": {
            "max_steps": 2,
            "val_check_interval": 2,
            "log_every_n_steps": 1,
            "accelerator": "cpu",
        },
        "network": {
            "architecture": "unet",
            "encoder": "tu-test_resnet",
            "encoder_weights": None,
            "options": {"decoder_channels": [16, 16, 8, 8, 8]},
        },
    }
    path = root / "toy.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="session")
def trained(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a method that needs no target labels."""
    runs = tmp_path_factory.mktemp("trained")
    status = main(["fit", "--method", "source-only", "--data", str(toy), "--runs", str(runs)])
    assert status == 0
    return runs / "source-only" / "toy" / "default-s0"


@pytest.fixture
def checkpoint(trained: Path) -> Path:
    """The last checkpoint of `trained`."""
    return trained / "checkpoints" / "last.ckpt"
