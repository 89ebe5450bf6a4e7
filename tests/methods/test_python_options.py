"""Options in Python: a wrong name or value is refused, as on the command line, and never trains as something else."""

from typing import Any

import numpy as np
import pytest

from segzoo.errors import ConfigError
from segzoo.methods import (
    JointTraining,
    Loss,
    MetaPix,
    Network,
    Optimizer,
    RegionSelection,
    SelfTraining,
    SePiCo,
    Speed,
)
from tests import tiny

WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (MetaPix, {"weights": "online"}, "`method.weights` 'online': expected one of pixel, image"),
    (MetaPix, {"normalize": "sotfmax"}, "expected one of none, mean1, softmax; did you mean 'softmax'?"),
    (MetaPix, {"update": "papr"}, "did you mean 'paper'?"),
    (JointTraining, {"pixel_mean": "al"}, "`method.pixel_mean` 'al'"),
    (JointTraining, {"weight": "0.5"}, "`method.weight` '0.5': expected a number"),
    (SePiCo, {"contrast": "dst"}, "did you mean 'dist'?"),
    (SePiCo, {"projection_hidden": 2.5}, "expected a whole number or None"),
    (SelfTraining, {"running_statistics": "target_"}, "did you mean 'target'?"),
    (SelfTraining, {"pseudo": {"ema_buffers": 1}}, "expected True or False"),
    (
        SelfTraining,
        {"night": {"weigth": 0.8}},
        "`method.night.weigth`: there is no such option; did you mean 'weight'?",
    ),
    (RegionSelection, {"levels": ("pixel", "regoin")}, "a list of one of pixel, region, image"),
    (RegionSelection, {"combination": "product"}, "did you mean 'prod'?"),
    (JointTraining, {"optimizer": {"name": "lion"}}, "`optimizer.name` 'lion': expected one of adamw, adam, sgd"),
    (JointTraining, {"optimizer": {"schedule": "cosine"}}, "`optimizer.schedule` 'cosine'"),
    (JointTraining, {"optimizer": "sgd"}, "`optimizer` 'sgd': expected Optimizer(...) or a dictionary"),
    (JointTraining, {"network": "resnet18"}, "`network` 'resnet18': expected Network(...)"),
    (
        JointTraining,
        {"network": {"encder": "resnet18"}},
        "`network.encder`: there is no such option; did you mean 'encoder'?",
    ),
    (JointTraining, {"network": {"norm": "grup"}}, "did you mean 'group'?"),
    (JointTraining, {"loss": {"overlap": "lovas"}}, "did you mean 'lovasz'?"),
    (JointTraining, {"loss": {"focl": 2.0}}, "`loss.focl`: there is no such option; did you mean 'focal'?"),
    (JointTraining, {"speed": {"compile": "yes"}}, "`speed.compile` 'yes': expected True or False"),
    (JointTraining, {"label_space": ["a", "b"]}, "expected that of the data"),
]


@pytest.mark.fault("option-misspelt-in-python")
@pytest.mark.parametrize(("cls", "options", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_no_option_is_refused(cls: Any, options: dict[str, Any], message: str) -> None:
    settings = {"label_space": tiny.data().label_space, "network": tiny.NETWORK}
    with pytest.raises(ConfigError) as error:
        cls(**(settings | options))
    assert message in str(error.value)


@pytest.mark.parametrize("make", [Network, Optimizer, Loss, Speed])
def test_dataclasses_refuse_by_themselves(make: Any) -> None:
    wrong = {Network: {"norm": "grup"}, Optimizer: {"lr": "fast"}, Loss: {"focal": "2"}, Speed: {"micro_batches": 1.5}}[
        make
    ]
    with pytest.raises(ConfigError, match="expected"):
        make(**wrong)


def test_numbers_of_numpy_are_numbers() -> None:
    settings: dict[str, Any] = {"label_space": tiny.data().label_space, "network": tiny.NETWORK}
    JointTraining(weight=np.float32(0.5), **settings)
    SePiCo(bank_length=np.int64(3), projection_dim=4, **settings)
