"""What a training step logs: the values of the whole batch, and none of an earlier step."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from segzoo.compat.training import logged_values, logs_this_step, steps_done
from segzoo.distributed import mean_across_ranks, world_size
from segzoo.floats import widest


class LoggedSteps(L.LightningModule):
    """A module whose logged values are those that one process on the whole batch would log."""

    @property
    def logs_step(self) -> bool:
        """Whether this step is logged. All ranks say the same: what is logged may be summed over them."""
        trainer: Any = self.trainer
        if world_size() == 1:
            return logs_this_step(trainer)
        step = steps_done(trainer) + 1
        return bool(trainer.log_every_n_steps > 0 and step % trainer.log_every_n_steps == 0)

    def log_means(self, values: dict[str, Tensor]) -> None:
        """Logs means over the images of a rank as means over the whole batch."""
        if world_size() == 1:
            self.log_dict(values)
        elif self.logs_step:
            means = mean_across_ranks(torch.stack([widest(value) for value in values.values()]))
            self.log_dict(dict(zip(values, means, strict=True)))

    def forget_logged(self) -> None:
        """Empties the row of a step that begins: what it does not log Lightning would write as it was last."""
        for result in logged_values(self.trainer):
            if result.meta.fx in ("training_step", "on_train_batch_end") and not result.meta.on_epoch:
                if result.is_tensor:  # of one step, which the next one replaces; a reset would wait for the device
                    result.has_reset = True
                else:
                    result.reset()
