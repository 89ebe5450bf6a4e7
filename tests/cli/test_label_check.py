"""What the command says about images and masks that cannot be right: one line, before anything is trained."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segzoo.data import PairedFolders, load_label_space
from segzoo.errors import DataError
from tests.cli.conftest import SPACE, Segzoo, write_pairs

Change = Callable[[Path], None]


def change_masks(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in sorted(folder.rglob("mask/*.png")):
        Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


def own(toy: Path, tmp_path: Path, **target: Any) -> Path:
    """A copy of the toy data set that may be spoilt."""
    root = tmp_path / "data"
    write_pairs(root / "syn", 4)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        write_pairs(root / "real" / split, count)
    (root / "space.yaml").write_text(yaml.safe_dump(SPACE, sort_keys=False))
    content = yaml.safe_load(toy.read_text())
    content["data"]["root"] = str(root)
    for domain in ("source", "target"):
        content["data"][domain]["init_args"]["label_space"] = str(root / "space.yaml")
    content["data"]["target"]["init_args"] |= target
    path = root / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def fit(segzoo: Segzoo, data: Path, *flags: str) -> str:
    """The one line of a training that is refused."""
    result = segzoo("fit", "--method", "joint", "--data", data, *flags)
    assert result.status == 2 and result.err.startswith("error: ") and result.err.count("\n") == 1, result.err
    assert not Path("runs").exists(), "said before there is a run"
    return result.err


@pytest.mark.fault("foreground-of-255")
def test_a_foreground_of_255_ends_the_command(segzoo: Segzoo, toy: Path, tmp_path: Path) -> None:
    data = own(toy, tmp_path)
    change_masks(data.parent / "syn", lambda ids: np.where(ids == 2, 255, 0).astype(np.uint8))
    assert "maps: {binary: {0: sky, 255: road}}" in fit(segzoo, data)
    # What the line says to do is possible.
    space = SPACE | {"maps": {"binary": {0: "sky", 255: "road"}}}
    (data.parent / "space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    result = segzoo("fit", "--method", "source-only", "--data", data, "--data.source.class_map", "binary")
    assert result.status == 0
    assert "warning: all of source/train: no pixel is 'car'\n" in result.err
    head, *_, car, ignored = (line.split() for line in result.out.splitlines()[:5])
    assert head == ["class", "source", "target"] and car[1] == "-" and ignored[:2] == ["(ignored)", "0.0"]


@pytest.mark.fault("labels-all-ignored")
@pytest.mark.parametrize("processes", ["1", "2"])
def test_labels_that_are_all_ignored_end_the_command(
    processes: str, segzoo: Segzoo, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it starts further processes."""
    data = own(toy, tmp_path)
    change_masks(data.parent / "real" / "test", lambda ids: np.full_like(ids, 255))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert "all of target/test: every pixel is ignored" in fit(segzoo, data, "--trainer.devices", processes)


