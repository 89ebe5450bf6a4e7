"""`segzoo data convert`, the data files of part data sets, and the published setting on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segzoo.cli.data_convert import NAMES
from segzoo.configs import config_path
from segzoo.data.label_spaces import load_label_space
from tests.cli.conftest import Segzoo

pytestmark = pytest.mark.filterwarnings("ignore")


def datasetgan(root: Path) -> None:
    """Cats: three to train on, two to test on."""
    for folder, count in (("training_data/cat_processed", 3), ("testing_data/cat_16_class", 2)):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(root / folder / f"image_{i}.png")
            mask = np.zeros((32, 32), np.uint8)
            mask[8:24, 8:24], mask[12:20, 4 + i : 12] = 5, 9
            np.save(root / folder / f"image_mask{i}.npy", mask)


def test_from_the_download_to_a_published_setting(segzoo: Segzoo, tmp_path: Path) -> None:
    datasetgan(tmp_path / "annotation")
    command = ("data", "convert", "cat16", "--root", tmp_path / "annotation", "--out", tmp_path / "cats")
    result = segzoo(*command)
    assert result.status == 0 and "3 train, 2 test images" in result.out, result.err
    masks = sorted((tmp_path / "cats").rglob("masks/*.png"))
    assert len(masks) == 5 and np.unique(np.asarray(Image.open(masks[-1]))).tolist() == [0, 5, 9]

    times = {path: path.stat().st_mtime_ns for path in masks[1:]}
    masks[0].unlink()  # as if it had been interrupted
    assert segzoo(*command).status == 0 and masks[0].is_file()
    assert {path: path.stat().st_mtime_ns for path in times} == times

    small = [
        "--network.architecture",
        "unet",
        "--network.encoder",
        "tu-test_resnet",
        "--network.encoder_weights",
        "null",
    ]
    small += ["--data.size", "32", "32", "--data.target_labels", "2", "--trainer.max_steps", "1"]
    small += ["--data.num_workers", "0", "--trainer.accelerator", "cpu", "--trainer.val_check_interval", "1"]
    small += ["--method.annotator_width", "4", "--network.options", "{decoder_channels: [16, 16, 8, 8, 8]}"]
    place = ("--data", "cat16", "--data.root", tmp_path / "cats")
    result = segzoo("fit", "--recipe", "gradient_annotator", *place, *small)
    assert result.status == 0, result.err
    scores = json.loads(Path("runs/gradient-annotator/cat16/published-s0/scores-test.json").read_text())
    assert scores["protocol"]["classes"] == "cat16" and scores["protocol"]["images"] == 2
    assert {c["name"] for c in scores["classes"] if c["share"]} == {"background", "part 5", "part 9"}


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_and_the_data_agree(name: str, segzoo: Segzoo, tmp_path: Path) -> None:
    result = segzoo("fit", "--recipe", "gradient_annotator", "--data", name, "--data.root", tmp_path, "--print_config")
    assert result.status == 0, result.err
    printed: dict[str, Any] = yaml.safe_load(result.out)
    recipe = yaml.safe_load(config_path("recipe", "gradient_annotator").read_text())
    data = yaml.safe_load(config_path("data", name).read_text())["data"]
    for section, expected in ((name, recipe[name]) for name in ("method", "network", "optimizer", "trainer")):
        assert {key: printed[section][key] for key in expected} == expected
    assert {key: printed["data"][key] for key in recipe["data"]} == recipe["data"]
    assert all(printed["data"][key] == data[key] for key in ("name", "size", "target_labels"))
    assert printed["data"]["batch_size"] == 2
    space = load_label_space(data["target"]["init_args"]["label_space"])
    assert space.subsets["foreground"] == tuple(range(1, space.num_classes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["horses"], "invalid choice: 'horses'"),
        (["cat16", "--root", "nowhere"], "expected the folder that the data set was unpacked into"),
        (["cat16", "--smallest_side", "3"], "--smallest_side is for pascal_horse"),
        (["pascal_horse", "--smallest_side", "0"], "--smallest_side 0: expected 1 or more"),
        (["cat16", "--rot", "x"], "did you mean '--root'"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], message: str, segzoo: Segzoo) -> None:
    given = arguments if "--root" in arguments else [*arguments, "--root", "."]
    result = segzoo("data", "convert", *given, "--out", "out")
    assert result.status == 2 and message in result.err and result.err.count("\n") == 1
    assert not Path("out").exists()
