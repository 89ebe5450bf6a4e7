"""`segzoo annotate`: reproducible pairs that the data module reads, and a fresh training on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segzoo.cli.main import main
from segzoo.data import PairedFolders
from tests import tiny
from tests.cli.conftest import Segzoo

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a tiny gradient-annotator."""
    folder = tmp_path_factory.mktemp("annotator")
    faces = {"class_path": "segzoo.data.MiniFaces", "init_args": {"train": 6, "val": 2, "test": 2, "size": [32, 32]}}
    content: dict[str, Any] = {
        "data": {
            "name": "few",
            "size": [32, 32],
            "batch_size": 2,
            "num_workers": 0,
            "target_labels": 3,
            "source": faces,
            "target": faces,
        },
        "trainer": {"max_steps": 1, "val_check_interval": 1, "accelerator": "cpu"},
        "method": tiny.OPTIONS["gradient-annotator"],
        "network": tiny.NETWORK,
    }
    (folder / "few.yaml").write_text(yaml.safe_dump(content))
    arguments = ["--method", "gradient-annotator", "--config", str(folder / "few.yaml"), "--runs", str(folder)]
    assert main(["fit", *arguments]) == 0
    return folder / "gradient-annotator" / "few" / "default-s0"


@pytest.fixture
def checkpoint(run: Path) -> Path:
    return run / "checkpoints" / "last.ckpt"


def pixels(folder: Path, i: int) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(Image.open(folder / "images" / f"{i:05}.png")), np.asarray(
        Image.open(folder / "masks" / f"{i:05}.png")
    )


def test_pairs_are_reproducible_and_go_on(segzoo: Segzoo, checkpoint: Path) -> None:
    made = segzoo("annotate", "--ckpt_path", checkpoint, "--count", 5, "--out", "five", "--batch_size", 2)
    assert made.status == 0 and "5 of 5" in made.out, made.err
    assert segzoo("annotate", "--ckpt_path", checkpoint, "--count", 3, "--out", "more").status == 0
    before = Path("more/masks/00001.png").stat().st_mtime_ns
    Path("more/masks/00002.png").unlink()  # as if interrupted between image and mask
    again = segzoo("annotate", "--ckpt_path", checkpoint, "--count", 5, "--out", "more", "--batch_size", 4)
    assert "3 of 5" in again.out and Path("more/masks/00001.png").stat().st_mtime_ns == before
    for i in range(5):
        for one, other in zip(pixels(Path("five"), i), pixels(Path("more"), i), strict=True):
            np.testing.assert_array_equal(one, other)
    other = segzoo("annotate", "--ckpt_path", checkpoint, "--count", 1, "--out", "seed", "--seed", 1)
    assert other.status == 0 and (pixels(Path("seed"), 0)[0] != pixels(Path("five"), 0)[0]).any()
    mixed = segzoo("annotate", "--ckpt_path", checkpoint, "--count", 6, "--out", "five", "--seed", 1)
    assert mixed.status == 2 and "another seed" in mixed.err


def test_soft_labels_and_doubt(segzoo: Segzoo, checkpoint: Path) -> None:
    made = segzoo(
        "annotate", "--ckpt_path", checkpoint, "--count", 2, "--out", "out", "--soft", "--min_confidence", 0.2
    )
    assert made.status == 0, made.err
    for i in range(2):
        probabilities = np.load(f"out/soft/{i:05}.npz")["probabilities"].astype(float)
        assert probabilities.shape == (7, 32, 32)
        np.testing.assert_allclose(probabilities.sum(0), 1, atol=5e-3)
        _, mask = pixels(Path("out"), i)
        sure = probabilities.max(0)
        np.testing.assert_array_equal(mask[sure > 0.201], probabilities.argmax(0)[sure > 0.201])
        assert (mask[sure < 0.199] == 255).all()
    assert json.loads(Path("out/annotate.json").read_text())["soft"] is True


def test_a_fresh_segmenter_learns_from_them(segzoo: Segzoo, checkpoint: Path) -> None:
    assert segzoo("annotate", "--ckpt_path", checkpoint, "--count", 3, "--out", "out").status == 0
    images = PairedFolders("images", "masks", "out/label_space.yaml").images("train", Path("out"))
    assert len(images) == 3 and images.label(0).max() < 7 and images.image(0).shape == (32, 32, 3)
    short = ["--trainer.max_steps", 1, "--trainer.accelerator", "cpu"]
    for method in ("source-only", "joint"):
        trained = segzoo("fit", "--method", method, "--data", "out/data.yaml", *short)
        assert trained.status == 0 and "eyes" in trained.out, trained.err
        assert Path(f"runs/{method}/few-generated/default-s0/scores-test.json").is_file()


def test_what_cannot_work_is_refused(segzoo: Segzoo, trained: Path, tmp_path: Path) -> None:
    last = trained / "checkpoints" / "last.ckpt"
    other = segzoo("annotate", "--ckpt_path", last, "--count", 1, "--out", "out")
    assert other.status == 2 and "'source-only', which generates nothing" in other.err
    for option, value in (("--count", "0"), ("--min_confidence", "2"), ("--seed", "-1"), ("--size", "0 0")):
        arguments = ["--ckpt_path", last, "--count", "1", "--out", "out", option, *value.split()]
        assert segzoo("annotate", *arguments).status == 2
    assert segzoo("annotate", "--count", "1").status == 2


def test_the_generators_file_is_not_needed_again(segzoo: Segzoo, tmp_path: Path) -> None:
    """A checkpoint resumes, is scored and annotates without the file that the generator came from."""
    import torch

    from segzoo.models.generators import DCGAN

    torch.save(DCGAN(4, 2).state_dict(), tmp_path / "dcgan.pt")
    content: dict[str, Any] = {
        "trainer": {"max_steps": 1, "val_check_interval": 1, "accelerator": "cpu"},
        "method": {"annotator_width": 4, "generator": str(tmp_path / "dcgan.pt")},
        "network": tiny.NETWORK,
        "data": {"size": [32, 32], "batch_size": 2, "target_labels": 2},
    }
    Path("c.yaml").write_text(yaml.safe_dump(content))
    small = ["--data.target.test", 2, "--data.target.val", 2]
    assert segzoo("fit", "--method", "gradient-annotator", "--config", "c.yaml", *small).status == 0
    (tmp_path / "dcgan.pt").unlink()
    last = "runs/gradient-annotator/minifaces/default-s0/checkpoints/last.ckpt"
    resumed = segzoo("fit", "--ckpt_path", last, "--trainer.max_steps", 2)
    assert resumed.status == 0, resumed.err
    assert segzoo("test", "--ckpt_path", last).status == 0
    assert segzoo("annotate", "--ckpt_path", last, "--count", 1, "--out", "out").status == 0
