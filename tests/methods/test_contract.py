"""What every method of the registry must do; a new one is tested here without a line of its own."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segzoo import floats
from segzoo.cli.main import main
from segzoo.data import MiniCity
from segzoo.data.domains import ImageSet, Pixels
from segzoo.errors import ConfigError
from segzoo.methods.registry import load_method, methods
from segzoo.methods.segmentation import SegmentationMethod
from tests import tiny
from tests.narrow import WithoutFloat64

pytestmark = pytest.mark.filterwarnings("ignore")
every_method = pytest.mark.parametrize("slug", tiny.METHODS)


class Recorder(L.Callback):
    """Losses, and which parameters got a gradient."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.gradients: dict[str, torch.Tensor | None] = {}

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        self.gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.requires_grad}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))


def state(trained: SegmentationMethod) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trained.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, f"not bit for bit: {different[:5]}"


@every_method
def test_the_registry_tells_the_truth(slug: str) -> None:
    cls, info = load_method(slug), methods()[slug]
    assert cls.slug == slug and cls.resources == info.resources
    assert info.summary and cls.__doc__


@every_method
def test_two_steps_train_every_parameter(slug: str) -> None:
    recorder = Recorder()
    before = state(tiny.method(slug))
    trained = tiny.fit(slug, trainer_options={"callbacks": [recorder]})
    assert len(recorder.losses) == 2 and all(map(math.isfinite, recorder.losses))
    without = [name for name, grad in recorder.gradients.items() if grad is None or not bool(grad.abs().sum() > 0)]
    assert not without, f"no gradient for {without}"
    still = [n for n, p in trained.named_parameters() if p.requires_grad and torch.equal(p, before[n])]
    assert not still, f"not moved: {still}"


class Poisoned(MiniCity):
    """Target masks that are noise in the training split."""

    def images(self, split: Any, root: Path) -> ImageSet:
        clean = super().images(split, root)
        if split != "train":
            return clean

        class Noise(ImageSet):
            names = clean.names

            def image(self, index: int) -> Pixels:
                return clean.image(index)

            def label(self, index: int) -> Pixels:
                return np.random.default_rng(index).integers(0, 9, clean.label(index).shape).astype(np.uint8)

        return Noise()


@every_method
def test_target_masks_reach_only_methods_that_declare_them(slug: str) -> None:
    target = Poisoned("target", train=8, val=2, test=3, size=tiny.SIZE)
    clean, poisoned = state(tiny.fit(slug)), state(tiny.fit(slug, data_options={"target": target}))
    if "labels" not in load_method(slug).resources:
        assert_same(clean, poisoned)
    else:
        assert any(not torch.equal(clean[name], poisoned[name]) for name in clean)


@every_method
def test_workers_do_not_change_a_run(slug: str) -> None:
    assert_same(state(tiny.fit(slug)), state(tiny.fit(slug, data_options={"num_workers": 2})))


@every_method
def test_another_seed_is_another_run(slug: str) -> None:
    one, two = state(tiny.fit(slug)), state(tiny.fit(slug, data_options={"seed": 1}))
    assert any(not torch.equal(one[name], two[name]) for name in one)


