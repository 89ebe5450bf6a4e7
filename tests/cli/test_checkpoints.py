"""Checkpoints with numbers that are none, with damage, or without a part: every command that reads one says so in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml

from segzoo.errors import CheckpointError
from segzoo.inference import load_checkpoint
from tests import tiny
from tests.cli.conftest import Result, Segzoo
from tests.unit.test_state_dicts import zero_out

Change = Callable[[dict[str, Any]], Any]
PREDICT = ("--out", "seen", "--device", "cpu", "--input")
NORM = "segmenter.network.encoder.model.bn1.running_var"


@pytest.fixture
def alter(checkpoint: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """A copy of the checkpoint, changed, in a run folder of its own."""

    def altered(change: Change) -> Path:
        content = torch.load(checkpoint, weights_only=True)
        change(content)
        path = tmp_path / "run" / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
        return path

    return altered


def every_command(segzoo: Segzoo, path: Path, photos: Path) -> list[Result]:
    results = [segzoo(command, "--ckpt_path", path) for command in ("test", "validate")]
    results += [segzoo("fit", "--ckpt_path", path, "--trainer.max_steps", 4)]
    results += [segzoo("predict", "--ckpt_path", path, *PREDICT, photos)]
    results += [segzoo("annotate", "--ckpt_path", path, "--count", 1, "--out", "made", "--device", "cpu")]
    results += [segzoo("folds", "--run", path.parents[1])]
    return results


def left_behind(path: Path) -> set[str]:
    """What there is beside the checkpoint; a run has the file of its metrics already."""
    return {file.name for file in path.parents[2].rglob("*") if file.is_file()} - {path.name, "metrics.csv"}


@pytest.fixture
def photos(toy: Path) -> Path:
    return toy.parent / "real" / "test" / "image"


@pytest.mark.fault("weights-not-finite")
@pytest.mark.parametrize("bad", [float("nan"), -float("inf")])
def test_weights_that_are_not_finite_are_not_used(
    segzoo: Segzoo, alter: Any, toy: Path, photos: Path, bad: float
) -> None:
    path = alter(lambda content: content["state_dict"][NORM].fill_(bad))
    for result in every_command(segzoo, path, photos):
        assert result.status == 2 and result.err.startswith("error: "), result
        assert f"{path}" in result.err and f"not finite, first in '{NORM}': use an earlier one\n" in result.err
        assert "mIoU" not in result.out
    started = segzoo("fit", "--method", "joint", "--network.initial_checkpoint", path, "--data", toy)
    assert started.status == 2 and "not finite, first in 'network.encoder.model.bn1.running_var'" in started.err
    assert left_behind(path) == set()


@pytest.mark.fault("damaged-checkpoint")
def test_bytes_that_were_lost_inside_a_checkpoint_are_found(
    segzoo: Segzoo, alter: Any, toy: Path, photos: Path
) -> None:
    path = alter(lambda content: None)
    zero_out(path)
    results = every_command(segzoo, path, photos)
    results += [segzoo("fit", "--method", "joint", "--network.initial_checkpoint", path, "--data", toy)]
    for result in results:
        assert (result.status, result.out) == (2, "")
        assert result.err.startswith(f"error: {path} is damaged: the checksum of ") and result.err.count("\n") == 1
    assert left_behind(path) == set()


LACKING: dict[str, tuple[Change, str]] = {
    "weights": (lambda c: c.pop("state_dict"), "it has no weights"),
    "any weights": (lambda c: c.update(state_dict={}), "it has no weights"),
    "tensors": (lambda c: c.update(state_dict={"a": 1}), "it has no weights"),
    "version": (lambda c: c.pop("pytorch-lightning_version"), "no 'pytorch-lightning_version'"),
    "a version": (lambda c: c.update({"pytorch-lightning_version": "newest"}), "no 'pytorch-lightning_version'"),
    "options": (lambda c: c.pop("hyper_parameters"), "no options of the method"),
    "segzoo": (lambda c: c.pop("segzoo"), "is not a checkpoint of segzoo"),
    "method": (lambda c: c["segzoo"].update(method=["joint"]), "is not a checkpoint of segzoo"),
    "earlier version": (lambda c: c["segzoo"].update(config="data: {}"), "whose options had other names"),
    "earlier options": (lambda c: c["hyper_parameters"].update(optimizer="adamw"), "whose options had other names"),
    "a mapping": (lambda c: c["segzoo"].update(config=7), "must hold sections"),
    "another mapping": (lambda c: c["segzoo"].update(config=["data"]), "must hold sections"),
    "sections": (lambda c: c["segzoo"].update(config={"data": "minicity"}), "must be a section"),
    "names": (lambda c: c["segzoo"].update(config={"data": {1: 2}}), "the key 1 is no name"),
    "former section": (lambda c: c["segzoo"].update(config={"model": {"lr": 1}}), "'model.lr' is 'optimizer.lr' now"),
    "label space": (lambda c: c["segzoo"].pop("label_space"), "its label space cannot be read"),
    "classes": (lambda c: c["segzoo"]["label_space"].pop("classes"), "its label space cannot be read"),
    "colours": (lambda c: c["segzoo"]["label_space"].update(palette=[[0, 0]]), "its label space cannot be read"),
    "one label space": (lambda c: c["hyper_parameters"]["label_space"].update(name="b"), "is not that of its method"),
    "a size": (lambda c: c["segzoo"].update(size=[0, "wide"]), "expected height and width"),
}


@pytest.mark.fault("checkpoint-without-a-part")
@pytest.mark.parametrize("part", LACKING)
def test_a_checkpoint_without_what_all_have(segzoo: Segzoo, alter: Any, photos: Path, part: str) -> None:
    change, message = LACKING[part]
    path = alter(change)
    for result in every_command(segzoo, path, photos):
        assert (result.status, result.out) == (2, "")
        assert result.err.startswith("error: ") and f"{path}" in result.err and result.err.count("\n") == 1
        assert message in result.err
    assert left_behind(path) == set()


@pytest.mark.fault("checkpoint-without-a-part")
def test_options_of_another_version_are_one_line(segzoo: Segzoo, alter: Any, photos: Path) -> None:
    for options in ({"architecture": 5}, {"options": 3}, {"encoder": None}):
        path = alter(lambda content, new=options: content["hyper_parameters"]["network"].update(new))
        result = segzoo("predict", "--ckpt_path", path, *PREDICT, photos)
        assert result.status == 2 and result.err.startswith(f"error: {path}") and result.err.count("\n") == 1, options


FIT_LOOP = "epoch_loop.automatic_optimization.optim_progress"
UNFIT: dict[str, tuple[Change, str]] = {
    "optimiser": (lambda c: c.pop("optimizer_states"), "it has no 'optimizer_states'"),
    "schedule": (lambda c: c.pop("lr_schedulers"), "it has no 'lr_schedulers'"),
    "loops": (lambda c: c.pop("loops"), "it has no 'loops'"),
    "step": (lambda c: c.pop("global_step"), "it has no 'global_step'"),
    "epoch": (lambda c: c.pop("epoch"), "it has no 'epoch'"),
    "fit loop": (lambda c: c.update(loops={}), "it has no 'loops.fit_loop'"),
    "progress": (lambda c: c["loops"]["fit_loop"].pop(FIT_LOOP), f"it has no 'loops.fit_loop.{FIT_LOOP}'"),
    "optimisers": (lambda c: c.update(optimizer_states=[]), "'optimizer_states' is not the state of one"),
    "schedules": (lambda c: c.update(lr_schedulers=[]), "'lr_schedulers' is not the state of one"),
    "last epoch": (lambda c: c["lr_schedulers"][0].pop("last_epoch"), "no 'last_epoch'"),
    "last epoch's kind": (lambda c: c["lr_schedulers"][0].update(last_epoch="2"), "no 'last_epoch' that is a number"),
    "rates": (lambda c: c["lr_schedulers"][0].update(base_lrs=[float("nan")]), "has a learning rate that is none"),
    "step's kind": (lambda c: c.update(global_step="2"), "its 'global_step' is '2'"),
    "progress's kind": (
        lambda c: c["loops"]["fit_loop"]["epoch_progress"]["current"].update(ready="1"),
        "it has no 'loops.fit_loop.epoch_progress.current.ready'",
    ),
    "rate's kind": (
        lambda c: c["optimizer_states"][0]["param_groups"][0].update(lr=float("nan")),
        "has no learning rate, or one that is none",
    ),
    "groups": (lambda c: c["optimizer_states"][0].pop("param_groups"), "state of its optimiser is not whole"),
    "parameters": (lambda c: c["optimizer_states"][0]["param_groups"][0]["params"].pop(), "and the method has ["),
    "rate": (lambda c: c["optimizer_states"][0]["param_groups"][0].pop("lr"), "has no learning rate"),
    "shape": (
        lambda c: c["optimizer_states"][0]["state"][0].update(exp_avg=torch.ones(2)),
        "'exp_avg' of its optimiser has",
    ),
}


@pytest.mark.fault("checkpoint-without-a-part")
@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_weights_that_would_be_rounded_or_cut_are_refused(segzoo: Segzoo, alter: Any, dtype: torch.dtype) -> None:
    path = alter(lambda c: c["state_dict"].update({NORM: c["state_dict"][NORM].to(dtype)}))
    result = segzoo("test", "--ckpt_path", path)
    assert result.status == 2 and f"'{NORM}' holds numbers of {dtype}, expected torch.float32" in result.err


@pytest.mark.fault("checkpoint-without-a-part")
@pytest.mark.parametrize("part", UNFIT)
def test_a_checkpoint_that_cannot_be_continued_says_why(segzoo: Segzoo, alter: Any, part: str) -> None:
    change, message = UNFIT[part]
    path = alter(change)
    result = segzoo("fit", "--ckpt_path", path, "--trainer.max_steps", 4)
    assert result.status == 2 and result.err.count("\n") == 1, result
    assert result.err.startswith(f"error: the checkpoint {path} cannot be continued: ") and message in result.err
    assert result.err.endswith("; begin a new run at its weights with --network.initial_checkpoint\n")
    assert left_behind(path) == set()


@pytest.mark.parametrize(
    "others",
    [{}, {"loops": {}, "callbacks": [], "DomainDataModule": {}, "optimizer_states": 0}],
    ids=["absent", "broken"],
)
def test_weights_are_enough_to_be_scored(segzoo: Segzoo, alter: Any, photos: Path, others: dict[str, Any]) -> None:
    kept = ("state_dict", "hyper_parameters", "pytorch-lightning_version", "segzoo", "global_step", "epoch")

    def reduce(content: dict[str, Any]) -> None:
        for part in content.keys() - set(kept):
            del content[part]
        content.update(others)

    path = alter(reduce)
    assert segzoo("test", "--ckpt_path", path, "--out", "scores").status == 0
    assert segzoo("predict", "--ckpt_path", path, *PREDICT, photos).status == 0


@pytest.mark.fault("weights-not-finite")
def test_moments_that_are_not_finite_are_not_continued(segzoo: Segzoo, alter: Any) -> None:
    path = alter(lambda content: content["optimizer_states"][0]["state"][3]["exp_avg_sq"].fill_(float("inf")))
    result = segzoo("fit", "--ckpt_path", path, "--trainer.max_steps", 4)
    assert result.status == 2 and "not finite, first in 'optimizer_states.0.state.3.exp_avg_sq'" in result.err


@pytest.mark.fault("predictions-not-finite")
def test_predictions_that_are_not_finite_are_not_scored(segzoo: Segzoo, alter: Any, photos: Path) -> None:
    # Finite weights that no sum of products fits.
    path = alter(lambda content: content["state_dict"]["segmenter.network.segmentation_head.0.weight"].fill_(3e38))
    for command, split in (("test", "test"), ("validate", "val")):
        result = segzoo(command, "--ckpt_path", path)
        assert result.status == 2 and "mIoU" not in result.out
        assert result.err.startswith(
            f"error: the predictions of 2 of 2 {split} images are not finite: nothing is scored; "
        )
    labelled = segzoo("predict", "--ckpt_path", path, *PREDICT, photos)
    assert labelled.status == 2 and "the prediction of '000' is not finite" in labelled.err
    assert not list(Path("seen").glob("labels/*"))
    assert left_behind(path) <= {"legend.png"}


@pytest.mark.fault("predictions-not-finite")
def test_predictions_that_overflow_in_half_precision_are_counted() -> None:
    method, data = tiny.method("joint"), tiny.data(eval_batch_size=1)
    with torch.no_grad():
        method.segmenter.network.segmentation_head[0].weight.zero_()
        method.segmenter.network.segmentation_head[0].bias.fill_(1.0)
    trainer = tiny.trainer(1, limit_val_batches=None)
    assert trainer.test(method, datamodule=data, verbose=False)[0]["test/pixel_accuracy"] > 0
    whole = method.forward
    method.forward = lambda image: whole(image) * (1.0 if image.mean() > data_mean(data) else float("inf"))  # type: ignore[method-assign]
    with pytest.raises(Exception, match=r"the predictions of [12] of 3 test images are not finite"):
        trainer.test(method, datamodule=data, verbose=False)
    method.forward = whole  # type: ignore[method-assign]
    trainer.test(method, datamodule=data, verbose=False)  # what was counted before is forgotten
    assert method.scored_images == 3


def data_mean(data: Any) -> float:
    return float(torch.stack([batch["image"].mean() for batch in data.test_dataloader()]).median()) - 1e-6


@pytest.mark.fault("classes-in-another-order")
def test_data_of_other_classes_are_not_scored(segzoo: Segzoo, checkpoint: Path, toy: Path, tmp_path: Path) -> None:
    space = yaml.safe_load((toy.parent / "space.yaml").read_text())
    names = list(space["classes"])
    for order in (["sky", "car", "road"], ["sky", "road"]):
        kept = {number: name if name in order else "ignore" for number, name in enumerate(names)}
        own = space | {"classes": {name: space["classes"][name] for name in order}, "maps": {"kept": kept}}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
        flags = [f"--data.{domain}.label_space={tmp_path / 'own.yaml'}" for domain in ("source", "target")]
        flags += [f"--data.{domain}.class_map=kept" for domain in ("source", "target")]
        result = segzoo("test", "--ckpt_path", checkpoint, *flags, "--out", "scores")
        first = next(i for i, name in enumerate(names) if order[i : i + 1] != [name])
        here = f"'{order[first]}'" if first < len(order) else "absent"
        assert result.status == 2
        assert f"class {first} is '{names[first]}' in the checkpoint and {here} in the data" in result.err
        begun = segzoo("fit", "--method", "joint", "--data", toy, *flags, "--network.initial_checkpoint", checkpoint)
        assert begun.status == 2 and f"class {first} is '{names[first]}' in the checkpoint" in begun.err
        assert not Path("runs").exists()


@pytest.fixture(scope="module")
def from_python(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a plain Trainer, which knows its options and not the command line's configuration."""
    path = tmp_path_factory.mktemp("python") / "model.ckpt"
    method, trainer = tiny.method("joint"), tiny.trainer(1)
    trainer.fit(method, datamodule=tiny.data())
    trainer.save_checkpoint(path)
    return path


