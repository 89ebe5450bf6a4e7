"""What a method draws is a function of the DataModule's seed and the batch."""

import lightning as L
import pytest
import torch

from segzoo.methods.segmentation import SegmentationMethod
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore")


def draws(seed: int) -> torch.Tensor:
    """What the second step of a training with the seed would draw."""
    found: list[torch.Tensor] = []

    class Draw(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
            assert isinstance(pl_module, SegmentationMethod)
            found.append(torch.rand(3, generator=pl_module.generator("latent")))

    tiny.trainer(2, callbacks=[Draw()]).fit(tiny.method("joint"), datamodule=tiny.data(seed=seed))
    return found[1]


@pytest.mark.fault("draws-without-a-seed")
def test_the_datamodules_seed_decides_and_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    zero, one = draws(0), draws(1)
    assert not torch.equal(zero, one)
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    assert torch.equal(draws(0), zero) and torch.equal(draws(1), one)