@every_method
def test_resumed_equals_uninterrupted(slug: str, tmp_path: Path) -> None:
    options = {"network": {"options": {"decoder_channels": [16, 16, 8, 8, 8], "decoder_use_norm": "batchnorm"}}}
    L.seed_everything(0, verbose=False)
    whole = tiny.method(slug, **options)
    straight = tiny.trainer(5)
    straight.fit(whole, datamodule=tiny.data())

    L.seed_everything(0, verbose=False)
    half = tiny.method(slug, **options)
    # The schedule must know the whole length: stop early instead of asking for fewer steps.
    stop = tiny.trainer(5, callbacks=[StopAt(2)])
    stop.fit(half, datamodule=tiny.data())
    stop.save_checkpoint(tmp_path / "half.ckpt")
    assert stop.global_step == 2

    L.seed_everything(0, verbose=False)
    torch.rand(17)  # a new process will not be at the same place of the generator
    resumed = tiny.method(slug, **options)
    rest = tiny.trainer(5)
    rest.fit(resumed, datamodule=tiny.data(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert rest.global_step == 5
    assert_same(state(whole), state(resumed))
    for a, b in zip(straight.optimizers[0].state.values(), rest.optimizers[0].state.values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a if torch.is_tensor(a[key]))


class StopAt(L.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.step


@every_method
def test_a_checkpoint_loads_with_plain_types_alone(slug: str, tmp_path: Path) -> None:
    trained = tiny.method(slug)
    trainer = tiny.trainer(1)
    trainer.fit(trained, datamodule=tiny.data())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    content = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert content["segzoo"]["method"] == slug and content["segzoo"]["size"] == list(tiny.SIZE)
    json.dumps({key: content["segzoo"][key] for key in ("label_space", "version", "config")})
    again = load_method(slug).load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert_same(state(trained), state(again))


@every_method
def test_bfloat16_trains(slug: str) -> None:
    recorder = Recorder()
    tiny.fit(slug, trainer_options={"callbacks": [recorder], "precision": "bf16-mixed"})
    assert all(map(math.isfinite, recorder.losses))


@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_parameters_in_half_precision_are_refused(precision: str) -> None:
    with pytest.raises(ConfigError, match=f"{precision}-true .* use {precision}-mixed"):
        tiny.fit("self-training", trainer_options={"precision": f"{precision}-true"})


@every_method
def test_no_step_needs_float64(slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple GPUs have none."""
    monkeypatch.setattr(floats, "wide_dtype", lambda device: torch.float32)
    with WithoutFloat64():
        tiny.fit(slug, 2)


@every_method
def test_clipping_and_accumulation(slug: str) -> None:
    recorder = Recorder()
    options = {"callbacks": [recorder], "gradient_clip_val": 1e-3, "accumulate_grad_batches": 2}
    trained = tiny.fit(slug, 3, trainer_options=options)
    assert trained.trainer.global_step == 3 and len(recorder.losses) == 6
    norm = torch.stack([g.norm() for g in recorder.gradients.values() if g is not None]).norm()
    assert float(norm) <= 1.001e-3


@every_method
def test_a_non_finite_loss_stops_the_run_and_keeps_the_parameters(slug: str, tmp_path: Path) -> None:
    from segzoo.errors import NonFiniteLossError

    L.seed_everything(0, verbose=False)
    broken = tiny.method(slug)
    before = state(broken)
    network, head = (
        (broken.segmenter, "head.0.bias")
        if isinstance(broken, SegmentationMethod)
        else (broken.get_submodule("critic"), "head.bias")
    )
    with torch.no_grad():  # finite parameters whose loss is not
        bias = next(p for n, p in network.named_parameters() if n.endswith(head))
        bias.fill_(3e38)
        if isinstance(broken, SegmentationMethod):
            bias[::2] = -3e38
    with pytest.raises(NonFiniteLossError, match=r"step 0.*last-good.ckpt"):
        tiny.trainer(2, default_root_dir=tmp_path).fit(broken, datamodule=tiny.data())
    saved = torch.load(tmp_path / "last-good.ckpt", weights_only=True)["state_dict"]
    assert saved.keys() == before.keys()


# Through the command


def write_config(folder: Path, slug: str, **trainer: Any) -> Path:
    """A configuration of a tiny run that the command understands."""
    domain = {"train": 8, "val": 2, "test": 3, "size": list(tiny.SIZE)}
    config = {
        "trainer": {"max_steps": 2, "val_check_interval": 2, "accelerator": "cpu"} | trainer,
        "method": {"name": slug} | tiny.OPTIONS.get(slug, {}),
        "data": {
            "name": "tiny",
            "size": list(tiny.SIZE),
            "batch_size": 2,
            "target_labels": 4,
            "num_workers": 0,
            "source": {"class_path": "segzoo.data.MiniCity", "init_args": {"domain": "source", **domain}},
            "target": {"class_path": "segzoo.data.MiniCity", "init_args": {"domain": "target", **domain}},
        },
    }
    if issubclass(load_method(slug), SegmentationMethod):
        config["network"] = tiny.NETWORK
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@every_method
def test_fit_test_and_predict_through_the_command(
    slug: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, slug)
    assert main(["fit", "--method", slug, "--config", str(config), "--runs", str(tmp_path / "runs")]) == 0
    run = tmp_path / "runs" / slug / "tiny" / "default-s0"
    printed = capsys.readouterr().out
    checkpoint = run / "checkpoints" / "last.ckpt"
    if not issubclass(load_method(slug), SegmentationMethod):
        assert "nothing to score" in printed and list((run / "figures").glob("panel-training-*.png"))
        assert checkpoint.is_file() and not list(run.glob("scores*"))
        for command in (["test"], ["predict", "--input", str(run / "figures"), "--out", str(tmp_path / "out")]):
            assert main([*command, "--ckpt_path", str(checkpoint)]) == 2
            assert "labels no images" in capsys.readouterr().err
        return
    assert "pavement" in printed and "mIoU" in printed and str(run) in printed
    for name in ("config.yaml", "manifest.json", "metrics.csv", "confusion.npz", "checkpoints/last.ckpt"):
        assert (run / name).is_file(), name
    assert list((run / "figures").glob("panel-target-*.png")) and list((run / "figures").glob("scores*.png"))

    scores = json.loads(next(run.glob("scores*.json")).read_text())
    assert main(["test", "--ckpt_path", str(checkpoint)]) == 0
    assert json.loads(next(run.glob("scores*.json")).read_text())["confusion"] == scores["confusion"]

    (tmp_path / "photos").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)).save(
        tmp_path / "photos" / "a.png"
    )
    out = tmp_path / "out"
    arguments = ["--ckpt_path", str(checkpoint), "--input", str(tmp_path / "photos"), "--out", str(out)]
    assert main(["predict", *arguments]) == 0
    labels = np.asarray(Image.open(out / "labels" / "a.png"))
    assert labels.shape == (50, 70) and labels.max() < 9
    assert list((out / "overlays").glob("a.*"))


@pytest.mark.parametrize(
    "slug", [pytest.param(s, marks=() if s == "metapix" else pytest.mark.slow) for s in tiny.METHODS]
)
def test_killed_and_resumed_equals_uninterrupted(slug: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, slug, max_steps=60, val_check_interval=60, limit_val_batches=0)

    def command(name: str, *more: str) -> list[str]:
        fit = [
            "-m",
            "segzoo",
            "fit",
            "--method",
            slug,
            "--config",
            str(config),
            "--runs",
            str(tmp_path),
            "--name",
            name,
        ]
        return [sys.executable, *fit, "--checkpoint_steps", "5", *more]

    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command("whole"), check=True, capture_output=True, env=environment)
    process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    last = tmp_path / slug / "tiny" / "killed-s0" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.is_file():
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    at = torch.load(last, weights_only=True)["global_step"]
    assert 0 < at < 60, "the run was over before it could be killed"
    subprocess.run(command("killed", "--ckpt_path", "last"), check=True, capture_output=True, env=environment)

    whole = torch.load(tmp_path / slug / "tiny" / "whole-s0" / "checkpoints" / "last.ckpt", weights_only=True)
    resumed = torch.load(last, weights_only=True)
    assert resumed["global_step"] == whole["global_step"] == 60
    assert_same(whole["state_dict"], resumed["state_dict"])
