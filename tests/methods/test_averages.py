"""Moving averages of a network follow the steps of the optimiser, in closed form."""

from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from segzoo.methods.gan import GAN
from segzoo.methods.mean_teacher import MeanTeacher
from tests import tiny

DECAY = 0.4


def averaged(method: L.LightningModule) -> tuple[nn.Module, nn.Module]:
    """What is averaged, and the average."""
    if isinstance(method, GAN):
        return method.network, method.average.network
    assert isinstance(method, MeanTeacher)
    return method.student(), method.teacher.network


class Watch(L.Callback):
    """The parameters before every step of the optimiser."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == len(self.seen):
            network = averaged(pl_module)[0]
            self.seen.append({name: p.detach().clone() for name, p in network.named_parameters()})


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("slug", ["self-training", "semi-supervised", "ssda", "sepico", "gan"])
def test_an_average_moves_once_per_step_of_the_optimiser(slug: str, batches: int) -> None:
    watch = Watch()
    options: dict[str, Any] = {"callbacks": [watch], "accumulate_grad_batches": batches}
    decay: dict[str, Any] = {"ema_decay": DECAY} if slug == "gan" else {"pseudo": {"ema_decay": DECAY}}
    trained = tiny.fit(slug, 4, trainer_options=options, **decay)
    expected = watch.seen[0]
    for t, current in enumerate(watch.seen[1:], start=1):
        a = min(1 - 1 / (t + 1), DECAY)
        expected = {name: a * p + (1 - a) * current[name] for name, p in expected.items()}
    assert len(watch.seen) == 4
    for name, p in averaged(trained)[1].named_parameters():
        torch.testing.assert_close(p, expected[name], rtol=1e-5, atol=1e-7, msg=name)
    last = watch.seen[-1]
    assert any((expected[name] - last[name]).abs().max() > 1e-5 for name in last), "it follows, and is not the student"