@pytest.mark.fault("labels-looked-at-late")
def test_labels_are_looked_at_before_the_network_is_built(
    segzoo: Segzoo, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights may take minutes to download."""

    def built(*_: object, **__: object) -> None:
        raise AssertionError("the network was built first")

    data = own(toy, tmp_path)
    change_masks(data.parent / "syn", lambda ids: np.where(ids == 2, 255, 0).astype(np.uint8))
    monkeypatch.setattr("segzoo.methods.base.Method.__init__", built)
    for method in ("joint", "metapix", "ssda", "self-training"):
        result = segzoo("fit", "--method", method, "--data", data)
        assert result.status == 2 and "the masks hold 0 and 255" in result.err, result.err


@pytest.mark.fault("labels-all-ignored")
def test_a_test_looks_too(segzoo: Segzoo, checkpoint: Path, toy: Path, tmp_path: Path) -> None:
    data = own(toy, tmp_path)
    change_masks(data.parent / "real" / "test", lambda ids: np.full_like(ids, 255))
    result = segzoo("test", "--ckpt_path", checkpoint, "--data", data, "--out", "scores")
    assert result.status == 2 and result.err.startswith("error: all of target/test: every pixel is ignored")
    assert result.err.count("\n") == 1 and not Path("scores").exists()


@pytest.mark.fault("images-of-12-bits")
def test_images_of_12_bits_end_the_command(segzoo: Segzoo, toy: Path, tmp_path: Path) -> None:
    data = own(toy, tmp_path)
    for path in sorted((data.parent / "syn/image").iterdir()):
        Image.fromarray(np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16).save(path)
    assert "set image_bits (--data.DOMAIN.image_bits) to 12" in fit(segzoo, data)


@pytest.mark.fault("no-split-to-score")
@pytest.mark.parametrize("masks", [None, "real/train/mask"])
def test_a_target_of_one_folder_trains_and_is_not_scored(
    masks: str | None, segzoo: Segzoo, toy: Path, tmp_path: Path
) -> None:
    data = own(toy, tmp_path, images="real/train/image", masks=masks)
    result = segzoo("fit", "--method", "source-only", "--data", data)
    assert result.status == 0, result.err
    line = "the target has no test split (blocks, or {split} in its folders, make one)"
    assert f"warning: {line}: nothing will be scored\n" == result.err
    assert f"{line}: nothing to score\n" in result.out
    run = Path("runs/source-only/toy/default-s0")
    assert list((run / "figures").glob("panel-target-*.png")) and not (run / "scores-test.json").exists()
    for command in ("test", "validate"):
        result = segzoo(command, "--ckpt_path", run / "checkpoints/last.ckpt")
        assert result.status == 2 and result.err.count("\n") == 1
        assert "make one) to score against; use `segzoo predict` for images alone" in result.err


@pytest.mark.fault("no-split-to-score")
def test_photographs_with_a_train_folder_alone_are_enough(segzoo: Segzoo, toy: Path, tmp_path: Path) -> None:
    data = own(toy, tmp_path, masks=None)
    for split in ("val", "test"):
        (data.parent / "real" / split).rename(data.parent / split)
    result = segzoo("fit", "--method", "source-only", "--data", data)
    assert result.status == 0 and "nothing to score" in result.out
    # With masks a folder that is missing is an error, as ever.
    data = own(toy, tmp_path / "labelled")
    (data.parent / "real/test").rename(data.parent / "test")
    assert "real/test/image does not exist" in segzoo("fit", "--method", "joint", "--data", data).err


@pytest.mark.fault("label-space-of-one-class")
def test_a_space_of_one_class_ends_the_command(segzoo: Segzoo, toy: Path, tmp_path: Path) -> None:
    data = own(toy, tmp_path)
    (data.parent / "space.yaml").write_text("name: toy\nclasses: {crack: [255, 0, 0]}\n")
    assert "label space 'toy' has the one class 'crack'" in fit(segzoo, data)


@pytest.mark.fault("two-classes-of-one-colour")
def test_two_classes_of_one_colour_end_the_command(segzoo: Segzoo, toy: Path, tmp_path: Path) -> None:
    data = own(toy, tmp_path)
    (data.parent / "space.yaml").write_text("name: toy\nclasses: {sky: [1, 2, 3], sea: [1, 2, 3], car: [9, 9, 9]}\n")
    assert "'sky' and 'sea' have one colour, [1, 2, 3]" in fit(segzoo, data)


@pytest.mark.fault("brackets-in-the-root")
def test_brackets_in_the_root_mean_themselves(tmp_path: Path) -> None:
    root = tmp_path / "runs [old] *"
    for name in ("night", "day"):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (3, 2), (9, 9, 9)).save(root / name / f"{name}.png")
    (root / "pairs").mkdir()
    (root / "pairs/a.csv").write_text("night.png,day.png\n")
    options: dict[str, Any] = {"references": "day", "reference_pairs": "pairs/*.csv"}
    images = PairedFolders("night", None, "camvid11", **options).images("train", root)
    assert images.has_references and images.reference(0).shape == (2, 3, 3)
    options["reference_pairs"] = str(root).replace("[", "[[]").replace("*", "[*]") + "/pairs/*.csv"
    assert PairedFolders("night", None, "camvid11", **options).images("train", root).has_references
    with pytest.raises(DataError, match="there is no file"):
        PairedFolders("night", None, "camvid11", references="day", reference_pairs="none/*.csv").images("train", root)


@pytest.mark.fault("map-without-255")
def test_255_is_ignored_in_a_map_that_does_not_list_it(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    maps = {"short": {7: "sky", 8: "road"}, "own": {7: "sky", 255: "road"}, "rest": {7: "sky", "others": "road"}}
    path.write_text(yaml.safe_dump(SPACE | {"maps": maps}, sort_keys=False))
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (2, 1), (9, 9, 9)).save(tmp_path / "images/0.png")
    Image.fromarray(np.array([[7, 255]], np.uint8)).save(tmp_path / "masks/0.png")
    for name, expected in (("short", 255), ("own", 1), ("rest", 1)):
        images = PairedFolders("images", "masks", str(path), name).images("train", tmp_path)
        assert images.label(0).tolist() == [[0, expected]], name
    assert load_label_space(path).maps["short"].void_listed is False


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_that_lead_back_repeat_no_image(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name / "deep").mkdir(parents=True)
        Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / name / "deep/0.png")
        (tmp_path / name / "deep/self").symlink_to(tmp_path / name / "deep", target_is_directory=True)
        (tmp_path / name / "up").symlink_to(tmp_path, target_is_directory=True)
    images = PairedFolders("images", "masks", "camvid11").images("train", tmp_path)
    assert list(images.names) == ["deep/0"]