@pytest.mark.fault("checkpoint-from-python")
def test_a_checkpoint_from_python_is_scored_and_used(
    segzoo: Segzoo, from_python: Path, toy: Path, photos: Path
) -> None:
    method, size = load_checkpoint(str(from_python), "cpu")
    assert size == tiny.SIZE and not method.training
    without = segzoo("test", "--ckpt_path", from_python, "--out", "scores")
    assert (
        without.status == 2 and "does not say which data it was trained on" in without.err and "--data" in without.err
    )
    options = ["--data", "minicity", "--data.target.test", 2, "--data.size", *tiny.SIZE, "--data.num_workers", 0]
    scored = segzoo("test", "--ckpt_path", from_python, *options, "--trainer.accelerator", "cpu", "--out", "scores")
    assert scored.status == 0, scored.err
    other = segzoo("test", "--ckpt_path", from_python, "--data", toy, "--out", "other")
    assert other.status == 2 and "class 1 is 'building' in the checkpoint and 'road' in the data" in other.err
    assert segzoo("predict", "--ckpt_path", from_python, *PREDICT, photos).status == 0


@pytest.mark.fault("checkpoint-from-python")
def test_a_checkpoint_of_weights_alone_says_that_it_cannot_be_continued(tmp_path: Path) -> None:
    method, trainer, path = tiny.method("joint"), tiny.trainer(1), tmp_path / "weights.ckpt"
    trainer.fit(method, datamodule=tiny.data())
    trainer.save_checkpoint(path, weights_only=True)
    with pytest.raises(CheckpointError, match="cannot be continued: it has no 'optimizer_states'"):
        tiny.trainer(2).fit(tiny.method("joint"), datamodule=tiny.data(), ckpt_path=path, weights_only=True)
    other: L.Trainer = tiny.trainer(1)
    assert other.test(tiny.method("joint"), datamodule=tiny.data(), ckpt_path=path, weights_only=True, verbose=False)


