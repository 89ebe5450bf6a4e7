"""The packaged pairs of photographs, in miniature: the same folders, ids and shapes, a few of each."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segzoo.configs import config_path
from segzoo.methods.registry import DEFAULT_DATA, load_method, methods
from segzoo.methods.segmentation import SegmentationMethod
from tests.cli.conftest import Segzoo

# One step is shorter than what some methods wait for.
pytestmark = pytest.mark.filterwarnings("ignore:.*is not reached in 1 steps")
PAIRS = ("carla_to_camvid", "airsim_to_camvid", "carla_airsim_to_camvid", "cracks")
BY_RESOURCES = {
    info.resources: slug
    for slug, info in sorted(methods().items(), reverse=True)
    if issubclass(load_method(slug), SegmentationMethod) and info.default_data == DEFAULT_DATA
}
"""One method for each of the resources that there are."""
TINY = ("--network.encoder", "tu-test_resnet", "--network.encoder_weights", "null", "--trainer.accelerator", "cpu")


def write(folder: Path, count: int, classes: int, size: tuple[int, int], masks: bool = True) -> None:
    rng = np.random.default_rng(count)
    for i in range(count):
        label = np.zeros(size, np.uint8)
        for number in range(classes):
            label[:, number * size[1] // classes :] = number
        noise = rng.integers(0, 60, (*size, 3))
        for name, pixels in (("image", (noise + 18 * label[..., None]).astype(np.uint8)), ("label", label)):
            if masks or name == "image":
                (folder / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / name / f"{i:03}.{'jpg' if name == 'image' else 'png'}")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    for simulator in ("carla", "airsim"):
        write(folder / simulator, 40, 10, (24, 32))
    write(folder / "camvid/train", 18, 11, (24, 32))
    write(folder / "cracks/source", 6, 2, (32, 32))
    write(folder / "cracks/train", 3, 2, (32, 40))
    write(folder / "cracks/unlabelled", 5, 2, (44, 32), masks=False)
    for split in ("val", "test"):
        write(folder / "camvid" / split, 2, 11, (24, 32))
        write(folder / "cracks" / split, 2, 2, (32, 50))
    return folder


def manifest(segzoo: Segzoo, root: Path, slug: str, data: str, *more: str) -> dict[str, Any]:
    """What a run of one step wrote down."""
    where = ("--method", slug, "--data", data, "--data.root", root, "--data.num_workers", "0")
    result = segzoo("fit", *where, *TINY, "--trainer.max_steps", "1", "--data.size", "32", "32", *more)
    assert result.status == 0, result.err
    content: dict[str, Any] = json.loads((Path("runs") / slug / data / "default-s0/manifest.json").read_text())
    assert content["status"] == "finished" and "miou" in content["scores"]["test"]
    return content


@pytest.mark.parametrize(
    ("data", "slug"),
    [
        *itertools.product(("carla_to_camvid", "cracks"), BY_RESOURCES.values()),
        ("airsim_to_camvid", "joint"),
        ("carla_airsim_to_camvid", "metapix"),
    ],
)
def test_every_pair_trains_a_method_of_every_kind(data: str, slug: str, root: Path, segzoo: Segzoo) -> None:
    images = manifest(segzoo, root, slug, data)["data"]["images"]
    resources = methods()[slug].resources
    train, budget, further = (3, 3, 5) if data == "cracks" else (18, 16, 0)
    assert images.get("target/labelled") == (budget if "labels" in resources else None)
    seen = train + further - (budget if "labels" in resources else 0)
    assert images.get("target/unlabelled") == (seen if "unlabelled" in resources else None)


def test_cracks_need_no_labelled_photographs_for_training(root: Path, segzoo: Segzoo, tmp_path: Path) -> None:
    (tmp_path / "cracks").mkdir()
    for folder in ("source", "unlabelled", "val", "test"):
        (tmp_path / "cracks" / folder).symlink_to(root / "cracks" / folder)
    images = manifest(segzoo, tmp_path, "minent", "cracks")["data"]["images"]
    assert images == {"source/train": 6, "target/train": 0, "target/unlabelled": 5, "target/val": 2, "target/test": 2}
    result = segzoo("fit", "--method", "joint", "--data", "cracks", "--data.root", tmp_path, *TINY)
    assert result.status == 2 and "the target domain has no train split" in result.err


def test_the_budgets_are_those_that_the_yamls_name() -> None:
    content = {name: yaml.safe_load(config_path("data", name).read_text())["data"] for name in PAIRS}
    assert [content[name]["target_labels"] for name in PAIRS] == [16, 16, 16, None]


@pytest.mark.parametrize("inner", [False, True])
def test_a_list_of_splits_is_answered_with_its_new_name(inner: bool, toy: Path, tmp_path: Path, segzoo: Segzoo) -> None:
    content = yaml.safe_load(toy.read_text())
    target = content["data"]["target"]
    (target["init_args"] if inner else target)["unlabelled"] = ["train"]
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(content))
    result = segzoo("fit", "--method", "minent", "--data", "old.yaml")
    assert result.status == 2 and "splits_without_masks: [train]" in result.err


def test_a_list_in_the_flag_is_answered_too(toy: Path, segzoo: Segzoo) -> None:
    for value in ("[train]", "[train, val]"):
        result = segzoo("fit", "--method", "minent", "--data", toy, "--data.target.unlabelled", value)
        assert result.status == 2 and "splits_without_masks: [train" in result.err, result.err
