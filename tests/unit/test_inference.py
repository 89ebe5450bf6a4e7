"""Labelling images from Python: what is read, what comes out, and that it is what the command writes."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

import segzoo
from segzoo.checkpoint_path import checkpoint_file
from segzoo.cli.main import main
from segzoo.errors import CheckpointError, ConfigError, DataError, NonFinitePredictionError
from segzoo.inference import Prediction, Predictor
from segzoo.inference.logits import evaluating, label_pixels, label_pixels_surely
from tests import tiny

NOISE = np.random.default_rng(0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a plain Trainer's run, with its own checkpoint callback."""
    folder = tmp_path_factory.mktemp("python")
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        max_steps=2,
        val_check_interval=2,
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(tiny.method("joint", lr=1e-2), tiny.data())
    return folder / "lightning_logs" / "version_0"


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    return segzoo.load(run, device="cpu")


def photo(size: tuple[int, int] = (50, 61)) -> np.ndarray:
    return NOISE.integers(0, 256, (*size, 3), dtype=np.uint8)


def same(one: Prediction, other: Prediction) -> bool:
    return np.array_equal(one.labels, other.labels) and np.array_equal(one.confidence, other.confidence)


def test_a_plain_trainers_folder_is_loaded(run: Path, predictor: Predictor) -> None:
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["epoch=0-step=2.ckpt"]
    assert predictor.size == tiny.SIZE and predictor.device == torch.device("cpu")
    assert not any(part.training for part in predictor.method.modules())
    assert str(predictor) == "Predictor(joint, 9 classes, input 64x32 (WxH), on cpu)"


def test_labels_are_at_the_images_own_size(predictor: Predictor) -> None:
    image = photo()
    found = predictor.predict(image)
    assert found.labels.shape == found.confidence.shape == image.shape[:2]
    assert found.labels.dtype == np.uint8 and found.confidence.dtype == np.float32
    assert found.classes[7] == "car" and np.array_equal(found.mask("car"), found.labels == 7)
    assert (found.confidence > 1 / 9).all() and (found.confidence <= 1).all()
    assert found.overlay().size == (61, 50)
    assert np.array_equal(np.asarray(found.overlay(0)), image)
    with pytest.raises(ConfigError, match="there is no class 'cat'"):
        found.mask("cat")
    assert repr(found).startswith("Prediction(61x50: ") and found._repr_png_()[1:4] == b"PNG"


def test_confidence_is_the_softmax_of_the_resized_logits(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, size = predictor.logits([photo()])[0], (50, 61)
    resized = torch.nn.functional.interpolate(logits[None], size, mode="bilinear")[0]
    expected, labels = resized.softmax(0).max(0)
    for at_once in (2**27, 1):  # at once, and one class after the other
        monkeypatch.setattr("segzoo.inference.logits.AT_ONCE", at_once)
        found, confidence = label_pixels_surely(logits, size)
        np.testing.assert_array_equal(found, labels.numpy())
        np.testing.assert_array_equal(found, label_pixels(logits, size))
        np.testing.assert_allclose(confidence, expected.numpy(), rtol=1e-5)


def test_every_kind_of_image(predictor: Predictor, tmp_path: Path) -> None:
    image = photo()
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    expected = predictor.predict(image)
    for other in (path, str(path), Image.fromarray(image), Image.open(path), image / 255.0, (image / 255).astype("f4")):
        assert same(predictor.predict(other), expected)
    several = predictor.predict([image, path])
    assert len(several) == 2 and same(several[0], expected) and [one.name for one in several] == ["", "a"]
    grey = Image.fromarray(image[..., 0])
    assert same(predictor.predict(grey), predictor.predict(np.repeat(image[..., :1], 3, axis=2)))


def test_photographs_are_turned_upright(predictor: Predictor, tmp_path: Path) -> None:
    image = photo((24, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif)
    upright = predictor.predict(np.ascontiguousarray(np.rot90(image, -1)))
    for turned in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        assert same(predictor.predict(turned), upright)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"found an array of shape \(4, 4\); expected an \(H, W, 3\) array"),
        (np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"shape \(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), r"shape \(0, 8, 3\)"),
        (np.full((8, 8, 3), 255.0), r"floats from 255 to 255"),
        (np.full((8, 8, 3), np.nan), r"floats from nan to nan"),
        (np.zeros((8, 8, 3), np.uint16), r"an array of uint16"),
        (torch.zeros(3, 8, 8), r"found a Tensor"),
        (Image.fromarray(np.zeros((8, 8), np.uint16)), r"more than 8 bits per channel \(mode I;16\)"),
        ("nowhere.png", r"nowhere.png does not exist"),
    ],
)
def test_what_is_no_image_is_refused(predictor: Predictor, image: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        predictor.predict(image)


def test_a_folder_of_images_one_after_the_other(predictor: Predictor, tmp_path: Path) -> None:
    images = {"a": photo((20, 30)), "sub/b": photo((33, 21)), "sub/c": photo((20, 30))}
    for name, image in images.items():
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / "notes.txt").write_text("no image")
    found = list(predictor.predict_folder(tmp_path, batch_size=2))
    assert [one.name for one in found] == list(images)
    for one in found:
        assert one.labels.shape == images[one.name].shape[:2]
        alone = predictor.predict(images[one.name])  # in a batch of its own, which rounds differently
        np.testing.assert_array_equal(one.labels, alone.labels)
        np.testing.assert_allclose(one.confidence, alone.confidence, atol=1e-5)
    with pytest.raises(DataError, match=r"is a folder; expected an image \(predict_folder labels all of a folder\)"):
        predictor.predict(tmp_path)


