"""Protocols through the commands: `segzoo test`, the files of `segzoo predict` and the official script of Cityscapes agree."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import docstring_parser
import numpy as np
import pytest
import yaml
from PIL import Image

from segzoo.cli.main import main
from segzoo.data import Views
from segzoo.data.label_spaces import load_label_space
from tests.cli.conftest import Segzoo

OPTIONS = {
    "default": [],
    "native": ["--protocol.input", "native"],
    "windows": ["--protocol.input", "native", "--protocol.window", "16", "20", "--protocol.overlap", "0.5"],
    "views": ["--protocol.flips", "true", "--protocol.scales", "0.75", "1.5", "--protocol.window", "24", "24"],
}


def ids(path: Path) -> Any:
    return np.array(Image.open(path))


def confusion(truths: list[Any], predictions: list[Any], classes: int) -> Any:
    """Pixel by pixel; 255 is not counted."""
    found = np.zeros((classes, classes), int)
    for truth, prediction in zip(truths, predictions, strict=True):
        for true, predicted in zip(truth.ravel(), prediction.ravel(), strict=True):
            if true != 255:
                found[true, predicted] += 1
    return found


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_scored_is_what_predict_writes(segzoo: Segzoo, toy: Path, checkpoint: Path, name: str) -> None:
    result = segzoo("test", "--ckpt_path", checkpoint, "--out", "scores", *OPTIONS[name])
    assert result.status == 0, result.err
    folder = toy.parent / "real" / "test"
    result = segzoo("predict", "--ckpt_path", checkpoint, "--input", folder / "image", "--out", "seen", *OPTIONS[name])
    assert result.status == 0, result.err
    masks = sorted((folder / "mask").iterdir())
    expected = confusion([ids(path) for path in masks], [ids(Path("seen/labels", path.name)) for path in masks], 3)
    scores = json.loads(Path("scores/scores-test.json").read_text())
    assert scores["confusion"] == expected.tolist()
    for place, path in enumerate(masks):
        shown = ids(Path(f"scores/examples/{place:05d}-prediction.png"))
        assert np.array_equal(shown, ids(Path("seen/labels", path.name)))


def test_the_protocol_is_printed_and_stored(segzoo: Segzoo, toy: Path, checkpoint: Path) -> None:
    options = ["--protocol.window", "[16, 16]", "--protocol.flips", "true"]
    result = segzoo("test", "--ckpt_path", checkpoint, "--out", "scores", *options)
    assert "input 32x32 (WxH); window 16x16 (WxH), overlap 25 %, linear blend; flips averaged" in result.out
    stored = json.loads(Path("scores/scores-test.json").read_text())["protocol"]
    assert stored["window"] == [16, 16] and stored["flips"] is True and stored["blend"] == "linear"
    result = segzoo("test", "--ckpt_path", checkpoint, "--protocol", "cityscapes-val", "--print_config")
    assert yaml.safe_load(result.out)["protocol"]["input"] == "native"


def test_confidences_and_probabilities(segzoo: Segzoo, toy: Path, checkpoint: Path) -> None:
    command = ["predict", "--ckpt_path", checkpoint, "--input", toy.parent / "real/test/image", "--out", "seen"]
    for options in ([], OPTIONS["windows"]):
        out = Path("seen", str(len(options)))
        call = [*command[:-1], out, "--confidence", "--probabilities", *options]
        assert segzoo(*call).status == 0
        for path in sorted((out / "labels").iterdir()):
            labels, sure = ids(path), ids(out / "confidences" / path.name)
            with np.load(out / "probabilities" / f"{path.stem}.npz") as content:
                shares = content["probabilities"]
            assert shares.dtype == np.float16 and shares.shape == (3, *labels.shape)
            assert np.abs(shares.astype(float).sum(0) - 1).max() < 2e-3
            own = np.take_along_axis(shares, labels[None].astype(int), 0)[0].astype(float)
            assert (own >= shares.max(0) - 1e-3).all() and np.abs(255 * own - sure).max() <= 0.7
        assert segzoo(*call).out.startswith("0 images labelled, 2 were before")


@pytest.mark.fault("more-pictures-asked-for")
def test_confidences_that_come_later_are_added(segzoo: Segzoo, toy: Path, checkpoint: Path) -> None:
    command = ["predict", "--ckpt_path", checkpoint, "--input", toy.parent / "real/test/image", "--out", "seen"]
    assert segzoo(*command).status == 0 and not Path("seen/confidences").exists()
    assert segzoo(*command, "--confidence").out.startswith(
        "2 images labelled; seen holds labels/, overlays/, confidences/ and legend.png"
    )
    assert len(list(Path("seen/confidences").iterdir())) == 2
    Path("seen/probabilities").mkdir()
    np.savez(Path("seen/probabilities/000.npz"), other=np.zeros(1))
    assert "seen/probabilities/000.npz exists and is not of this command" in segzoo(*command, "--probabilities").err


def test_the_help_says_of_every_option_what_the_section_says_of_it(segzoo: Segzoo) -> None:
    said = " ".join(segzoo("predict", "--help").out.split())
    params = docstring_parser.parse(Views.__doc__ or "").params
    assert [one.arg_name for one in params] == [field.name for field in fields(Views)]
    for one in params:
        assert f"--protocol.{one.arg_name} V [V ...] {' '.join((one.description or '').split())}" in said


@pytest.mark.fault("protocol-that-cannot-be")
@pytest.mark.fault("export-of-other-names")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--protocol", "cityscapes"], "unknown protocol 'cityscapes'; did you mean 'cityscapes-val'?"),
        (["--protocol.window", "512"], "--protocol.window [512]: expected two numbers"),
        (["--protocol.flips", "yes", "no"], "--protocol.flips takes one value, found yes no"),
        (["--protocol.input", "native", "--size", "8", "8"], "--size has no effect where --protocol.input is native"),
        (["--protocol", "cityscapes-val", "--protocol.flips", "true"], "the protocol 'cityscapes-val' has false"),
        (["--protocol.windows", "8", "8"], "unknown option '--protocol.windows'; did you mean '--protocol.window'?"),
        (
            ["--export", "cityscapes"],
            "000: the official script finds predictions by names such as frankfurt_000000_000",
        ),
    ],
)
def test_what_cannot_be_is_one_line(segzoo: Segzoo, toy: Path, checkpoint: Path, options: list[str], said: str) -> None:
    result = segzoo(
        "predict", "--ckpt_path", checkpoint, "--input", toy.parent / "real/test/image", "--out", "s", *options
    )
    assert result.status == 2 and result.err.count("\n") == 1
    assert said in result.err


def write_video(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (48, 32))  # type: ignore[attr-defined]
    for i in range(frames):
        writer.write(np.full((32, 48, 3), 20 * i, np.uint8))
    writer.release()


@pytest.mark.fault("damaged-video")
def test_frames_of_videos_are_labelled_and_a_damaged_one_is_named(segzoo: Segzoo, checkpoint: Path) -> None:
    Path("in/sub").mkdir(parents=True)
    write_video(Path("in/sub/drive.mp4"), 5)
    Path("in/broken.mp4").write_bytes(b"no video")
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save("in/broken.png")
    command = ["predict", "--ckpt_path", checkpoint, "--input", "in", "--out", "seen"]
    result = segzoo(*command)
    assert result.status == 1 and "in/broken.mp4 cannot be read as a video" in result.err
    assert "5 frames of in/sub/drive.mp4 labelled; seen holds labels/, overlays/ and legend.png" in result.out
    assert sorted(path.name for path in Path("seen/labels/sub/drive").iterdir()) == [f"{i:06}.png" for i in range(5)]
    assert ids(Path("seen/labels/sub/drive/000000.png")).shape == (32, 48)
    Path("seen/labels/sub/drive/000002.png").unlink()
    assert "1 frames of in/sub/drive.mp4 labelled" in segzoo(*command).out, "it goes on where it stopped"
    result = segzoo("predict", "--ckpt_path", checkpoint, "--input", "in/sub/drive.mp4", "--out", "one")
    assert result.status == 0 and len(list(Path("one/overlays/drive").iterdir())) == 5


# Cityscapes


@pytest.fixture(scope="module")
def cityscapes(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of the downloaded set, a network of 19 classes that was trained on it and its predictions as label ids."""
    root = tmp_path_factory.mktemp("cityscapes")
    space, rng = load_label_space("cityscapes"), np.random.default_rng(0)
    raw = space.maps["cityscapes"].lut
    for city, number in (("frankfurt", 1), ("frankfurt", 2), ("lindau", 3)):
        images, masks = root / "leftImg8bit/val" / city, root / "gtFine/val" / city
        images.mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 34, (8, 16), np.uint8)  # all official ids, those of no class, too
        mask = coarse.repeat(8, 0).repeat(8, 1)
        labels = raw[mask].astype(np.uint8)
        image = (space.colorize(labels) + rng.normal(0, 25, (64, 128, 3))).clip(0, 255).astype(np.uint8)
        name = f"{city}_000000_{number:06}"
        Image.fromarray(image).save(images / f"{name}_leftImg8bit.png")
        Image.fromarray(mask).save(masks / f"{name}_gtFine_labelIds.png")
        Image.fromarray(image).save(masks / f"{name}_gtFine_color.png")
    domain = {
        "class_path": "segzoo.data.PairedFolders",
        "init_args": {
            "images": "leftImg8bit/{split}",
            "masks": "gtFine/{split}",
            "image_suffix": "_leftImg8bit",
            "mask_suffix": "_gtFine_labelIds",
            "label_space": "cityscapes",
            "class_map": "cityscapes",
            "split_folders": {"train": "val", "test": "val"},
        },
    }
    content = yaml.safe_load(toy.read_text())
    content["data"] |= {"name": "city", "root": str(root), "source": domain, "target": domain, "target_labels": None}
    content["trainer"] |= {"max_steps": 30, "val_check_interval": 30, "limit_val_batches": 0}
    content["optimizer"] = {"lr": 0.01}
    (root / "city.yaml").write_text(yaml.safe_dump(content))
    options = ["--method", "source-only", "--data", str(root / "city.yaml"), "--runs", str(root / "runs")]
    assert main(["fit", *options, "--protocol", "cityscapes-val"]) == 0
    checkpoint = root / "runs/source-only/city/default-s0/checkpoints/last.ckpt"
    images = ["--input", str(root / "leftImg8bit/val"), "--out", str(root / "seen")]
    assert main(["predict", "--ckpt_path", str(checkpoint), *images, "--export", "cityscapes"]) == 0
    return root


