"""Ends a training between two steps when a signal asks for it."""

from typing import Any

import lightning as L
import torch
import torch.distributed as dist

from segzoo.callbacks.checkpoint import LastCheckpoint
from segzoo.compat.training import accumulates, ignore_sigterm
from segzoo.nonblocking import Fetched, sent
from segzoo.stopping import Stopped, StopRequest


class Interruption(L.Callback):
    """Stops all processes after the same step, with a checkpoint from which the run continues bit for bit.

    The signal may come to one process or to all, at different moments of different steps. At the end of every step the
    processes therefore ask each other, in one all-reduce of a number: the answer is the same on all of them, whatever they
    were doing. They read it at the end of the next step, so that no host waits for its GPU. (Lightning broadcasts within the
    signal's handler, in the middle of whatever else the processes exchange, and hangs; its handler for SIGTERM is taken out,
    that for SLURM's requeueing stays.) An evaluation is cut short; its scores are dropped, and one during training is made
    good when the run goes on.

    Args:
        request: what the signals' handlers note.
    """

    def __init__(self, request: StopRequest) -> None:
        self.request = request
        self._pending: Fetched | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Before Lightning installs its handlers, which call those that are there."""
        ignore_sigterm(trainer)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on signals wait for the end of a step."""
        self.request.patient = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Before the first step."""
        self._stop_if_asked(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Between two steps; not between the batches of one."""
        if accumulates(trainer):
            return
        if trainer.world_size == 1:
            self._stop(trainer, self.request.signum or 0, step_ends=True)
            return
        self._stop(trainer, self._answer(), step_ends=True)
        self._pending = _ask(trainer, self.request.signum)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """After the last step."""
        self._stop_if_asked(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Signals are handled where they come, until the test begins."""
        self.request.patient = False

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluations look for themselves; none begins where the answer to the last step's question says stop."""
        self.request.patient = True
        self._stop(trainer, self._answer())

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluations look for themselves."""
        self.request.patient = True
        self._stop_if_asked(trainer)

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Cuts the evaluation short: the loop takes this for the end of the data."""
        if self.request.signum is not None:
            raise StopIteration

    def on_test_batch_end(self, *_: Any, **__: Any) -> None:
        """The same."""
        self.on_validation_batch_end()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """All processes come here, those that were cut short and the others, before they add up what they have."""
        self._stop_if_asked(trainer)

    on_test_epoch_end = on_validation_epoch_end

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """The end has begun."""
        self.request.ending = True

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        if trainer.world_size == 1:
            self._stop(trainer, self.request.signum or 0)
            return
        self._stop(trainer, self._answer())
        self._pending = _ask(trainer, self.request.signum)
        self._stop(trainer, self._answer())

    def _answer(self) -> int:
        """The signal that this or another process had got when they last asked each other, 0 if none had."""
        pending, self._pending = self._pending, None
        return int(pending.read()) if pending else 0

    def _stop(self, trainer: L.Trainer, signum: int, step_ends: bool = False) -> None:
        if not signum:
            return
        checkpoint = trainer.checkpoint_callback
        training = trainer.state.fn == "fit" and trainer.global_step and not trainer.sanity_checking
        if training and isinstance(checkpoint, LastCheckpoint):
            checkpoint.save(trainer, step_ends=step_ends)
        self.request.ending = True
        raise Stopped(self.request.signum or signum)


def _ask(trainer: L.Trainer, signum: int | None) -> Fetched:
    """The largest signal that any process has got, 0 for none, on its way."""
    number = sent(torch.tensor(signum or 0), trainer.strategy.root_device)
    dist.all_reduce(number, dist.ReduceOp.MAX)
    return Fetched(number)
