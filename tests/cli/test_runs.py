"""Whole commands on the toy data."""

import csv
import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segzoo.cli.checkpoint import read_checkpoint
from segzoo.data.mask_files import read_ids
from segzoo.evaluation import Scores
from segzoo.methods import registry
from segzoo.methods.single_domain import SourceOnly
from segzoo.models.segmenter import create_segmenter
from tests.cli.conftest import SPACE, Segzoo


class Plugin(SourceOnly):
    """A third party's method."""

    slug = "my-method"


def test_fit_writes_the_run_folder(trained: Path) -> None:
    names = {path.relative_to(trained).as_posix() for path in trained.rglob("*")}
    expected = {"config.yaml", "manifest.json", "metrics.csv", "confusion.npz", "scores-test.json"}
    assert expected | {"figures", "checkpoints/last.ckpt"} <= names
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["method"]["name"] == "source-only"
    with (trained / "metrics.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    assert row["test/miou"]
    assert "lightning_logs" not in names


def test_a_test_keeps_the_pixels_of_every_image_and_shows_some(trained: Path) -> None:
    scores = Scores.load(trained / "scores-test.json")
    with np.load(trained / "images-test.npz") as file:
        right, true, called = file["counts"].sum(0)
        images = len(file["counts"])
    assert np.array_equal(right, scores.confusion.diagonal())
    assert np.array_equal(true, scores.confusion.sum(1)) and np.array_equal(called, scores.confusion.sum(0))
    shown = sorted((trained / "examples").glob("*-image.jpg"))
    assert len(shown) == min(8, images)
    for path in shown:
        place = int(path.name.split("-")[0])
        label, said = (np.array(Image.open(path.with_name(f"{place:05d}-{k}.png"))) for k in ("label", "prediction"))
        with np.load(trained / "images-test.npz") as file:
            assert np.array_equal(
                file["counts"][place][0], [np.sum((label == c) & (said == c)) for c in range(len(scores.classes))]
            )
            assert np.array_equal(
                file["counts"][place][2], [np.sum((label != 255) & (said == c)) for c in range(len(scores.classes))]
            )


def test_the_checkpoint_carries_the_configuration(trained: Path, checkpoint: Path) -> None:
    saved = read_checkpoint(checkpoint)
    assert saved["method"] == "source-only"
    assert saved["config"] == yaml.safe_load((trained / "config.yaml").read_text())


def test_fit_prints_table_and_folder_and_does_not_chat(segzoo: Segzoo, toy: Path) -> None:
    result = segzoo("fit", "--method", "source-only", "--data", toy, "--name", "quiet")
    assert result.status == 0
    assert "mIoU" in result.out
    assert result.out.endswith("run folder: runs/source-only/toy/quiet-s0\n")
    assert not any(word in result.out + result.err for word in ("GPU", "TPU", "Tip", "Seed set", "litlogger"))


def test_a_second_run_gets_its_own_folder(segzoo: Segzoo, toy: Path) -> None:
    argv = [
        "fit",
        "--method",
        "source-only",
        "--data",
        toy,
        "--trainer.max_steps",
        "1",
        "--seed_everything",
        "5",
    ]
    assert segzoo(*argv).out.endswith("/default-s5\n")
    assert segzoo(*argv).out.endswith("/default-s5-2\n")


def test_a_run_shorter_than_the_logging_interval_logs_its_last_step(segzoo: Segzoo, toy: Path) -> None:
    argv = ["--data", toy, "--name", "short", "--trainer.log_every_n_steps", "10", "--trainer.max_steps", "3"]
    assert segzoo("fit", "--method", "source-only", *argv).status == 0
    with Path("runs/source-only/toy/short-s0/metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file) if row["train/loss"]] == ["2"]


def test_resume_continues_in_the_same_folder(segzoo: Segzoo, toy: Path) -> None:
    argv = ["fit", "--method", "source-only", "--data", toy, "--name", "long"]
    segzoo(*argv)
    last = ["--ckpt_path", "last", "--trainer.max_steps", "4"]
    assert segzoo(*argv, *last).out.endswith("run folder: runs/source-only/toy/long-s0\n")
    folder = Path("runs/source-only/toy/long-s0")
    with (folder / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert steps == [0, 1, 2, 3]
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 4
    assert content["segzoo"]["config"]["trainer"]["max_steps"] == 4
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["max_steps"] == 4


def test_nothing_to_train_says_so_and_keeps_the_record(segzoo: Segzoo, toy: Path) -> None:
    segzoo("fit", "--method", "source-only", "--data", toy, "--name", "done")
    manifest = Path("runs/source-only/toy/done-s0/manifest.json")
    before = json.loads(manifest.read_text()) | {"ended": "2026-01-01T00:00:00+00:00"}
    manifest.write_text(json.dumps(before))
    result = segzoo("fit", "--ckpt_path", manifest.parent / "checkpoints/last.ckpt")
    assert result.status == 0 and "nothing to train: the checkpoint is of step 2 of 2" in result.out
    assert json.loads(manifest.read_text()) == before and before["training"]["steps"] == 2


def test_what_is_not_the_last_checkpoint_is_named(segzoo: Segzoo, toy: Path) -> None:
    segzoo("fit", "--method", "source-only", "--data", toy, "--name", "kept", "--keep_steps", "1")
    folder = Path("runs/source-only/toy/kept-s0/checkpoints")
    assert "; last checkpoint" in segzoo("test", "--ckpt_path", folder / "last.ckpt").out
    assert "; checkpoint step00000001.ckpt" in segzoo("test", "--ckpt_path", folder / "step00000001.ckpt").out
    more = ["--trainer.max_steps", "3"]
    assert "; last checkpoint" in segzoo("fit", "--ckpt_path", folder / "step00000001.ckpt", *more).out


def test_test_needs_the_checkpoint_alone_and_keeps_the_scores_of_the_fit(
    segzoo: Segzoo, trained: Path, checkpoint: Path
) -> None:
    before = (trained / "scores-test.json").read_bytes()
    result = segzoo("test", "--ckpt_path", checkpoint)
    assert result.status == 0
    assert result.out.endswith("/test-toy\n")
    assert json.loads((trained / "test-toy" / "scores-test.json").read_text()) == json.loads(before)
    assert (trained / "scores-test.json").read_bytes() == before


def test_flags_beat_the_checkpoint(segzoo: Segzoo, checkpoint: Path, tmp_path: Path) -> None:
    flags = ["--data.eval_batch_size", "1", "--out", "scores"]
    assert segzoo("validate", "--ckpt_path", checkpoint, *flags).out.endswith("scores: scores\n")
    assert (tmp_path / "scores" / "scores-val.json").is_file()
    assert yaml.safe_load((tmp_path / "scores" / "config.yaml").read_text())["data"]["eval_batch_size"] == 1


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--network.architecture", "fpn", "--network.options", "null"],
            "--network.architecture fpn: the run of ",
        ),
        (["--optimizer.name", "sgd"], "--optimizer.name sgd: the run of "),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_line_and_changes_nothing(
    segzoo: Segzoo, trained: Path, checkpoint: Path, flags: list[str], message: str
) -> None:
    before = contents(trained)
    result = segzoo("fit", "--ckpt_path", checkpoint, "--trainer.max_steps", "4", *flags)
    assert result.status == 2
    assert result.err.startswith(f"error: {message}")
    assert result.err.count("\n") == 1
    assert contents(trained) == before


def test_a_resume_that_stops_at_once_changes_nothing(
    segzoo: Segzoo, trained: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = contents(trained)
    monkeypatch.setattr(SourceOnly, "training_step", stop)
    result = segzoo("fit", "--ckpt_path", checkpoint, "--trainer.max_steps", "4")
    assert result.status == 130
    assert contents(trained) == before


def test_any_error_before_the_first_step_leaves_no_folder(
    segzoo: Segzoo, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(SourceOnly, "training_step", fail)
    with pytest.raises(ZeroDivisionError):
        segzoo("fit", "--method", "source-only", "--data", toy)
    assert not list(tmp_path.rglob("default-s0*"))


def test_a_partial_test_says_so(segzoo: Segzoo, checkpoint: Path) -> None:
    limits = ["--data.eval_batch_size", "1", "--trainer.limit_test_batches", "1"]
    result = segzoo("test", "--ckpt_path", checkpoint, *limits, "--out", "scores")
    assert "test, only 1 of 2 images" in result.out
    for name, part in (("scores-test", ()), ("manifest", ("scores", "test"))):
        content = json.loads(Path(f"scores/{name}.json").read_text())
        for key in part:
            content = content[key]
        assert (content["protocol"]["images"], content["protocol"]["split_images"]) == (1, 2)


def test_a_failed_test_leaves_nothing(segzoo: Segzoo, trained: Path, checkpoint: Path) -> None:
    before = sorted(trained.iterdir())
    result = segzoo("test", "--ckpt_path", checkpoint, "--data.root", "/nowhere")
    assert result.status == 2
    assert sorted(trained.iterdir()) == before


@pytest.mark.parametrize("command", ["test", "predict"])
def test_what_is_no_checkpoint_is_named(segzoo: Segzoo, tmp_path: Path, checkpoint: Path, command: str) -> None:
    (tmp_path / "in").mkdir()
    more = ["--input", "in", "--out", "out"] if command == "predict" else []
    (tmp_path / "text.ckpt").write_text("hello")
    (tmp_path / "cut.ckpt").write_bytes(checkpoint.read_bytes()[:5000])
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    torch.save({"segzoo": Path()}, tmp_path / "pickled.ckpt")
    for name, reason in (
        ("text", "not a checkpoint"),
        ("cut", "cut off"),
        ("foreign", "not a checkpoint of segzoo"),
        ("pickled", "more than tensors and plain types"),
    ):
        result = segzoo(command, "--ckpt_path", f"{name}.ckpt", *more)
        assert result.status == 2
        assert result.err.startswith(f"error: {name}.ckpt is not a ")
        assert reason in result.err and "weights_only" not in result.err


def test_an_unreadable_image_in_a_loader_process_is_one_line(segzoo: Segzoo, toy: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / "real" / split).mkdir(parents=True)
        for kind in ("image", "mask"):
            (tmp_path / "real" / split / kind).symlink_to(toy.parent / "real" / split / kind)
    for kind in ("image", "mask"):
        (tmp_path / "syn" / kind).mkdir(parents=True)
        for path in (toy.parent / "syn" / kind).iterdir():
            (tmp_path / "syn" / kind / path.name).write_bytes(path.read_bytes())
    for path in (tmp_path / "syn" / "image").iterdir():
        path.write_bytes(b"not an image")
    argv = ["fit", "--method", "source-only", "--data", toy, "--data.root", tmp_path, "--panel_steps", "null"]
    result = segzoo(*argv, "--data.num_workers", "1")
    assert result.status == 2
    assert result.err.splitlines()[-1].startswith("error: cannot read the image")
    assert "Traceback" not in result.err
    assert not list((tmp_path / "runs").rglob("default-s0"))


def test_a_checkpoint_with_a_label_space_of_its_own_can_be_scored_elsewhere(
    segzoo: Segzoo, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text((toy.parent / "space.yaml").read_text())
    (tmp_path / "toy.yaml").write_text(toy.read_text().replace(str(toy.parent / "space.yaml"), "mine.yaml"))
    argv = ["--data", "toy.yaml", "--trainer.max_steps", "1", "--panel_steps", "9"]
    assert segzoo("fit", "--method", "source-only", *argv).status == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    last = tmp_path / "runs/source-only/toy/default-s0/checkpoints/last.ckpt"
    assert segzoo("test", "--ckpt_path", last, "--out", "scores").status == 0


def test_predict_writes_labels_overlays_and_a_legend(segzoo: Segzoo, checkpoint: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = {"a.png": (20, 30), "sub/b.jpg": (41, 17)}
    for name, (height, width) in shapes.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    result = segzoo("predict", "--ckpt_path", checkpoint, "--input", "photos", "--out", "out", "--device", "cpu")
    assert (result.status, result.out) == (0, "2 images labelled; out holds labels/, overlays/ and legend.png\n")
    for name, shape in shapes.items():
        stem = name.partition(".")[0]
        labels = np.asarray(Image.open(tmp_path / "out" / "labels" / f"{stem}.png"))
        assert labels.shape == shape
        assert labels.dtype == np.uint8
        assert labels.max() < 3
        overlay = np.asarray(Image.open(tmp_path / "out" / "overlays" / f"{stem}.jpg"))
        assert overlay.shape == (*shape, 3)
    assert (tmp_path / "out" / "legend.png").is_file()


def test_predict_turns_photographs_upright(segzoo: Segzoo, checkpoint: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for folder in ("turned", "upright"):
        (tmp_path / folder).mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways: turn by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "turned" / "a.png", exif=exif)
    Image.fromarray(np.rot90(pixels, -1)).save(tmp_path / "upright" / "a.png")
    for folder in ("turned", "upright"):
        argv = ["--input", folder, "--out", f"out-{folder}", "--device", "cpu"]
        assert segzoo("predict", "--ckpt_path", checkpoint, *argv).status == 0
    turned, upright = (np.asarray(Image.open(f"out-{name}/labels/a.png")) for name in ("turned", "upright"))
    assert turned.shape == (30, 20)
    assert np.array_equal(turned, upright)


def test_predicted_labels_are_ids_that_show_in_colours(segzoo: Segzoo, checkpoint: Path, toy: Path) -> None:
    images = toy.parent / "real" / "test" / "image"
    segzoo("predict", "--ckpt_path", checkpoint, "--input", images, "--out", "out", "--device", "cpu")
    path = Path("out/labels/000.png")
    ids, colours = read_ids(path), np.asarray(Image.open(path).convert("RGB"))
    assert np.array_equal(colours, np.array(list(SPACE["classes"].values()))[ids])  # type: ignore[attr-defined]


def test_predict_agrees_with_the_test(segzoo: Segzoo, checkpoint: Path, toy: Path, trained: Path) -> None:
    images = toy.parent / "real" / "test"
    segzoo("predict", "--ckpt_path", checkpoint, "--input", images / "image", "--out", "out", "--device", "cpu")
    confusion = np.zeros((3, 3), int)
    for path in sorted((images / "mask").iterdir()):
        truth, found = (np.asarray(Image.open(one)) for one in (path, Path("out/labels") / path.name))
        np.add.at(confusion, (truth, found), 1)
    assert np.array_equal(confusion, np.load(trained / "confusion.npz")["confusion"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--input", "nowhere", "--out", "out"], "--input nowhere is not a folder"),
        (["--input", "empty", "--out", "out"], "no images in empty"),
        (["--input", "broken", "--out", "out"], "cannot read the image broken/a.png"),
        (["--input", "empty", "--out", "empty/out"], "--out empty/out lies in --input empty"),
        (["--ckpt_path", "last", "--input", "empty", "--out", "out"], "--ckpt_path last: expected a path"),
        (["--inptu", "empty", "--out", "out"], "unknown option '--inptu'; did you mean '--input'?"),
        (
            ["--input", "empty", "--out", "out", "--batch_size", "0"],
            "--overlay_alpha must be in [0, 1], --batch",
        ),
        (["--input", "empty", "--out", "out", "--device", "gpu"], "device gpu is not available"),
    ],
)
def test_predict_says_what_is_wrong(
    segzoo: Segzoo, checkpoint: Path, tmp_path: Path, argv: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_text("not an image")
    result = segzoo("predict", "--ckpt_path", checkpoint, *argv)
    assert result.status == 2
    assert result.err.startswith(f"error: {message}")
    assert result.err.count("\n") == 1


def test_a_plugin_is_a_method_like_any_other(segzoo: Segzoo, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("my-method", f"{__name__}:Plugin", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    (line,) = [line for line in segzoo("methods").out.splitlines() if line.startswith("my-method")]
    assert "?" not in line and line.count(" x ") == len(Plugin.resources) and "plugin of " in line
    result = segzoo("fit", "--method", "my-method", "--data", toy, "--trainer.max_steps", "1")
    assert result.out.endswith("run folder: runs/my-method/toy/default-s0\n")
    last = "runs/my-method/toy/default-s0/checkpoints/last.ckpt"
    assert segzoo("validate", "--ckpt_path", last).status == 0


class Interrupted(SourceOnly):
    """A method that is stopped by the user in its third step."""

    slug = "interrupted"

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_step == 2:
            raise KeyboardInterrupt
        return super().training_step(batch, batch_idx)


def test_an_interrupt_says_how_to_continue(segzoo: Segzoo, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("interrupted", f"{__name__}:Interrupted", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    argv = ["fit", "--method", "interrupted", "--data", toy, "--trainer.max_steps", "4"]
    result = segzoo(*argv, "--checkpoint_steps", "1")
    last = "runs/interrupted/toy/default-s0/checkpoints/last.ckpt"
    assert (result.status, result.err) == (
        130,
        f"interrupted; continue with: segzoo fit --ckpt_path {last}\n",
    )
    assert Path(last).is_file()
    result = segzoo(*argv)
    assert (result.status, result.err) == (
        130,
        "interrupted before the first checkpoint; nothing to continue from\n",
    )


def test_two_processes_share_one_run_folder(toy: Path, tmp_path: Path) -> None:
    flags = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_steps=1", f"--runs={tmp_path}"]
    command = [sys.executable, "-m", "segzoo", "fit", "--method", "source-only", "--data", str(toy), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "source-only" / "toy" / "default-s0"
    assert [path.name for path in folder.parent.iterdir()] == ["default-s0"]
    assert done.stdout.count("run folder:") == done.stdout.count("device: cpu, 2 processes") == 1
    assert "batch: 2 images per domain x 2 processes, 32x32" in done.stdout
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["world_size"] == 2
    scores = json.loads((folder / "scores-test.json").read_text())
    assert sum(map(sum, scores["confusion"])) == 2 * 24 * 32  # every test pixel once
    assert scores["protocol"]["images"] == scores["protocol"]["split_images"] == 2


def test_a_target_without_masks_is_enough_for_a_method_without_target_labels(segzoo: Segzoo, toy: Path) -> None:
    argv = ["--data", toy, "--data.target.masks", "null", "--trainer.max_steps", "1"]
    result = segzoo("fit", "--method", "source-only", *argv)
    assert result.status == 0
    assert "no masks: nothing to score" in result.out
    result = segzoo("fit", "--method", "joint", *argv)
    assert result.status == 2
    assert result.err.startswith("error: this method learns from target labels but the target domain has no masks")
    assert result.err.count("\n") == 1
    last = "runs/source-only/toy/default-s0/checkpoints/last.ckpt"
    result = segzoo("test", "--ckpt_path", last)
    assert result.status == 2
    assert result.err.startswith("error: the target's test split has no masks to score against")


def test_the_encoders_own_checkpoint_is_needed_once(segzoo: Segzoo, toy: Path, tmp_path: Path) -> None:
    encoder = create_segmenter("unet", "tu-test_resnet", 3).network.encoder
    weights = tmp_path / "encoder.pt"
    torch.save(encoder.state_dict(), weights)  # type: ignore[union-attr]
    argv = ["--data", toy, "--trainer.max_steps", "1", "--network.encoder_checkpoint", weights]
    assert segzoo("fit", "--method", "source-only", *argv).status == 0
    weights.unlink()
    last = "runs/source-only/toy/default-s0/checkpoints/last.ckpt"
    assert segzoo("test", "--ckpt_path", last).status == 0
    images = toy.parent / "real" / "test" / "image"
    assert segzoo("predict", "--ckpt_path", last, "--input", images, "--out", "out").status == 0
