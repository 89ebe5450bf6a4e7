"""A training that diverges leaves a checkpoint whose every number is finite, and names it."""

import re
from pathlib import Path

import lightning as L
import pytest
import torch

from segzoo.callbacks import LastCheckpoint
from segzoo.errors import NonFiniteLossError
from segzoo.models.state_dicts import non_finite
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.fault("diverged-step")
@pytest.mark.parametrize("slug", tiny.METHODS)
def test_the_good_checkpoint_stays(slug: str, tmp_path: Path) -> None:
    options = {"callbacks": [LastCheckpoint(tmp_path, every_n_steps=1)], "enable_checkpointing": True}
    message = ""
    try:
        tiny.fit(slug, steps=8, lr=1e6, trainer_options=options)
    except NonFiniteLossError as error:
        message = str(error)
    files = sorted((tmp_path / "checkpoints").iterdir())
    assert files and all(path.suffix == ".ckpt" for path in files)
    for path in files:
        saved = torch.load(path, weights_only=True)
        states = {str(i): state for i, state in enumerate(saved["optimizer_states"])}
        assert non_finite({**saved["state_dict"], **states}) is None, path
    if message:
        named = re.search(r"(?:the last good checkpoint is|before this step are in) (\S+\.ckpt)", message)
        assert named and Path(named[1]).is_file(), message


class Spoil(L.Callback):
    """Makes a buffer infinite, as the forward pass of a diverging step does."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if trainer.global_step == 3:
            next(b for n, b in pl_module.named_buffers() if n.endswith("running_var"))[0] = torch.inf


@pytest.mark.fault("diverged-step")
def test_a_spoiled_state_never_replaces_a_checkpoint(tmp_path: Path) -> None:
    options = {"callbacks": [Spoil(), LastCheckpoint(tmp_path, every_n_steps=1)], "enable_checkpointing": True}
    path = tmp_path / "checkpoints" / "last.ckpt"
    match = rf"diverged: 'segmenter\S+running_var' is not finite after step 3; the last good checkpoint is {path}, of step 2"
    with pytest.raises(NonFiniteLossError, match=match):
        tiny.fit("joint", steps=5, trainer_options=options)
    assert torch.load(path, weights_only=True)["global_step"] == 2
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]