def scored(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "runs/source-only/city/default-s0/scores-test.json").read_text())
    return content


def agree(found: dict[str, float | None], scores: dict[str, Any]) -> None:
    ours = {one["name"]: one["iou"] for one in scores["classes"]}
    assert len(ours) == 19 and sum(bool(value) for value in ours.values()) > 4, "scores of 0 say little"
    for name, value in ours.items():
        assert (value is None and np.isnan(found[name])) or abs(value - found[name]) < 1e-6, name  # type: ignore[operator,arg-type]


def test_the_formula_of_cityscapes_on_the_exported_files_gives_the_scores_of_the_test(cityscapes: Path) -> None:
    """IoU = TP / (TP + FP + FN) over all pixels whose true id is evaluated."""
    space = load_label_space("cityscapes")
    raw = space.maps["cityscapes"].lut
    truths, predictions = [], []
    for path in sorted(cityscapes.glob("gtFine/val/*/*_labelIds.png")):
        truths.append(ids(path))
        predictions.append(ids(cityscapes / "seen/cityscapes" / path.name.replace("_gtFine", "")))
    truth, predicted = np.stack(truths), np.stack(predictions)
    counted = raw[truth] != 255
    found: dict[str, float | None] = {}
    for number, name in enumerate(space.classes):
        (label,) = np.flatnonzero(raw == number)
        both = (counted & (truth == label) & (predicted == label)).sum()
        either = (counted & ((truth == label) | (predicted == label))).sum()
        found[name] = both / either if either else float("nan")
    scores = scored(cityscapes)
    agree(found, scores)
    assert scores["protocol"]["name"] == "cityscapes-val" and scores["protocol"]["input_size"] is None


@pytest.mark.skipif(importlib.util.find_spec("cityscapesscripts") is None, reason="needs the extra 'cityscapes'")
def test_the_official_script_gives_the_scores_of_the_test(cityscapes: Path) -> None:
    places = {"DATASET": cityscapes, "RESULTS": cityscapes / "seen/cityscapes", "EXPORT_DIR": cityscapes}
    environment = os.environ | {f"CITYSCAPES_{name}": str(place) for name, place in places.items()}
    # Without scores per instance, for which the script calls a function that numpy 2.4 has no more.
    program = (
        "import cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling as script\n"
        "script.args.evalInstLevelScore = False\n"
        "script.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content = json.loads((cityscapes / "resultPixelLevelSemanticLabeling.json").read_text())
    agree(content["classScores"], scored(cityscapes))
