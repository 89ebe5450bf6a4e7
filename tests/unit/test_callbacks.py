"""Callbacks around toy trainings; no method and no data set is needed."""

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import ClassVar
from unittest.mock import create_autospec

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from segzoo.callbacks import (
    FinalReport,
    HistoryFigures,
    ImagePanels,
    LastCheckpoint,
    RunManifest,
    StepProgress,
)
from segzoo.callbacks.manifest import command_line, git_state
from segzoo.callbacks.panels import undisturbed
from segzoo.data.label_spaces import LabelSpace
from segzoo.data.streams import Stream
from segzoo.data.views import Views
from segzoo.evaluation import Scores, confusion_metric, update_confusion


@pytest.fixture(autouse=True)
def small_figures(monkeypatch):
    monkeypatch.setattr("segzoo.evaluation.plots.DPI", 30)


SPACE = LabelSpace("toy", ("sky", "road", "car"), ((70, 130, 180), (128, 64, 128), (0, 0, 142)))


def toy_batch(seed, count=2, labels=True, native=(8, 8)):
    generator = torch.Generator().manual_seed(seed)
    batch = {"image": torch.rand(count, 3, 8, 8, generator=generator), "name": [str(seed)] * count}
    if labels:
        batch["label"] = torch.randint(0, 3, (count, *native), generator=generator)
    return batch


class Endless(IterableDataset):
    def __iter__(self):
        step = 0
        while True:
            yield {"source": toy_batch(step), "target": toy_batch(step + 1000)}
            step += 1


class ToyData(L.LightningDataModule):
    name = "toy"
    size = (8, 8)
    views = Views()

    def __init__(self, target_labels=True):
        super().__init__()
        self.target_labels = target_labels

    def counts(self):
        return {"source/train": 8, "target/val": 4, "target/test": 4}

    def train_dataloader(self):
        return DataLoader(Endless(), batch_size=None)

    def val_dataloader(self):
        return DataLoader([toy_batch(5, native=(11, 13)), toy_batch(6, native=(11, 13))], batch_size=None)

    test_dataloader = val_dataloader

    def panel_batch(self, domain, count=4):
        return toy_batch(7, count, labels=domain == "source" or self.target_labels, native=(16, 12))


class Toy(L.LightningModule):
    """Batch norm, dropout, and a buffer that counts forward passes: three ways to notice a disturbance."""

    slug = "toy"
    streams: ClassVar = {domain: Stream(domain) for domain in ("source", "target")}

    def __init__(self):
        super().__init__()
        self.label_space = SPACE
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 3, 1))
        self.register_buffer("calls", torch.zeros(()))
        self.confusion = confusion_metric(3)
        self.scores, self.scored_images, self.image_counts = None, 4, None
        self.fail_at = None
        self.seen = []
        self.segmenter = self.net
        self.step_pictures, self.step_names, self.run_config = {}, {}, None
        self.learned_from, self.sources = {"source": 8, "labels": None}, {}

    def panel_maps(self, batch):
        return {}

    def forward(self, image):
        self.calls += 1
        return self.net(image)

    def training_step(self, batch, batch_idx):
        if self.fail_at is not None and self.global_step == self.fail_at[0]:
            raise self.fail_at[1]
        source, target = batch["source"], batch["target"]
        loss = functional.cross_entropy(self(source["image"]), source["label"]) + 0.1 * torch.rand(())
        loss = loss + functional.cross_entropy(self(target["image"]), target["label"])
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log_dict({f"weight/class/{name}": 0.1 * i + 0.2 for i, name in enumerate(SPACE.classes)})
        return loss

    def validation_step(self, batch, batch_idx):
        update_confusion(self.confusion, self(batch["image"]), batch["label"])

    test_step = validation_step

    def on_validation_epoch_end(self):
        self.scores = Scores(self.confusion.compute().numpy(), SPACE.classes)
        self.confusion.reset()
        self.log("val/miou", self.scores.miou, prog_bar=True)

    on_test_epoch_end = on_validation_epoch_end

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class WeightingToy(Toy):
    def __init__(self):
        super().__init__()
        self.weighting = nn.Conv2d(3, 1, 1)

    def weights(self, batch, logits=None):
        self.seen.append(batch)
        assert not self.net.training
        return torch.sigmoid(self.weighting(batch["image"]))[:, 0] * torch.rand(())

    def panel_maps(self, batch):
        weights = {"weight": self.weights(batch)} if "label" in batch else {}
        self.seen.append(batch)
        np.random.rand()
        return weights | {"mixed": batch["image"], "pseudo": self(batch["image"]).argmax(1)}


