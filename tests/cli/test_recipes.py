"""The packaged recipes: read from the very folders, names and raw ids of the public data sets, in miniature."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segzoo.cli.main import main
from segzoo.configs import config_names, config_path, config_root
from segzoo.data.label_spaces import load_label_space
from segzoo.methods.registry import method_defaults, methods
from tests.cli.conftest import Segzoo

RECIPES = config_names("recipe")
every_recipe = pytest.mark.parametrize("name", RECIPES)
HEIGHT, WIDTH = 36, 72
# In the ordinary suite each method and each data set runs once; the others are parsed, and stepped with `-m slow`.
ORDINARY = {
    "gta5_source_maxsquare",
    "gta5_maxsquare_iw_multi",
    "gta5_selftraining_daformer",
    "synthia16_maxsquare",
    "synthia_sepico_deeplabv2",
    "cityscapes_crosscity_maxsquare",
    "cityscapes_darkzurich_sepico_daformer",
}
stepped_recipe = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ORDINARY else pytest.mark.slow) for name in RECIPES]
)
# Raw ids that occur in the miniatures: road, building, traffic light, sky, rider, car, and one that is ignored.
CITYSCAPES = (7, 11, 19, 23, 25, 26, 4)
SYNTHIA = (3, 2, 15, 1, 17, 8, 0)
TRAIN_IDS = (0, 2, 6, 10, 12, 13, 255)


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(config_path("recipe", name).read_text())
    return content


def regions(ids: tuple[int, ...], number: int) -> np.ndarray:
    """A mask of rectangles, no class above three quarters."""
    mask = np.full((HEIGHT, WIDTH), ids[0], np.uint8)
    for i, value in enumerate(ids[1:]):
        top, left = 9 * (i % 3), (11 * i + 5 * number) % 56
        mask[top : top + 12, left : left + 14] = value
    return mask


def image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def mask(path: Path, ids: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(ids)
    if palette:
        picture.putpalette([(37 * value) % 256 for value in range(768)])
    picture.save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Miniatures of GTA5, SYNTHIA, Cityscapes, Cross-City and Dark Zurich in one folder."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(3):
        image(folder / f"gta5/images/{i + 1:05}.png", i)
        mask(folder / f"gta5/labels/{i + 1:05}.png", regions((*CITYSCAPES, 34), i), palette=True)
        image(folder / f"synthia/RGB/{i:07}.png", i)
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint16)
        pixels[..., 2], pixels[..., 1] = regions(SYNTHIA, i), 1000 + i  # OpenCV's order: red is last
        path = folder / f"synthia/GT/LABELS/{i:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), pixels)
    for split, city, count in (("train", "aachen", 2), ("train", "ulm", 1), ("val", "munster", 2)):
        for i in range(count):
            stem = f"{split}/{city}/{city}_{i:06}_000019"
            image(folder / f"cityscapes/leftImg8bit/{stem}_leftImg8bit.png", i)
            mask(folder / f"cityscapes/gtFine/{stem}_gtFine_labelIds.png", regions(CITYSCAPES, i))
            mask(folder / f"cityscapes/gtFine/{stem}_gtFine_instanceIds.png", regions(CITYSCAPES, i))
    image(folder / "cityscapes/leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png", 0)
    for i in range(2):
        image(folder / f"nthu/Rome/Images/Train/pano_{i:05}_0_180.png", i)
        image(folder / f"nthu/Rome/Images/Test/pano_{i:05}_1_0.png", i)
        mask(folder / f"nthu/Rome/Labels/Test/pano_{i:05}_1_0_eval.png", regions((*CITYSCAPES, 34), i))
        image(folder / f"dark_zurich/rgb_anon/train/night/GOPR0345/GOPR0345_frame_{i:06}_rgb_anon.png", i)
        stem = f"val/night/GOPR0356/GOPR0356_frame_{i:06}"
        image(folder / f"dark_zurich/rgb_anon/{stem}_rgb_anon.png", i)
        mask(folder / f"dark_zurich/gt/{stem}_gt_labelTrainIds.png", regions(TRAIN_IDS, i))
        mask(folder / f"dark_zurich/gt/{stem}_gt_labelIds.png", regions(CITYSCAPES, i))
    return folder


def small(name: str, root: Path, initial: bool = False) -> list[str]:
    """What makes a recipe small enough for a test, and nothing else; ``initial``: with its initial checkpoint."""
    recipe = load(name)
    options: dict[str, Any] = {
        "data.root": root,
        "data.size": [32, 64],
        "data.source_size": [32, 64],
        "data.target_size": [32, 64],
        "data.num_workers": 0,
        "trainer.max_steps": 2,
        "trainer.val_check_interval": 2,
        "trainer.accelerator": "cpu",
        "trainer.log_every_n_steps": 1,
        "method.encoder": "tu-test_resnet",
        "method.encoder_weights": None,
    }
    if "initial_checkpoint" in recipe["model"] and not initial:
        options["method.initial_checkpoint"] = None
    if "crop_size" in recipe["data"]:
        options |= {"data.crop_size": [32, 32], "method.ignore_top": 1, "method.ignore_bottom": 4}
    if recipe["method"] == "sepico":
        options |= {"method.projection_dim": 8, "method.contrast_start": 1}
    return [f"--{option}={json.dumps(value, default=str)}".replace('"', "") for option, value in options.items()]


@pytest.fixture(autouse=True)
def _light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class counts are kept for the test alone, and no pictures are drawn: that takes longer than the two steps."""
    monkeypatch.setenv("SEGZOO_CACHE", str(tmp_path / "cache"))
    for picture in ("ImagePanels", "HistoryFigures"):
        monkeypatch.setattr(f"segzoo.cli.lightning.{picture}", lambda *_, **__: L.Callback())


def fit(segzoo: Segzoo, name: str, root: Path, *options: str, initial: bool = False) -> Path:
    """Two steps of a recipe; its run folder."""
    result = segzoo("fit", "--recipe", name, *small(name, root, initial), *options)
    assert result.status == 0, result.err
    recipe = load(name)
    run = Path("runs", recipe["method"], recipe["data"]["name"], f"{recipe['name']}-s{recipe['seed_everything']}")
    assert str(run) in result.out
    return run


@stepped_recipe
@pytest.mark.filterwarnings("ignore")
def test_two_steps(name: str, root: Path, segzoo: Segzoo) -> None:
    run = fit(segzoo, name, root)
    scores = json.loads((run / "scores-test.json").read_text())
    recipe = load(name)
    space = load_label_space(recipe["data"]["target"]["init_args"]["label_space"])
    protocol = scores["protocol"]
    assert (protocol["classes"], protocol["num_classes"]) == (space.name, space.num_classes)
    assert (protocol["images"], protocol["checkpoint"], protocol["truth_size"]) == (2, "last", "native")
    assert scores["subsets"].keys() == space.subsets.keys()
    # The truth of the two target images: every class of the miniature at its place, all else ignored.
    seen = {entry["name"] for entry in scores["classes"] if entry["share"]}
    assert seen == {"road", "building", "traffic light", "sky", "rider", "car"}
    with (run / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
