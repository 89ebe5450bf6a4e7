"""Watches whether self-training unlearns a class: the shares of pseudo labels and predictions beside those of the labels."""

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, Literal, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from segzoo.callbacks.progress import total_steps
from segzoo.callbacks.publish import publish
from segzoo.callbacks.shown import SharesClasses
from segzoo.compat.training import accumulates, steps_done
from segzoo.distributed import mean_across_ranks
from segzoo.evaluation.collapse import Floats, flooding, heard, least_width, swallowing, vanishing
from segzoo.evaluation.share_plots import shares_figure
from segzoo.floats import widest

METRICS = {"pseudo labels": "share/pseudo/", "predictions": "share/predicted/"}
PRIOR = "prior"
LIMIT = 1024
"""Measurements that are kept; where there are more, each two become one."""
FIRST_FIGURE = 16
"""Measurements of the first figure; the next ones have twice as many each."""

Fault = Literal["lost", "takes all", "too much"]
THRESHOLD = "pseudo.threshold"
REMEDIES: dict[str, tuple[str, Any]] = {
    "pseudo.alignment": ("`method.pseudo.alignment` 1 (keeps the classes' shares)", 1),
    "image_weighting": ("`method.image_weighting` true (rare classes count more)", True),
    "pseudo.start": ("a later `method.pseudo.start`", None),
    "target_start": ("a later `method.target_start`", None),
    THRESHOLD: (f"a lower `method.{THRESHOLD}`", 0),
    "target_weight": ("a smaller `method.target_weight`", 0),
}
"""What helps, by the option of a method, and the value of that option with which it is done already."""


