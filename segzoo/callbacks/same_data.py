"""A continued training goes on with the images and classes that it began with, and on the schedule that it has now."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import lightning as L

from segzoo.data.domains import Domain
from segzoo.data.several import SeveralDomains
from segzoo.errors import CheckpointError

KEY = "segzoo_data"
WHAT = {
    "images": "the {0} images (number or names)",
    "unlabelled": "the unlabelled {0} images (number or names)",
    "classes": "the class map of the {0} masks",
}


class SameData(L.Callback):
    """Puts into checkpoints what the data was, and refuses to continue with another.

    The configuration names folders and label spaces; what lies behind these names may change between two starts. Batch t
    is a function of (seed, t) and of the list of images, and a class map decides what a mask's ids mean.
    """

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}
        self._now: dict[str, Any] = {}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remembers what the checkpoint says; one of an earlier version says nothing."""
        self._before = checkpoint.get(KEY) or {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compares, and computes the learning rates of the first step.

        Raises:
            CheckpointError: other images, or a class map that reads masks differently.
        """
        self._now = _identity(trainer, pl_module)
        for domain, found in self._now.items():
            for what, value in found.items():
                if self._before.get(domain, {}).get(what, value) != value:
                    raise CheckpointError(
                        f"{WHAT[what].format(domain)} changed since the run began: a continued run needs the same; put them "
                        "back, or begin a new run at its weights with `network.initial_checkpoint` instead of continuing it"
                    )
        # The checkpoint has the rates of a schedule whose end may have moved; on the same schedule they are equal to the bit.
        for config in trainer.lr_scheduler_configs if trainer.global_step else ():
            scheduler: Any = config.scheduler
            groups = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            for group, rate, factor in groups:
                group["lr"] = rate * factor(scheduler.last_epoch)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds it."""
        checkpoint[KEY] = self._now


def _identity(trainer: Any, module: Any) -> dict[str, dict[str, str]]:
    """Hashes by domain, of those domains that the method learns from."""
    found: dict[str, dict[str, str]] = {}
    for domain in sorted({stream.domain for stream in module.streams.values()}):
        found[domain] = {"images": _hash(trainer.datamodule.images(domain, "train").names)}
        further = trainer.datamodule.further_images() if domain == "target" else None
        if further is not None:
            found[domain]["unlabelled"] = _hash(further.names)
        maps = [getattr(one, "class_map", None) for one in _domains(getattr(trainer.datamodule, domain))]
        digests = [class_map.digest() for class_map in maps if class_map is not None]
        if digests:
            found[domain]["classes"] = digests[0] if len(digests) == 1 else _hash(digests)
    return found


def _domains(domain: Domain) -> Iterable[Domain]:
    return domain.domains.values() if isinstance(domain, SeveralDomains) else [domain]


def _hash(names: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()