def test_the_command_writes_the_same_labels(run: Path, predictor: Predictor, tmp_path: Path) -> None:
    for i, size in enumerate([(50, 61), (64, 128), (20, 30)]):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(photo(size)).save(tmp_path / "photos" / f"{i}.png")
    argv = ["--input", tmp_path / "photos", "--out", tmp_path / "out", "--device", "cpu", "--batch_size", "3"]
    assert main(["predict", "--ckpt_path", str(checkpoint_file(run)), *map(str, argv)]) == 0
    for found in predictor.predict_folder(tmp_path / "photos", batch_size=3):
        written = Image.open(tmp_path / "out" / "labels" / f"{found.name}.png")
        np.testing.assert_array_equal(found.labels, np.asarray(written))
        saved = found.save(tmp_path / "mine" / f"{found.name}.png")
        assert np.array_equal(np.asarray(Image.open(saved)), found.labels)
        assert Image.open(saved).getpalette() == written.getpalette()
    with pytest.raises(ConfigError, match="labels are saved as PNG"):
        found.save(tmp_path / "labels.jpg")


def test_the_networks_input_can_have_another_size(run: Path) -> None:
    larger = segzoo.load(run, device="cpu", size=(64, 96))
    assert larger.size == (64, 96) and larger.predict(photo()).labels.shape == (50, 61)
    with pytest.raises(ConfigError, match=r"size \(height, width\) 0: expected 1 or more"):
        segzoo.load(run, device="cpu", size=(0, 96))
    with pytest.raises(ConfigError, match="image_bits 3: expected 8 to 16"):
        segzoo.load(run, device="cpu", image_bits=3)
    with pytest.raises(ConfigError, match="device nothing is not available"):
        segzoo.load(run, device="nothing")


def test_a_large_image_is_labelled_in_windows(run: Path, predictor: Predictor) -> None:
    """Their logits are those of the windows alone where no two overlap."""
    windows = segzoo.load(run, device="cpu", protocol={"input": "native", "window": (32, 32), "overlap": 0.0})
    assert "own size in windows of 32x32" in str(windows)
    image = photo((64, 96))
    found = windows.predict(image)
    native = segzoo.load(run, device="cpu", protocol={"input": "native"})
    for top in (0, 32):
        for left in (0, 32, 64):
            part = (slice(top, top + 32), slice(left, left + 32))
            alone = native.predict(np.ascontiguousarray(image[part]))
            assert np.array_equal(found.labels[part], alone.labels)
            np.testing.assert_allclose(found.confidence[part], alone.confidence, atol=1e-5)
    assert not same(found, predictor.predict(image))
    with pytest.raises(ConfigError, match=r"`size` has no effect where `protocol\.input` is native"):
        segzoo.load(run, device="cpu", size=(32, 32), protocol={"input": "native"})


def test_a_method_in_training_labels_and_stays_in_training() -> None:
    method = tiny.method("joint").train()
    method.segmenter.network.encoder.eval()
    before = {name: part.training for name, part in method.named_modules()}
    state = {name: value.clone() for name, value in method.state_dict().items()}
    predictor = Predictor(method, tiny.SIZE)
    assert same(predictor.predict(image := photo()), predictor.predict(image))
    assert {name: part.training for name, part in method.named_modules()} == before
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
    with pytest.raises(ZeroDivisionError), evaluating(method):
        raise ZeroDivisionError
    assert method.training


def test_predictions_that_are_not_finite_are_refused() -> None:
    method = tiny.method("joint")
    with torch.no_grad():
        for p in method.segmenter.parameters():
            p.fill_(3e38)
    with pytest.raises(NonFinitePredictionError, match="the prediction of 'the image' is not finite"):
        Predictor(method, tiny.SIZE).predict(photo())


def test_which_checkpoint_a_folder_stands_for(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a folder without checkpoints/last.ckpt"):
        segzoo.load(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    for name in ("epoch=0-step=2.ckpt", "epoch=0-step=4.ckpt"):
        (checkpoints / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"holds 2 checkpoints \(epoch=0-step=2.ckpt, .*\) and no last.ckpt"):
        segzoo.load(tmp_path)
    (checkpoints / "last.ckpt").write_bytes(b"")
    assert checkpoint_file(tmp_path) == checkpoints / "last.ckpt" == checkpoint_file(checkpoints)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        segzoo.load(tmp_path / "absent.ckpt")


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`:UserWarning")
def test_a_method_without_a_segmenter_labels_nothing(tmp_path: Path) -> None:
    trainer = tiny.trainer(1)
    trainer.fit(tiny.method("gan"), tiny.data())
    trainer.save_checkpoint(tmp_path / "gan.ckpt")
    with pytest.raises(ConfigError, match="is of the method 'gan', which labels no images"):
        segzoo.load(tmp_path / "gan.ckpt", device="cpu")


def test_no_weights_but_those_of_the_checkpoint_are_looked_for(run: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint_file(run), weights_only=True)
    content["hyper_parameters"]["network"] |= {
        "encoder_weights": "of another machine",
        "encoder_checkpoint": "/nowhere/encoder.pt",
        "initial_checkpoint": "/nowhere/last.ckpt",
    }
    torch.save(content, tmp_path / "last.ckpt")
    assert same(
        segzoo.load(tmp_path, device="cpu").predict(image := photo()), segzoo.load(run, device="cpu").predict(image)
    )