class CollapseWatch(L.Callback):
    """Follows the shares of the classes on unlabelled target images, and warns once per class when one is lost.

    A network that learns from its own labels repeats its mistakes: a class that it labels too rarely it will label more
    rarely. The module's ``class_shares`` are read every ``log_every_n_steps`` (`segzoo.callbacks.shown.SharesClasses`), logged
    as ``share/pseudo/<class>`` and ``share/predicted/<class>``, drawn as ``figures/class_shares.png`` and compared with the
    shares in the labels that are learned from, their mean over all steps so far. `segzoo.evaluation.collapse.vanishing` says
    when a class counts as lost. A module without such shares is left alone.

    The history is a part of checkpoints. Several processes see the means of their shares, for one collective per logged step;
    training is the same with and without this callback.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.path = Path(run_dir) / "figures" / "class_shares.png"
        self._steps: dict[str, list[int]] = {}
        self._shares: dict[str, list[Floats]] = {}
        self._prior: Floats | None = None
        self._priors = 0
        self._warned: dict[str, str] = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes the shares of a step that is logged."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        step = steps_done(trainer) + 1
        if not every or step % every or accumulates(trainer):
            return
        found = _over_ranks(getattr(pl_module, "class_shares", {}))
        if (prior := found.pop(PRIOR, None)) is not None:
            before = 0.0 if self._prior is None else self._prior * self._priors
            self._prior = (before + prior) / (self._priors + 1)
            self._priors += 1
        classes = cast(SharesClasses, pl_module).label_space.classes if found else ()
        for kind, shares in found.items():
            self._note(kind, step, shares)
            pl_module.log_dict({f"{METRICS[kind]}{c}": float(v) for c, v in zip(classes, shares, strict=True)})
        alarms = [self._alarm(trainer, pl_module, kind, classes) for kind in found]
        count = max(map(len, self._steps.values()), default=0)
        doubled = count >= FIRST_FIGURE and count & (count - 1) == 0
        if any(alarms) or (found and doubled):
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws the whole course."""
        self._draw(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The history, in tensors and plain types."""
        return {
            "steps": {kind: torch.tensor(steps) for kind, steps in self._steps.items()},
            "shares": {kind: torch.from_numpy(np.stack(shares)) for kind, shares in self._shares.items()},
            "prior": None if self._prior is None else torch.from_numpy(self._prior.copy()),
            "priors": self._priors,
            "warned": dict(self._warned),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with it."""
        self._steps = {kind: steps.tolist() for kind, steps in state_dict["steps"].items()}
        self._shares = {kind: list(shares.cpu().numpy()) for kind, shares in state_dict["shares"].items()}
        prior = state_dict["prior"]
        self._prior, self._priors = None if prior is None else prior.cpu().numpy(), state_dict["priors"]
        self._warned = dict(state_dict["warned"])

    def _note(self, kind: str, step: int, shares: Floats) -> None:
        steps, values = self._steps.setdefault(kind, []), self._shares.setdefault(kind, [])
        steps.append(step)
        values.append(shares)
        if len(steps) > LIMIT:
            even = len(steps) // 2 * 2
            pairs = np.stack(values[:even]).reshape(even // 2, 2, -1).mean(axis=1)
            self._steps[kind] = steps[1:even:2] + steps[even:]
            self._shares[kind] = [*pairs, *values[even:]]

    def _alarm(self, trainer: L.Trainer, module: L.LightningModule, kind: str, classes: tuple[str, ...]) -> bool:
        """Whether there was one; all ranks decide alike."""
        steps = np.array(self._steps[kind])
        part = heard(steps, total_steps(trainer))
        if part is None or self._prior is None:
            return False
        steps, shares = steps[part], np.stack(self._shares[kind])[part]
        least, warned = least_width(steps), len(self._warned)
        faults: dict[Fault, dict[int, float]] = {
            "lost": vanishing(shares, self._prior, least),
            "takes all": swallowing(shares, self._prior, least),
            "too much": flooding(shares, self._prior, least),
        }
        for fault, found in faults.items():
            for c, share in found.items():
                if classes[c] not in self._warned:
                    self._warned[classes[c]] = f"{fault} at step {steps[-1]}"
                    text = _sentence(kind, classes[c], share, float(self._prior[c]), fault)
                    rank_zero_warn(f"{text}{_remedies(module.hparams, kind, fault)}")
        return len(self._warned) > warned

    def _draw(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not trainer.is_global_zero or self._prior is None or not self._steps:
            return
        classes = cast(SharesClasses, module).label_space.classes
        series = {kind: (np.array(steps), np.stack(self._shares[kind])) for kind, steps in self._steps.items()}
        publish(trainer, shares_figure(classes, self._prior, series, self._warned), self.path, "class_shares")


def _over_ranks(shares: Mapping[str, Tensor]) -> dict[str, Floats]:
    """The means over the ranks, divided by their sums; without those that are zeros everywhere."""
    known = {name: value for name, value in shares.items() if name == PRIOR or name in METRICS}
    if not known:
        return {}
    means = mean_across_ranks(torch.stack([widest(value.detach()) for value in known.values()])).cpu().double().numpy()
    return {name: row / row.sum() for name, row in zip(known, means, strict=True) if row.sum() > 0}


def _sentence(kind: str, name: str, share: float, prior: float, fault: Fault) -> str:
    shares = f"{_percent(share)} of the target's pixels, {_percent(prior)} of the labels that are learned from"
    if fault == "too much":
        return f"the {kind} call much {name}: {shares}; where the target does not hold so much, the network learns wrong ones"
    if fault == "lost":
        return f"the {kind} lose {name}: {shares}; the network will unlearn it"
    return f"the {kind} call nearly everything {name}: {shares}; the network will unlearn the other classes"


def _remedies(options: Mapping[str, Any], kind: str, fault: Fault) -> str:
    """What to do, with the options that the method has."""
    known = {option: reduce(_entry, option.split("."), options) for option in REMEDIES}
    found = [
        text
        for option, (text, done) in REMEDIES.items()
        if known[option] is not None
        and (done is None or known[option] != done)
        # To be sure of fewer pixels does not help where one class is too sure of all, nor to count rare ones more.
        and (option != THRESHOLD or (fault == "lost" and kind == "pseudo labels"))
        and (option != "image_weighting" or fault != "too much")
    ]
    if not found:
        return ""
    return f". Try {' or '.join(found)}" if len(found) < 3 else f". Try {', '.join(found[:-1])}, or {found[-1]}"


def _entry(options: Any, name: str) -> Any:
    return options.get(name) if isinstance(options, Mapping) else None


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 or share == 0 else "less than 0.1 %"
