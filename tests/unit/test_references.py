"""Images with a reference image of the same place: pairs, files, and the same cut for both."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segzoo.data import DomainDataModule, PairedFolders
from segzoo.data.references import match_references, read_pairs
from segzoo.errors import ConfigError, DataError
from tests import tiny

SIZE = (24, 48)


def write(path: Path, seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.mark.parametrize("row", ["a/b/night_1,x/day_7", "night_1_rgb.png,day_7_rgb.png", " b\\night_1 , day_7.PNG,3.5"])
def test_what_a_row_may_look_like(row: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(f"\n{row}\n")
    assert read_pairs([tmp_path / "pairs.csv"], "_rgb") == {"night_1": "day_7"}


def test_a_dot_in_a_name_is_no_ending(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("12.5,13.25\n")
    assert read_pairs([tmp_path / "pairs.csv"], "") == {"12.5": "13.25"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("a,b\nc\n", "line 2: expected an image"), ("a,b\na,c\n", "line 2: a has"), ("a,\n", "line 1")],
)
def test_rows_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_pairs([tmp_path / "pairs.csv"], "")


def test_matching() -> None:
    images, references = ["x/1", "y/2"], ["p/7", "p/8", "x/1"]
    assert match_references(images, references, Path("d"), {"1": "8", "2": "7"}) == {"x/1": "p/8", "y/2": "p/7"}
    assert match_references(["x/1"], references, Path("d"), None) == {"x/1": "x/1"}
    for pairs in (None, {"1": "8"}, {"1": "8", "2": "9"}):
        with pytest.raises(DataError, match="no reference image in d for the image y/2"):
            match_references(images, references, Path("d"), pairs)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images by night, whose day images are the same pixels under other names, and masks of the last two."""
    for i in range(4):
        write(tmp_path / f"night/n{i}.png", i)
        write(tmp_path / f"day/d{i}.png", i)
    (tmp_path / "pairs.csv").write_text("".join(f"n{i},d{i}\n" for i in range(4)))
    return tmp_path


def night(**options: str) -> PairedFolders:
    settings = {"images": "night", "masks": None, "label_space": "minicity", "references": "day"}
    return PairedFolders(**(settings | {"reference_pairs": "*.csv"} | options))  # type: ignore[arg-type]


def test_both_are_cut_alike(root: Path) -> None:
    method = tiny.method("self-training", night={"classes": ["road"]})
    data = DomainDataModule(
        tiny.data().source,
        night(),
        root=str(root),
        size=(16, 32),
        batch_size=2,
        num_workers=0,
        color_jitter=0.5,
        blur=1.0,
    )
    trainer = tiny.trainer(1)
    trainer.fit(method, datamodule=data)
    batch = next(iter(data.train_dataloader()))[0]["target"]
    assert batch["image"].std() > 0 and torch.equal(batch["image"], batch["reference"])
    assert torch.equal(method.step_pictures["reference"], method.step_pictures["target"])


def test_a_set_without_references(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"set `data.target.references`"):
        tiny.fit("self-training", 1, night={"classes": ["road"]})
    images = night(references=None, reference_pairs=None).images("train", root)  # type: ignore[arg-type]
    assert not images.has_references
    with pytest.raises(DataError, match="set references"):
        images.reference(0)


def test_what_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="needs references"):
        night(references=None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="there is no file"):
        night(reference_pairs="none/*.csv").images("train", root)
    with pytest.raises(DataError, match="dusk does not exist"):
        night(references="dusk").images("train", root)
    write(root / "day/d2.png", 2, (24, 40))
    images = night().images("train", root)
    assert images.reference(1).shape == (*SIZE, 3)
    with pytest.raises(DataError, match=r"40x24 .* 48x24"):
        images.reference(2)
