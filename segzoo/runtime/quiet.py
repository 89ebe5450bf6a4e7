"""Silences what Lightning says and a user of the command cannot act on."""

import logging
import sys
import warnings
from collections.abc import Callable

NOT_ACTIONABLE = (
    r".*does not have many workers",  # set by the data's YAML; more workers do not help on two cores
    r".*`?srun`? command is available",
    r".*Checkpoint directory .* exists and is not empty",  # resuming
    r".*You're resuming from a checkpoint that ended before the epoch ended",  # epochs have no end here
    r".*Using `DistributedSampler` with the dataloaders",  # evaluation shards exactly, without padding
    r".*is recommended to use `self.log\(.*sync_dist",  # the confusion matrix is already the sum over ranks
    r".*Due to class_path change",  # one data set replaced by another, on purpose
    r".*Total length of .* across ranks is zero",  # a val split without masks
    r".*Found \d+ module\(s\) in eval mode at the start of training",  # teachers and frozen encoders
    r"Image size .* could be decompression bomb",  # PIL's, of a large photograph; it refuses those of twice that size
    r"`torch.jit.script` is deprecated",
    r".*isinstance\(treespec, LeafSpec\)` is deprecated",
)


def be_quiet(spell: Callable[[str], str] = str) -> None:
    """Keeps Lightning's warnings, drops its notices and the warnings of `NOT_ACTIONABLE`.

    Args:
        spell: how a warning is written for whoever reads it.
    """
    import lightning  # noqa: F401  sets the levels of its loggers when it is imported

    # After Lightning, which has a format of its own: source lines help nobody who types a command.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {spell(' '.join(str(message).split()))}\n"
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    sys.unraisablehook = _without_loaders
    for message in NOT_ACTIONABLE:
        warnings.filterwarnings("ignore", message=message)


def _without_loaders(unraisable: "sys.UnraisableHookArgs") -> None:
    # A loader that could not start its processes complains again, without effect, when it is taken down.
    if "DataLoaderIter" not in getattr(unraisable.object, "__qualname__", ""):
        sys.__unraisablehook__(unraisable)
