"""The packaged recipes: read from the very folders, names and raw ids of the public data sets, in miniature."""

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segzoo.configs import config_names, config_path, config_root
from segzoo.data import PairedFolders
from segzoo.data.label_spaces import load_label_space
from segzoo.methods.registry import load_method, method_defaults
from segzoo.methods.stages import Stages
from segzoo.models.segmenter import create_segmenter
from tests.cli.conftest import Segzoo

RECIPES = [name for name in config_names("recipe") if name != "gradient_annotator"]  # see test_prepare.py
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
    "gta5_synthia_metapix",
    "gta5_region_selection",
}
stepped_recipe = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ORDINARY else pytest.mark.slow) for name in RECIPES]
)
# Raw ids that occur in the miniatures: road, building, traffic light, sky, rider, car, and one that is ignored.
CITYSCAPES = (7, 11, 19, 23, 25, 26, 4)
SYNTHIA = (3, 2, 15, 1, 17, 8, 0)
TRAIN_IDS = (0, 2, 6, 10, 12, 13, 255)


def described(written: str | dict[str, Any]) -> dict[str, Any]:
    """A domain by its name, or by its name and options of its own, with all options."""
    known, own = (written, {}) if isinstance(written, str) else (written["class_path"], written["init_args"])
    options = yaml.safe_load(config_path("domains", known).read_text())
    return {"class_path": options["class_path"], "init_args": options["init_args"] | own}


def load(name: str) -> dict[str, Any]:
    """A recipe, with the options that the names of its domains stand for."""
    content: dict[str, Any] = yaml.safe_load(config_path("recipe", name).read_text())
    for domain in ("source", "target"):
        written = content["data"][domain]
        content["data"][domain] = (
            [described(one) for one in written] if isinstance(written, list) else described(written)
        )
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
    pairs = folder / "dark_zurich/corresp/train/night/GOPR0345_ref_day.csv"
    pairs.parent.mkdir(parents=True)
    for i in range(2):
        day, night = f"train/day/GOPR0340/GOPR0340_frame_{7 - i:06}", f"train/night/GOPR0345/GOPR0345_frame_{i:06}"
        with pairs.open("a") as file:
            file.write(f"{night},{day}\n")
        image(folder / f"dark_zurich/rgb_anon/{day}_rgb_anon.png", 70 + i)
        image(folder / f"dark_zurich/rgb_anon/{night}_rgb_anon.png", i)
        image(folder / f"nthu/Rome/Images/Train/pano_{i:05}_0_180.png", i)
        image(folder / f"nthu/Rome/Images/Test/pano_{i:05}_1_0.png", i)
        mask(folder / f"nthu/Rome/Labels/Test/pano_{i:05}_1_0_eval.png", regions((*CITYSCAPES, 34), i))
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
        "network.encoder": "tu-test_resnet",
        "network.encoder_weights": None,
    }
    if "initial_checkpoint" in recipe["network"] and not initial:
        options["network.initial_checkpoint"] = None
    if "crop_size" in recipe["data"]:
        options |= {"data.crop_size": [32, 32], "data.ignore_top": 1, "data.ignore_bottom": 4}
    if recipe["method"]["name"] == "sepico":
        options |= {"method.projection_dim": 8, "method.contrast_start": 1}
    if recipe["method"]["name"] == "metapix":  # a stage of each
        options |= {"method.stages": {"weights": 1, "segmenter": 1}, "method.weight_width": 4}
    if recipe["method"]["name"] == "region-selection":
        options |= {"method.discriminator_width": 4, "method.region_cell": 8}
    if recipe["network"]["architecture"] == "fcn8s":
        options |= {"network.encoder": "vgg11"}
        options |= {"network.options": recipe["network"]["options"] | {"fc_channels": 8, "fc_padding": 3}}
    return [f"--{option}={json.dumps(value, default=str)}".replace('"', "") for option, value in options.items()]


@pytest.fixture(autouse=True)
def _light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class counts are kept for the test alone, and no pictures are drawn: that takes longer than the two steps."""
    monkeypatch.setenv("SEGZOO_CACHE", str(tmp_path / "cache"))
    for picture in ("ImagePanels", "HistoryFigures"):
        monkeypatch.setattr(f"segzoo.cli.run.{picture}", lambda *_, **__: L.Callback())


# Reading


def documented() -> list[str]:
    """The commands of the table in docs/recipes.md."""
    table = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text().split("## ")[0]
    return re.findall(r"\| `(--recipe [^`]+)` \|$", table, re.MULTILINE)


def leaves(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Paths and values of a nested mapping, and of the mappings in its lists."""
    if isinstance(content, list) and any(isinstance(value, dict) for value in content):
        content = dict(enumerate(content))
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, content


