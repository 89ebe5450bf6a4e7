"""The optimiser of a method: which one, how fast each part learns, and how the rate falls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import LambdaLR

from segzoo.checks import check_range
from segzoo.compat.tensors import leave_scaling_to_scaler
from segzoo.models.segmenter import Segmenter
from segzoo.options import check_values


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How the networks of a method learn.

    Args:
        name: Chooses the algorithm: adamw, adam, or sgd with momentum 0.9.
        lr: Sets the learning rate of the network at the start of the schedule.
        head_lr_factor: Multiplies the learning rate of all layers after the encoder; 10 is usual for a pretrained encoder.
        weight_decay: Sets the weight decay of the network.
        decay_norms: Applies the weight decay also to biases and norms, that is, to one-dimensional parameters.
        schedule: Chooses how the learning rate changes: poly lowers it to 0 at the last step, constant keeps it.
        schedule_steps: Sets the length of the schedule in steps, if it differs from the training; some published trainings stop
            before their schedule ends.
        poly_power: Sets the exponent of the poly schedule; 1 is a straight line.
        warmup_steps: Raises the learning rate linearly from about 0 during this number of first steps.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 1e-3
    head_lr_factor: float = 1.0
    weight_decay: float = 1e-4
    decay_norms: bool = True
    schedule: Literal["poly", "constant"] = "poly"
    schedule_steps: int | None = None
    poly_power: float = 0.9
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: a number outside its range, a choice that there is not.
        """
        check_values(type(self).__init__, vars(self), "optimizer")
        check_range("`optimizer.warmup_steps`", self.warmup_steps, 0)
        check_range("`optimizer.poly_power`", self.poly_power, 0)
        check_range("`optimizer.lr`", self.lr, 0)
        check_range("`optimizer.head_lr_factor`", self.head_lr_factor, 0)
        check_range("`optimizer.weight_decay`", self.weight_decay, 0)
        if self.schedule_steps is not None:
            check_range("`optimizer.schedule_steps`", self.schedule_steps, 1)

    @property
    def head_lr(self) -> float:
        """The learning rate of everything behind the encoder."""
        return self.lr * self.head_lr_factor

    def groups_of(self, segmenter: Segmenter) -> list[dict[str, Any]]:
        """The parameter groups of a segmenter: encoder and head, norms apart where they are not decayed."""
        parts: dict[tuple[str, float, float], list[nn.Parameter]] = {}
        for name, p in segmenter.parameters_of("all").items():
            behind = self.head_lr_factor != 1 and not name.startswith("network.encoder.")
            decayed = self.decay_norms or p.ndim > 1
            part = "segmenter" + " behind the encoder" * behind + ", norms" * (not decayed)
            lr = self.head_lr if behind else self.lr
            parts.setdefault((part, lr, self.weight_decay if decayed else 0.0), []).append(p)
        return [parameter_group(name, params, lr, decay) for (name, lr, decay), params in parts.items()]

    def create(self, groups: Sequence[dict[str, Any]], fused: bool = False) -> torch.optim.Optimizer:
        """The optimiser of these groups.

        Args:
            groups: each from `parameter_group`.
            fused: step through many tensors in one kernel.
        """
        options: dict[str, Any] = {"fused": True} if fused else {}
        if self.name == "sgd":
            optimizer: torch.optim.Optimizer = SGD(list(groups), lr=self.lr, momentum=0.9, **options)
        else:
            optimizer = {"adamw": AdamW, "adam": Adam}[self.name](list(groups), lr=self.lr, **options)
        if fused:
            leave_scaling_to_scaler(optimizer)
        return optimizer

    def scheduler(self, optimizer: torch.optim.Optimizer, factor: Callable[[int], float]) -> LambdaLR:
        """The rate of every group by step; groups whose ``schedule`` is False keep theirs.

        Args:
            optimizer: what `create` returned.
            factor: of the rate by step.
        """
        groups = optimizer.param_groups
        return LambdaLR(optimizer, [factor if group["schedule"] else lambda step: 1.0 for group in groups])

    def factor(self, length: int | None) -> Callable[[int], float]:
        """The factor of the learning rate by step, for so many steps; None where nobody knows."""
        steps = self.schedule_steps or length

        def factor(step: int) -> float:
            warm = 1.0
            if step < self.warmup_steps:
                warm = 1 - (1 - step / self.warmup_steps) * (1 - 1e-6)
            if self.schedule == "constant" or not steps:
                return warm
            return float(warm * (1 - min(step, steps) / steps) ** self.poly_power)

        return factor


def parameter_group(
    name: str, params: nn.Module | list[nn.Parameter], lr: float, weight_decay: float, schedule: bool = True
) -> dict[str, Any]:
    """One parameter group of the optimiser.

    Args:
        name: what messages and logs call it.
        params: its parameters, or a module whose trainable ones these are.
        lr: its learning rate.
        weight_decay: its weight decay.
        schedule: whether its rate follows the schedule.

    Raises:
        ConfigError: a negative learning rate or weight decay.
    """
    check_range(f"the learning rate of the {name}", lr, 0)
    check_range(f"the weight decay of the {name}", weight_decay, 0)
    if isinstance(params, nn.Module):
        params = [p for p in params.parameters() if p.requires_grad]
    return {"name": name, "params": params, "lr": lr, "weight_decay": weight_decay, "schedule": schedule}
