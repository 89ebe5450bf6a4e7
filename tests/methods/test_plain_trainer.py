"""Methods and data with a Trainer as Lightning makes it, and several trainings in one process."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from segzoo.data import MiniCity
from segzoo.errors import ConfigError
from segzoo.methods import JointTraining
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore")
QUIET: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


def trained(slug: str, trainer: L.Trainer, seed: int = 0, **data_options: Any) -> dict[str, Tensor]:
    """The weights after a training with a seed."""
    L.seed_everything(seed, verbose=False)
    method = tiny.method(slug)
    trainer.fit(method, tiny.data(**data_options))
    return {name: value.clone() for name, value in method.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_nothing_but_a_length_is_needed(tmp_path: Path) -> None:
    plain = L.Trainer(max_steps=3, default_root_dir=tmp_path, **QUIET)
    assert equal(trained("joint", plain), trained("joint", tiny.trainer(3)))
    assert plain.checkpoint_callback.best_model_path.endswith("epoch=0-step=3.ckpt")


def test_a_plain_trainer_continues_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    whole = trained("self-training", L.Trainer(max_steps=4, default_root_dir=tmp_path / "a", **QUIET))
    stopped = L.Trainer(max_steps=4, default_root_dir=tmp_path / "b", callbacks=[StopAfter(2)], **QUIET)
    trained("self-training", stopped)
    assert stopped.global_step == 2
    method, path = tiny.method("self-training"), stopped.checkpoint_callback.best_model_path
    again = L.Trainer(max_steps=4, default_root_dir=tmp_path / "c", **QUIET)
    again.fit(method, tiny.data(), ckpt_path=path, weights_only=True)
    assert again.global_step == 4 and equal(method.state_dict(), whole)


class StopAfter(L.Callback):
    """Ends a training after so many steps, in which its schedule goes on."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        trainer.should_stop = trainer.global_step >= self.steps


def test_several_trainings_in_one_process_do_not_touch_each_other() -> None:
    alone = trained("joint", tiny.trainer(2))
    for slug in ("metapix", "self-training", "gradient-annotator"):
        trained(slug, tiny.trainer(1), seed=3)
    assert equal(trained("joint", tiny.trainer(2)), alone)


def test_networks_that_are_built_after_a_training_differ_as_without_one() -> None:
    L.seed_everything(0, verbose=False)
    space, drawn = MiniCity("target", size=tiny.SIZE).label_space, []
    for _ in range(3):
        method = JointTraining(label_space=space, network=tiny.NETWORK)
        drawn.append(method.segmenter.state_dict()["network.segmentation_head.0.weight"].clone())
        tiny.trainer(1).fit(method, tiny.data())
    torch.manual_seed(0)
    for weight in drawn:
        method = JointTraining(label_space=space, network=tiny.NETWORK)
        assert torch.equal(method.segmenter.state_dict()["network.segmentation_head.0.weight"], weight)


def test_data_can_be_used_again() -> None:
    data, found = tiny.data(), []
    for seed in (0, 1, 0):
        L.seed_everything(seed, verbose=False)
        method = tiny.method("joint")  # of the same weights each time: what differs is what it is trained on
        tiny.trainer(2).fit(method, data)
        found.append(method.state_dict())
    assert equal(found[0], found[2]) and not equal(found[0], found[1])


def test_the_seed_is_that_of_seed_everything_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    data, given = tiny.data(), tiny.data(seed=7)
    assert (data.seed, given.seed) == (0, 7)
    L.seed_everything(5, verbose=False)  # after the data
    assert (data.seed, given.seed) == (5, 7)
    one = trained("joint", tiny.trainer(2), seed=5)
    L.seed_everything(1, verbose=False)
    method = tiny.method("joint")
    tiny.trainer(2).fit(method, tiny.data(seed=5))
    assert equal(one, method.state_dict())
    for wrong in (-1, 2**32):
        with pytest.raises(ConfigError, match=r"`data.seed` -?\d+: expected 0 to 4294967295"):
            tiny.data(seed=wrong)


def test_scores_are_at_hand_after_a_test() -> None:
    method, data, trainer = tiny.method("joint"), tiny.data(), tiny.trainer(1)
    trainer.fit(method, data)
    (logged,) = trainer.test(method, data, verbose=False)
    assert method.scores.miou == pytest.approx(logged["test/miou"])
    assert method.scores.iou["road"] == pytest.approx(logged["test/iou/road"])
    assert str(method.scores).splitlines()[-1].startswith("pixel accuracy")


@pytest.mark.fault("plain-trainer-of-several-processes")
@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_a_trainer_of_several_processes_does_not_divide_the_images_twice(stage: str) -> None:
    data = tiny.data()
    connector = SimpleNamespace(use_distributed_sampler=True)
    data.trainer = SimpleNamespace(world_size=2, _accelerator_connector=connector)  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="create the Trainer with use_distributed_sampler=False"):
        data.setup(stage)