def test_the_documentation_has_every_recipe_once() -> None:
    commands = documented()
    assert len(set(commands)) == len(commands) > len(RECIPES)
    assert {command for command in commands if command.count(" ") == 1} == {f"--recipe {name}" for name in RECIPES}


@pytest.mark.parametrize("command", documented())
def test_every_value_arrives(command: str, segzoo: Segzoo) -> None:
    """What the parser makes of a recipe and its flags is what they say: nothing is unknown, renamed or overridden."""
    flags = command.split()
    result = segzoo("fit", *flags, "--print_config")
    assert result.status == 0, result.err
    printed = dict(leaves(yaml.safe_load(result.out)))
    recipe = load(flags[1])
    if isinstance(recipe["data"]["source"], list):  # several sources are one domain
        weights = [float(source.pop("weight", 1)) for source in recipe["data"]["source"]]
        recipe["data"]["source"] = {"init_args": {"domains": recipe["data"]["source"], "weights": weights}}
    expected = dict(leaves(recipe))
    for option, value in zip(flags[2::2], flags[3::2], strict=True):
        path = option.removeprefix("--").replace("label_space", "init_args.label_space")
        expected = {name: old for name, old in expected.items() if not name.startswith(f"{path}.")}
        expected[path] = yaml.safe_load(value)
    absent = object()
    different = [path for path, value in expected.items() if printed.get(path, absent) != value]
    assert not different


@every_recipe
def test_nothing_is_left_to_the_defaults_of_short_runs(name: str) -> None:
    recipe = load(name)
    packaged = [method_defaults(recipe["method"]["name"]), yaml.safe_load((config_root() / "base.yaml").read_text())]
    shortened = {
        path
        for layer in packaged
        for path, _ in leaves(layer)
        if path.partition(".")[0] in ("method", "network", "optimizer", "loss", "data")
    }
    stated = dict(leaves(recipe))
    assert shortened <= stated.keys()
    assert {"seed_everything", "trainer.max_steps", "trainer.val_check_interval"} <= stated.keys()
    assert {f"data.{key}" for key in ("size", "batch_size", "flip", "color_jitter", "blur")} <= stated.keys()
    # What learns from target labels learns from all of them, as published.
    learns = "labels" in load_method(recipe["method"]["name"]).resources
    assert not learns or recipe["data"]["target_labels"] is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("target_weight:", "targt_weight:", "targt_weight"),
        ("crop_scale:", "crop_scal:", "crop_scal"),
        ("target: cityscapes", "target: cityscape", "unknown domain 'cityscape'; did you mean 'cityscapes'"),
    ],
)
def test_a_typo_in_a_recipe_is_refused(old: str, new: str, message: str, tmp_path: Path, segzoo: Segzoo) -> None:
    text = config_path("recipe", "gta5_maxsquare").read_text()
    assert text.count(old) == 1
    (tmp_path / "mine.yaml").write_text(text.replace(old, new))
    result = segzoo("fit", "--recipe", "mine.yaml", "--print_config")
    assert result.status == 2 and message in result.err


@every_recipe
def test_labels_are_read_from_the_files_as_they_come(name: str, root: Path) -> None:
    data = load(name)["data"]
    target = PairedFolders(**data["target"]["init_args"])
    listed = data["source"] if isinstance(data["source"], list) else [data["source"]]
    sources = [PairedFolders(**source["init_args"]) for source in listed]
    assert all(source.label_space == target.label_space for source in sources)
    space = target.label_space
    expected = {space.classes.index(c) for c in ("road", "building", "traffic light", "sky", "rider", "car")} | {255}
    train, val, test = (target.images(split, root) for split in ("train", "val", "test"))
    images = [source.images("train", root) for source in sources]
    assert all(len(one) == 3 for one in images) and len(train) >= 2 and not {*train.names} & {*val.names}
    for labelled in (*images, val, test):
        for i in range(len(labelled)):
            assert {*np.unique(labelled.label(i)).tolist()} == expected
    assert val.names == test.names
    # What a method for unlabelled targets may not need, it does not ask for.
    assert train.has_labels == data["target"]["init_args"]["images"].startswith("cityscapes")


def test_every_night_image_has_the_day_image_of_its_row(root: Path) -> None:
    target = PairedFolders(**load("cityscapes_darkzurich_sepico_deeplabv2")["data"]["target"]["init_args"])
    train = target.images("train", root)
    assert train.has_references and not target.images("val", root).has_references
    for i in range(2):
        expected = np.random.default_rng(70 + i).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        assert np.array_equal(train.reference(i), expected)


