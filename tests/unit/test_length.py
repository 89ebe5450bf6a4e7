"""Batch t is a function of (seed, t), whatever cuts a training into pieces; and a training has an end."""

import copy
import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from segzoo.data import Stream
from segzoo.errors import ConfigError
from segzoo.methods.length import check_start, first_step
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore")
PLAIN = {"source": Stream("source"), "target": Stream("target", labelled=False)}
RARE = {"source": Stream("source", by_class=True)}


class Reader(L.LightningModule):
    """Notes which images come, and how they were cropped."""

    def __init__(self, streams: dict[str, Stream]) -> None:
        super().__init__()
        self.streams = streams
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: dict[int, Any] = {}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        number = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed
        assert number not in self.seen
        self.seen[number] = [(name, part["name"], part["image"].double().sum().item()) for name, part in batch.items()]
        return self.weight.square()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=0.1)


class SaveAt(L.Callback):
    """Saves after a batch, as `LastCheckpoint` does, and stops there."""

    def __init__(self, batches: int, path: Path) -> None:
        self.batches, self.path = batches, path

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.total.processed == self.batches:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


class StopAt(L.Callback):
    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.total.processed >= self.batches:
            trainer.should_stop = True


DATA = tiny.data(batch_size=3)


def read(
    streams: dict[str, Stream],
    total: int,
    stop: int,
    path: Path,
    first: dict[str, Any],
    then: dict[str, Any],
    **data: Any,
) -> dict[int, Any]:
    """What ``total`` batches hold, with an interruption after ``stop`` of them."""
    # The images are drawn once; a DataModule of its own for every run.
    modules = [copy.copy(DATA) if not data else tiny.data(batch_size=3, **data) for _ in range(2)]
    reader = Reader(streams)
    tiny.trainer(1000, callbacks=[SaveAt(stop, path)], **first).fit(reader, datamodule=modules[0])
    assert sorted(reader.seen) == list(range(stop))
    if stop < total:
        tiny.trainer(1000, callbacks=[StopAt(total)], **then).fit(
            reader, datamodule=modules[1], ckpt_path=path, weights_only=True
        )
    return reader.seen


LIMITS = st.one_of(st.none(), st.integers(1, 9))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, Any]]:
    path = tmp_path_factory.mktemp("whole") / "c.ckpt"
    return {name: read(streams, 12, 12, path, {}, {}) for name, streams in (("plain", PLAIN), ("rare", RARE))}


@pytest.mark.fault("epochs-of-two-batches")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["plain", "rare"]),
    first=LIMITS,
    then=LIMITS,
    stop=st.integers(1, 12),
    accumulate=st.integers(1, 3),
    reload=st.booleans(),
    validate=st.one_of(st.none(), st.integers(1, 5)),
)
def test_neither_epochs_nor_interruptions_change_a_batch(
    kind: str,
    first: int | None,
    then: int | None,
    stop: int,
    accumulate: int,
    reload: bool,
    validate: int | None,
    whole: dict[str, dict[int, Any]],
    tmp_path: Path,
) -> None:
    common: dict[str, Any] = {"accumulate_grad_batches": accumulate, "reload_dataloaders_every_n_epochs": int(reload)}
    if validate:
        common |= {"limit_val_batches": 1, "num_sanity_val_steps": 0, "check_val_every_n_epoch": None}
        common["val_check_interval"] = validate
    options = [common | {"limit_train_batches": limit or 1.0} for limit in (first, then)]
    streams = {"plain": PLAIN, "rare": RARE}[kind]
    assert read(streams, 12, stop, tmp_path / "c.ckpt", *options) == whole[kind]


@pytest.mark.fault("epochs-of-two-batches")
@pytest.mark.parametrize("stop", [4, 5])  # in the middle of an epoch, at its end
def test_nor_do_batches_that_workers_fetched_in_advance(
    stop: int, whole: dict[str, dict[int, Any]], tmp_path: Path
) -> None:
    limits = {"limit_train_batches": 5}
    found = read(PLAIN, 12, stop, tmp_path / "c.ckpt", limits, limits, num_workers=2)
    assert found == whole["plain"]


@pytest.mark.fault("overfit-batches")
def test_overfitting_repeats_the_first_batches(whole: dict[str, dict[int, Any]], tmp_path: Path) -> None:
    found = read(PLAIN, 8, 5, tmp_path / "c.ckpt", {"overfit_batches": 3}, {"overfit_batches": 3})
    assert found == {number: whole["plain"][number % 3] for number in range(8)}


def test_a_dry_run_sees_the_first_batches(whole: dict[str, dict[int, Any]]) -> None:
    reader = Reader(PLAIN)
    tiny.trainer(1000, fast_dev_run=2).fit(reader, datamodule=copy.copy(DATA))
    assert reader.seen == {number: whole["plain"][number] for number in range(2)}