def trainer(tmp_path, *callbacks, steps=4, logger=False, **options):
    options = {"accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1, **options}
    if not any(isinstance(c, LastCheckpoint) for c in callbacks):
        options["enable_checkpointing"] = False
    if any(isinstance(c, StepProgress) for c in callbacks):
        del options["enable_progress_bar"]
    return L.Trainer(
        max_steps=steps,
        callbacks=list(callbacks),
        logger=logger,
        default_root_dir=tmp_path,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        **{"val_check_interval": 1000, **options},
    )


def fitted(tmp_path, *callbacks, module=Toy, data=None, ckpt_path=None, **options):
    L.seed_everything(3, verbose=False)
    model = module()
    run = trainer(tmp_path, *callbacks, **options)
    run.fit(model, datamodule=data or ToyData(), ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return model, run


def same(one, two):
    one, two = one.state_dict(), two.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# Panels


def test_panels_do_not_change_the_training(tmp_path):
    plain, _ = fitted(tmp_path, module=WeightingToy)
    expected = torch.rand(3)
    watched, _ = fitted(tmp_path, ImagePanels(tmp_path, every_n_steps=1, count=2), module=WeightingToy)
    assert torch.equal(torch.rand(3), expected)  # the generator stands where it would
    assert same(plain, watched)
    assert watched.seen, "the panels did call the module"


def test_every_module_keeps_its_own_mode():
    model = Toy()
    model.train()
    model.net[1].eval()  # frozen statistics
    with undisturbed(model):
        assert not any(part.training for part in model.modules())
        assert not torch.is_grad_enabled()
    assert model.net[0].training
    assert not model.net[1].training
    with pytest.raises(RuntimeError, match="inside"), undisturbed(model):
        raise RuntimeError("inside")
    assert model.net[0].training


def test_panels_at_the_first_the_last_and_every_nth_step(tmp_path):
    fitted(tmp_path, ImagePanels(tmp_path, every_n_steps=2, count=1), steps=5, accumulate_grad_batches=2)
    found = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert found == [f"panel-{d}-step{s:06d}.png" for d in ("source", "target") for s in (0, 2, 4, 5)]


def steps_of(folder, domain="source"):
    return sorted(int(path.stem[-6:]) for path in folder.glob(f"panel-{domain}-*"))


@pytest.mark.fault("hundreds-of-panels")
def test_panels_by_default_at_growing_distances_whatever_the_length(tmp_path):
    fitted(tmp_path, ImagePanels(tmp_path, count=1), steps=55, limit_val_batches=0)
    assert steps_of(tmp_path / "figures") == [0, 10, 20, 50, 55]
    panels = ImagePanels(tmp_path)
    drawn = [step for step in range(10**6 + 1) if panels._has_panels(step)]
    assert len(drawn) <= 20 and drawn[-3:] == [200_000, 500_000, 1_000_000]


@pytest.mark.fault("hundreds-of-panels")
def test_a_training_that_is_resumed_often_keeps_as_many_panels(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps in (3, 6, 9, 12, 15):
        board = TensorBoardLogger(tmp_path, name="board", version="")
        callbacks = [ImagePanels(tmp_path, count=1), LastCheckpoint(tmp_path, every_n_steps=1)]
        fitted(tmp_path, *callbacks, steps=steps, logger=board, ckpt_path=None if steps == 3 else "last")
    assert steps_of(tmp_path / "figures") == steps_of(tmp_path / "figures", "target") == [0, 10, 15]
    events = EventAccumulator(str(tmp_path / "board"), size_guidance={"images": 0})
    events.Reload()
    assert [event.step for event in events.Images("panel/source")] == [0, 3, 6, 9, 10, 12, 15]  # none twice


def test_a_training_from_a_checkpoint_of_elsewhere_begins_with_panels(tmp_path):
    fitted(tmp_path, LastCheckpoint(tmp_path), steps=3)
    last = tmp_path / "checkpoints" / "last.ckpt"
    fitted(tmp_path, ImagePanels(tmp_path, every_n_steps=5, count=1), steps=6, ckpt_path=last)
    assert steps_of(tmp_path / "figures") == [5, 6]  # that of step 3 was the first, and is none of every fifth


@pytest.mark.fault("panels-without-names")
def test_panels_name_their_images(tmp_path, monkeypatch):
    import segzoo.callbacks.panels as panels

    named = []
    original = panels.panel_figure
    monkeypatch.setattr(panels, "panel_figure", lambda *a: named.append(a[3]) or original(*a))

    class Pictures(Toy):
        panel_maps = None

        def training_step(self, batch, batch_idx):
            self.step_pictures = {"source": batch["source"]["image"], "mixed": batch["target"]["image"]}
            self.step_names = {"source": batch["source"]["name"]}
            return super().training_step(batch, batch_idx)

    fitted(tmp_path, ImagePanels(tmp_path, count=2), steps=1)
    assert named == [["7", "7"]] * 4  # both domains, at step 0 and at the last
    named.clear()
    fitted(tmp_path / "training", ImagePanels(tmp_path / "training", count=2), steps=1, module=Pictures)
    assert named == [{"source": ["0", "0"]}]


def columns_of(monkeypatch):
    drawn = []
    import segzoo.callbacks.panels as panels

    original = panels.panel_figure
    monkeypatch.setattr(panels, "panel_figure", lambda c, *rest: drawn.append(c) or original(c, *rest))
    return drawn


def test_columns_of_a_weighting_method(tmp_path, monkeypatch):
    drawn = columns_of(monkeypatch)
    model, _ = fitted(tmp_path, ImagePanels(tmp_path, count=2), module=WeightingToy, steps=1)
    source, target = drawn[:2]
    assert list(source) == ["image", "label", "prediction", "weight", "mixed", "pseudo"]
    assert list(target) == ["image", "label", "prediction", "mixed", "pseudo"]
    assert source["image"][0].dtype == np.uint8
    assert source["label"][0].shape == source["prediction"][0].shape == (16, 12)  # native size
    assert source["weight"][0].shape == (8, 8)
    assert model.seen[0]["label"].shape == (2, 8, 8)  # at the size of the image
    assert "label" not in model.seen[2], "target labels are drawn, not given"


def test_panels_without_target_labels(tmp_path, monkeypatch):
    drawn = columns_of(monkeypatch)
    fitted(tmp_path, ImagePanels(tmp_path, count=1), data=ToyData(target_labels=False), steps=1)
    assert list(drawn[1]) == ["image", "prediction"]
    assert drawn[1]["prediction"][0].shape == (8, 8)


def test_panels_in_bfloat16(tmp_path):
    fitted(tmp_path, ImagePanels(tmp_path, count=1), module=WeightingToy, steps=1, precision="bf16-mixed")
    assert (tmp_path / "figures" / "panel-target-step000001.png").is_file()


def test_pictures_go_to_every_logger_that_takes_them(tmp_path):
    wandb = create_autospec(WandbLogger, instance=True, save_dir=str(tmp_path), version="0")
    unknown = create_autospec(Logger, instance=True, save_dir=str(tmp_path), version="0")
    board = TensorBoardLogger(tmp_path, name="board", version="")
    loggers = [CSVLogger(tmp_path, name="", version=""), board, wandb, unknown]
    fitted(tmp_path, ImagePanels(tmp_path, every_n_steps=1, count=1), steps=2, logger=loggers)
    path = str(tmp_path / "figures" / "panel-source-step000001.png")
    wandb.log_image.assert_any_call("panel/source", [path], step=1)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert {event.step for event in events.Images("panel/target")} == {0, 1, 2}


# Checkpoints


def step_of(path):
    return torch.load(path, weights_only=True)["global_step"]


def test_last_checkpoint_every_n_steps_and_at_the_end(tmp_path, monkeypatch):
    saved = []
    original = L.Trainer.save_checkpoint
    monkeypatch.setattr(
        L.Trainer, "save_checkpoint", lambda t, *a, **k: saved.append(t.global_step) or original(t, *a, **k)
    )
    fitted(tmp_path, LastCheckpoint(tmp_path, every_n_steps=2), steps=5, accumulate_grad_batches=2)
    assert saved == [2, 4, 5]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    assert step_of(tmp_path / "checkpoints" / "last.ckpt") == 5


def test_checkpoints_that_stay(tmp_path):
    fitted(tmp_path, LastCheckpoint(tmp_path, every_n_steps=4, keep_steps=3), steps=7)
    found = {path.name: step_of(path) for path in (tmp_path / "checkpoints").iterdir()}
    assert found == {"step00000003.ckpt": 3, "step00000006.ckpt": 6, "last.ckpt": 7}


def test_a_stopped_training_is_saved_too(tmp_path):
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step == 3

    fitted(tmp_path, Stop(), LastCheckpoint(tmp_path), steps=9, min_epochs=0)
    assert step_of(tmp_path / "checkpoints" / "last.ckpt") == 3


def test_resuming_with_more_steps_finds_the_last_checkpoint(tmp_path):
    fitted(tmp_path, LastCheckpoint(tmp_path, every_n_steps=2), steps=3)
    _, run = fitted(tmp_path, LastCheckpoint(tmp_path, every_n_steps=2), steps=5, ckpt_path="last")
    assert run.global_step == 5
    assert run.fit_loop.epoch_progress.total.ready == 1  # the same epoch went on
    assert step_of(tmp_path / "checkpoints" / "last.ckpt") == 5
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert str(tmp_path) not in str(checkpoint["callbacks"])


def test_an_interrupted_write_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    original = L.Trainer.save_checkpoint

    def torn(self, path, *args, **kwargs):
        original(self, path, *args, **kwargs)
        if self.global_step == 4:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
            raise KeyboardInterrupt

    monkeypatch.setattr(L.Trainer, "save_checkpoint", torn)
    with pytest.raises(SystemExit):
        fitted(tmp_path, LastCheckpoint(tmp_path, every_n_steps=2), steps=6)
    assert step_of(tmp_path / "checkpoints" / "last.ckpt") == 2


@pytest.mark.parametrize(("error", "expected"), [(SIGTERMException(), 3), (ValueError("broken"), 2)])
def test_only_a_preemption_between_steps_is_saved(tmp_path, error, expected):
    class Interrupt(L.Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 3:
                raise error

    with pytest.raises(type(error)):
        fitted(tmp_path, Interrupt(), LastCheckpoint(tmp_path, every_n_steps=2), steps=6)
    assert step_of(tmp_path / "checkpoints" / "last.ckpt") == expected


# Manifest


def manifest(tmp_path):
    return json.loads((tmp_path / "manifest.json").read_text())


def test_manifest_of_a_training_and_its_test(tmp_path):
    callbacks = [RunManifest(tmp_path), FinalReport(tmp_path)]
    model, run = fitted(tmp_path, *callbacks, steps=3)
    content = manifest(tmp_path)
    assert content["status"] == "finished"
    assert (content["method"], content["seed"], content["world_size"]) == ("toy", 3, 1)
    assert content["data"] == {"name": "toy", "images": ToyData().counts()}
    assert content["packages"]["torch"] == torch.__version__
    training = content["training"]
    assert training["steps"] == 3
    # The seconds are rounded to a hundredth, of which this training takes one or two.
    assert 3 * 4 / training["images_per_second"] == pytest.approx(training["seconds"], abs=0.006)
    assert 3 / training["steps_per_second"] == pytest.approx(training["seconds"], abs=0.006)
    assert training["peak_memory_mib"]["process"] > 50
    run.test(model, datamodule=ToyData(), verbose=False)
    content = manifest(tmp_path)
    assert content["scores"]["test"]["miou"] == pytest.approx(model.scores.miou)
    assert content["scores"]["test"]["protocol"]["images"] == 4
    assert content["training"] == training


def test_manifest_of_a_test_alone(tmp_path):
    run = trainer(tmp_path, RunManifest(tmp_path))
    run.test(Toy(), datamodule=ToyData(), verbose=False)
    content = manifest(tmp_path)
    assert (content["status"], content["stage"]) == ("finished", "test")
    assert "training" not in content


@pytest.mark.parametrize(
    ("error", "raised", "status"),
    [(ValueError("broken"), ValueError, "failed"), (KeyboardInterrupt(), SystemExit, "stopped")],
)
def test_manifest_of_a_run_that_ended_early(tmp_path, error, raised, status):
    class Failing(Toy):
        def __init__(self):
            super().__init__()
            self.fail_at = (2, error)

    with pytest.raises(raised):
        fitted(tmp_path, RunManifest(tmp_path), module=Failing)
    content = manifest(tmp_path)
    assert content["status"] == status
    assert content["training"]["steps"] == 2
    assert content.get("error") == ("ValueError: broken" if status == "failed" else None)


def test_manifest_of_a_resumed_run_is_kept_until_it_has_gone_on(tmp_path):
    (tmp_path / "manifest.json").write_text('{"scores": "of before"}')
    run, model = trainer(tmp_path, record := RunManifest(tmp_path)), Toy()
    model.run_config = {"method": {"name": "toy"}}
    record.setup(run, model, "fit")
    run.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = 5
    record.on_train_start(run, model)
    record.on_exception(run, model, KeyboardInterrupt())
    assert manifest(tmp_path) == {"scores": "of before"} and not (tmp_path / "config.yaml").exists()
    record.on_train_batch_end(run, model, None, {}, 0)
    assert (manifest(tmp_path)["resumed_at_step"], "scores" in manifest(tmp_path)) == (5, False)
    assert (tmp_path / "config.yaml").read_text().endswith("\nmethod:\n  name: toy\n")


@pytest.mark.fault("manifest-of-a-resumed-run")
def test_manifest_of_a_resumed_run_lists_its_starts(tmp_path):
    before = {"started": "then", "command": "segzoo fit", "resumed": [{"step": 2}]}
    (tmp_path / "manifest.json").write_text(json.dumps(before))
    record, model = RunManifest(tmp_path, changed={"trainer.max_steps": (400, 800)}), Toy()
    run = trainer(tmp_path, record)
    record.setup(run, model, "fit")
    run.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = 5
    record.on_train_start(run, model)
    record.on_train_batch_end(run, model, None, {}, 0)
    content = manifest(tmp_path)
    assert (content["started"], content["command"]) == ("then", "segzoo fit")
    assert [entry["step"] for entry in content["resumed"]] == [2, 5]
    assert content["resumed"][1]["changed"] == {"trainer.max_steps": [400, 800]}


def test_the_seed_of_the_manifest_is_the_datas(tmp_path):
    data = ToyData()
    data.seed = 7
    fitted(tmp_path, RunManifest(tmp_path), data=data, steps=1)
    assert manifest(tmp_path)["seed"] == 7


def test_command_line_hides_secrets():
    argv = [
        "/home/somebody/bin/segzoo",
        "fit",
        "--wandb.api_key",
        "abc",
        "--token=def",
        "--seed",
        "1",
        "--x=y",
    ]
    assert command_line(argv) == "segzoo fit --wandb.api_key *** --token=*** --seed 1 --x=y"
    assert command_line(["/opt/segzoo/__main__.py", "fit"]) == "segzoo fit"


def test_git_state(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert git_state(package) is None
    git("init")
    assert git_state(package) is None  # in a checkout, but not of it
    git("add", ".")
    git("commit", "-m", "m")
    state = git_state(package)
    assert state is not None
    assert len(state["revision"]) == 40
    assert not state["dirty"]
    (package / "__init__.py").write_text("changed")
    assert git_state(package)["dirty"]


# Progress


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)


class Spy(StepProgress):
    """Records what the bar shows after every batch."""

    def __init__(self, **options):
        super().__init__(**options)
        self.shown = []

    def on_train_batch_end(self, *args):
        super().on_train_batch_end(*args)
        bar = self.train_progress_bar
        self.shown.append((bar.n, bar.total, bar.initial))


def test_bar_counts_steps_over_all_epochs(tmp_path, terminal):
    progress = Spy()
    fitted(tmp_path, progress, steps=3, accumulate_grad_batches=2)
    assert progress.shown == [(0, 3, 0), (1, 3, 0), (1, 3, 0), (2, 3, 0), (2, 3, 0), (3, 3, 0)]
    progress = Spy()
    fitted(tmp_path, progress, steps=3, limit_train_batches=2, val_check_interval=None)
    assert [n for n, *_ in progress.shown] == [1, 2, 3]


def test_bar_of_a_resumed_run_starts_at_its_step(tmp_path, terminal):
    fitted(tmp_path, LastCheckpoint(tmp_path), steps=2)
    progress = Spy()
    fitted(tmp_path, progress, LastCheckpoint(tmp_path), steps=4, ckpt_path="last")
    assert progress.shown == [(3, 4, 2), (4, 4, 2)]


def test_bar_shows_losses_and_no_version(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    fitted(tmp_path, StepProgress(), steps=2, logger=CSVLogger(tmp_path))
    shown = capsys.readouterr().out
    assert "train/loss=" in shown
    assert "2/2" in shown
    assert "v_num" not in shown


def test_the_bar_reads_losses_a_few_times_a_second(tmp_path, terminal, monkeypatch):
    """The host waits for a GPU's losses: read after every step, they would keep it from being ahead."""
    now, read = [1000.0], []
    monkeypatch.setattr("segzoo.callbacks.progress.time", SimpleNamespace(monotonic=lambda: now[0]))

    class Read(Spy):
        def on_train_batch_end(self, *args):
            now[0] += self.REDRAWN / 3.5
            super().on_train_batch_end(*args)

        def get_metrics(self, trainer, pl_module):
            read.append(trainer.global_step)
            return super().get_metrics(trainer, pl_module)

    progress = Read()
    fitted(tmp_path, progress, steps=10, limit_val_batches=0)
    assert sorted(set(read)) == [1, 5, 9, 10]
    assert [n for n, *_ in progress.shown] == list(range(1, 11))


def test_lines_in_a_log_file(tmp_path, capsys):
    model, run = fitted(tmp_path, StepProgress(seconds=0), steps=3)
    run.test(model, datamodule=ToyData(), verbose=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "step 1/3 (33%)",
        "step 2/3 (66%)",
        "step 3/3 (100%)",
        "Testing: 2 batches",
    ]
    assert "left" in lines[1] and "left" not in lines[0], "nothing is known of the steps after the first"
    assert "train/loss" in lines[2]


@pytest.mark.parametrize(("begun", "accumulate", "limit"), [(0, 1, 1.0), (1, 1, 1.0), (0, 2, 1.0), (0, 1, 0)])
def test_the_rate_is_of_steps_and_the_time_left_has_the_validations_in_it(
    tmp_path, capsys, monkeypatch, begun, accumulate, limit
):
    now = [1000.0]
    monkeypatch.setattr("segzoo.callbacks.progress.time", SimpleNamespace(monotonic=lambda: now[0]))

    class Timed(Toy):
        def training_step(self, batch, batch_idx):
            now[0] += (2.0 if self.batches >= accumulate else 100.0) / accumulate
            self.batches += 1
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            now[0] += 7.0  # of two batches
            super().validation_step(batch, batch_idx)

        batches = 0

    if begun:
        fitted(tmp_path, LastCheckpoint(tmp_path), steps=begun)
    options = {"steps": 6, "val_check_interval": 2 * accumulate, "accumulate_grad_batches": accumulate}
    options |= {"ckpt_path": "last" if begun else None, "limit_val_batches": limit}
    fitted(tmp_path, StepProgress(seconds=0), LastCheckpoint(tmp_path), module=Timed, **options)
    lines = [line.split(", ") for line in capsys.readouterr().out.splitlines()]
    last = {line[0].split()[1]: line[1:3] for line in lines}
    seconds = {step: 2 * (6 - step) + (14 * (3 - (step - 1) // 2) if step > 2 and limit else 0) for step in range(3, 7)}
    for step, left in seconds.items():
        assert last[f"{step}/6"] == ["0.50 steps/s", f"0:{left:02d} left"]


def test_few_lines_in_a_log_file(tmp_path, capsys):
    fitted(tmp_path, StepProgress(seconds=1000), steps=5)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["step 5/5 (100%)"]


# Reports


def test_report_after_a_test(tmp_path, capsys):
    model = Toy()
    run = trainer(tmp_path, FinalReport(tmp_path))
    run.test(model, datamodule=ToyData(), verbose=False)
    assert Scores.load(tmp_path / "scores-test.json") == model.scores
    assert (tmp_path / "figures" / "scores-test.png").is_file()
    assert (tmp_path / "confusion.npz").is_file()
    shown = capsys.readouterr().out
    assert f"{100 * model.scores.miou:.1f}" in shown
    assert "test, 4 images; 3 classes (toy)" in shown
    assert "input 8x8" in shown


def test_report_after_a_validation_of_its_own_only(tmp_path):
    fitted(tmp_path, FinalReport(tmp_path), steps=2, val_check_interval=1)
    assert not list(tmp_path.glob("scores-*"))
    trainer(tmp_path, FinalReport(tmp_path)).validate(Toy(), datamodule=ToyData(), verbose=False)
    assert (tmp_path / "scores-val.json").is_file()


def test_history_figures(tmp_path, monkeypatch):
    import segzoo.callbacks.history as history

    seen = {}
    monkeypatch.setattr(history, "curves_figure", lambda h: seen.update(h) or SimpleNamespace(savefig=_touch))
    logger = CSVLogger(tmp_path, name="", version="")
    fitted(tmp_path, HistoryFigures(tmp_path), steps=4, val_check_interval=2, logger=logger)
    assert len(seen["train/loss"][0]) == 4
    assert len(seen["val/miou"][0]) == 2  # that of the last step is there
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"curves.png", "weights.png"}


@pytest.mark.fault("curves-of-one-point")
def test_one_point_is_no_course(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    fitted(tmp_path, HistoryFigures(tmp_path), steps=1, val_check_interval=1, logger=logger)
    assert (tmp_path / "metrics.csv").is_file() and not (tmp_path / "figures").exists()


def _touch(path, **_):
    path.touch()


def test_history_figures_without_a_history(tmp_path):
    fitted(tmp_path, HistoryFigures(tmp_path), steps=1)
    assert not (tmp_path / "figures").exists()