def test_the_weight_of_minimum_entropy_is_that_of_its_paper() -> None:
    assert load("gta5_minent")["method"]["target_weight"] == pytest.approx(0.001 * 19 / math.log(19), rel=1e-4)


@pytest.mark.parametrize("name", [name for name in RECIPES if "initial_checkpoint" in load(name)["network"]])
def test_the_first_phase_is_a_recipe_of_the_same_network(name: str) -> None:
    recipe = load(name)
    sources = {checkpoint_of(other): load(other) for other in RECIPES if other != name}
    if recipe["method"].get("multi_level"):  # its own first phase, by the command that is documented
        start = next(command for command in documented() if "--name gta5_source_multi" in command)
        path = "runs/maxsquare/gta5_to_cityscapes/gta5_source_multi-s12345/checkpoints/last.ckpt"
        assert recipe["network"]["initial_checkpoint"] == path and start.startswith(f"--recipe {name} ")
        return
    first = sources[recipe["network"]["initial_checkpoint"]]
    for option in ("architecture", "encoder", "options", "norm"):
        assert first["network"][option] == recipe["network"][option]
    assert first["data"]["source"] == recipe["data"]["source"]


def test_the_stages_of_metapix_are_its_training() -> None:
    for recipe in (load(name) for name in RECIPES if name.endswith("_metapix")):
        last = Stages(**recipe["method"]["stages"]).plan(None)[-1]
        assert recipe["trainer"]["max_steps"] == last.start + last.length == 225_000
        assert last.name == "segmenter" and last.generation == 2


NETWORKS = {json.dumps([load(n)["network"][key] for key in ("architecture", "encoder", "options")]): n for n in RECIPES}


@pytest.mark.parametrize("name", NETWORKS.values())
def test_the_published_network_can_be_built(name: str) -> None:
    network = load(name)["network"]
    with torch.random.fork_rng():
        segmenter = create_segmenter(
            network["architecture"], network["encoder"], 19, norm=network["norm"], options=network["options"]
        ).eval()
    side = 256 if network["architecture"] == "fcn8s" else 64
    image = torch.rand(1, 3, side, side)
    with torch.no_grad():
        maps = segmenter.features(image)
        assert segmenter.decode(maps, (side, side)).shape == (1, 19, side, side)
    strides = {"deeplabv2": [2, 4, 8, 8, 8]}.get(network["architecture"], [2, 4, 8, 16, 32])
    assert [side // m.shape[-1] for m in maps[1:]] == strides
    if network["architecture"] == "deeplabv2":
        assert segmenter.feature_channels[-2:] == [1024, 2048]
    elif network["architecture"] == "fcn8s":
        assert segmenter.feature_channels == [64, 128, 256, 512, 512, 512]
    else:
        assert segmenter.feature_channels[2:] == [64, 128, 320, 512]


def checkpoint_of(name: str) -> str:
    recipe = load(name)
    run = f"{recipe['name']}-s{recipe['seed_everything']}"
    return f"runs/{recipe['method']['name']}/{recipe['data']['name']}/{run}/checkpoints/last.ckpt"


# Training


def fit(segzoo: Segzoo, name: str, root: Path, *options: str, initial: bool = False) -> Path:
    """Two steps of a recipe; its run folder."""
    result = segzoo("fit", "--recipe", name, *small(name, root, initial), *options)
    assert result.status == 0, result.err
    run = Path(checkpoint_of(name)).parents[1]
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


@pytest.mark.filterwarnings("ignore")
def test_adaptation_starts_where_the_source_ended(root: Path, segzoo: Segzoo) -> None:
    second = ("gta5_maxsquare", *small("gta5_maxsquare", root, initial=True))
    missing = segzoo("fit", "--recipe", *second)
    assert missing.status == 2 and f"no checkpoint at {checkpoint_of('gta5_source_maxsquare')}" in missing.err
    fit(segzoo, "gta5_source_maxsquare", root)
    # Without a learning rate parameters stay those that it started from.
    run = fit(segzoo, "gta5_maxsquare", root, "--optimizer.lr=0", initial=True)
    first, last = (
        torch.load(path, weights_only=True)["state_dict"]
        for path in (checkpoint_of("gta5_source_maxsquare"), run / "checkpoints" / "last.ckpt")
    )
    convolutions = [key for key in first if key.endswith(".weight") and first[key].ndim == 4]
    assert convolutions and all(torch.equal(first[key], last[key]) for key in convolutions)