def test_two_trainings_with_one_datamodule_begin_alike(whole: dict[str, dict[int, Any]], tmp_path: Path) -> None:
    module = copy.copy(DATA)
    for steps in (3, 2):
        reader = Reader(PLAIN)
        tiny.trainer(steps).fit(reader, datamodule=module)
        assert reader.seen == {number: whole["plain"][number] for number in range(steps)}


def fit(slug: str = "joint", method: dict[str, Any] | None = None, **options: Any) -> L.Trainer:
    trainer = tiny.trainer(options.pop("max_steps", 4), **options)
    trainer.fit(tiny.method(slug, **(method or {})), datamodule=copy.copy(DATA))
    return trainer


@pytest.mark.fault("epochs-without-end")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 3}, r"max_epochs` 3 counts epochs.* no end; use `trainer.max_steps` N.*limit_train_batches"),
        ({"max_epochs": 3, "max_steps": -1}, r"`trainer.max_epochs` 3 counts epochs"),
        ({"max_epochs": 0}, r"`trainer.max_epochs` 0 counts epochs"),
        ({"min_epochs": 2}, r"min_epochs` 2 counts.*`trainer.min_steps`"),
        ({"check_val_every_n_epoch": 5}, r"check_val_every_n_epoch` 5 counts.*`trainer.val_check_interval`"),
        ({"reload_dataloaders_every_n_epochs": 1}, r"reload_dataloaders_every_n_epochs` 1 counts.*leave it out"),
        ({"limit_train_batches": 0.5}, r"`trainer.limit_train_batches` 0.5: training batches have no end"),
        ({"overfit_batches": 0.25}, r"`trainer.overfit_batches` 0.25: training batches have no end"),
    ],
)
def test_what_counts_epochs_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(**options)


@pytest.mark.fault("epochs-without-end")
@pytest.mark.filterwarnings("default")
def test_a_validation_that_never_comes_is_announced(recwarn: pytest.WarningsRecorder) -> None:
    fit(max_steps=1, limit_val_batches=1)
    assert any("no validation during the training" in str(warning.message) for warning in recwarn)
    recwarn.clear()
    fit(max_steps=1, limit_val_batches=1, val_check_interval=1)
    fit(max_steps=1)
    assert not any("no validation" in str(warning.message) for warning in recwarn)


@pytest.mark.fault("training-without-end")
@pytest.mark.parametrize("options", [{}, {"max_epochs": -1}, {"max_epochs": -1, "limit_train_batches": 2}])
def test_a_training_that_nothing_ends_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"nothing would end this training: give it `trainer.max_steps`"):
        fit(max_steps=-1, **options)


@pytest.mark.fault("training-without-end")
def test_epochs_with_a_length_end_it(whole: dict[str, dict[int, Any]]) -> None:
    trainer = fit(max_steps=-1, max_epochs=2, limit_train_batches=3, accumulate_grad_batches=2, min_steps=1)
    assert trainer.global_step == 4 and trainer.fit_loop.epoch_loop.batch_progress.total.processed == 6


@pytest.mark.fault("schedule-without-length")
def test_a_schedule_needs_a_length() -> None:
    with pytest.raises(ConfigError, match=r"`optimizer.schedule` poly falls to 0 at the last step and nobody knows it"):
        fit(max_steps=-1, max_time="00:01:00:00")
    for options in ({"schedule": "constant"}, {"schedule_steps": 10}):
        assert fit(max_steps=-1, max_time="00:00:00:00", method=options).global_step <= 1


@pytest.mark.fault("schedule-without-length")
def test_the_schedule_ends_with_the_epochs() -> None:
    trainer = fit(max_steps=-1, max_epochs=2, limit_train_batches=2, method={"lr": 0.5, "poly_power": 1.0})
    assert trainer.global_step == 4 and trainer.optimizers[0].param_groups[0]["lr"] == 0


@pytest.mark.parametrize(
    ("start", "steps", "first"),
    [
        (0, None, 0),
        (7, None, 7),
        (7.0, 500, 7),
        (1, 500, 1),
        (0.1, 500, 50),
        (0.08, 500, 40),
        (0.999, 3, 3),
        (0.5, None, None),
    ],
)
def test_a_start_is_a_step_or_a_share(start: float, steps: int | None, first: int | None) -> None:
    assert first_step(start, steps) == first


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (-0.1, "`method.x` -0.1: expected 0 or more"),
        (2.5, "`method.x` 2.5: expected the number of a step, or a share of the training below 1"),
        (float("nan"), "`method.x` nan: expected 0 or more"),
        (0.1, "`method.x` 0.1 is a share of the training and nobody knows how long it is: give `trainer.max_steps`"),
    ],
)
def test_what_is_no_start(start: float, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_start("`method.x`", start, None)