@pytest.mark.fault("logits-of-another-size")
def test_options_that_make_logits_of_another_size_leave_nothing_behind(segzoo: Segzoo, toy: Path) -> None:
    network = ["--network.architecture", "fpn", "--network.options", "{encoder_depth: 4}"]
    result = segzoo("fit", "--method", "joint", "--data", toy, *network, "--network.encoder", "resnet18")
    assert result.status == 2 and "run folder" not in result.out
    assert "fpn on resnet18 with --network.options {encoder_depth: 4} makes logits of 64 64" in result.err
    assert not [file for file in Path("runs").rglob("*") if file.is_file()]


@pytest.mark.fault("image-size-a-network-refuses")
def test_another_size_than_in_training_is_refused_before_anything_is_written(
    segzoo: Segzoo, toy: Path, photos: Path
) -> None:
    network = ["--network.architecture", "pan", "--network.options", "null", "--data.size", 128, 128]
    fit = ["fit", "--method", "source-only", "--data", toy, *network, "--network.encoder", "resnet18"]
    small = segzoo(*fit[:-4], "96", "96", *fit[-2:])
    assert small.status == 2 and "96 96 (--data.size, height and width)" in small.err and small.err.count("\n") == 1
    assert segzoo(*fit, "--trainer.max_steps", 1).status == 0
    last = Path("runs/source-only/toy/default-s0/checkpoints/last.ckpt")
    scored = segzoo("test", "--ckpt_path", last, "--data.size", 64, 96)
    assert scored.status == 2 and "128 128 would fit" in scored.err and not list(last.parents[1].glob("test-*"))
    labelled = segzoo("predict", "--ckpt_path", last, *PREDICT, photos, "--size", 64, 96)
    assert labelled.status == 2 and "64 96 (--size, height and width)" in labelled.err and not Path("seen").exists()
