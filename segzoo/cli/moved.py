"""Options of earlier versions: what they are called now. Free of torch."""

from collections.abc import Mapping, Sequence
from typing import Any

MOVED_COMMANDS = {"prepare": "data convert"}
NETWORK = ("architecture", "encoder", "encoder_weights", "encoder_checkpoint", "initial_checkpoint", "norm")
OPTIMIZER = (
    "lr",
    "head_lr_factor",
    "weight_decay",
    "decay_norms",
    "schedule",
    "schedule_steps",
    "poly_power",
    "warmup_steps",
)
SPEED = ("compile", "channels_last", "cuda_graph", "keep_outputs", "micro_batches")
DATA = (
    "rare_class_temperature",
    "rare_class_min_share",
    "rare_class_min_crop_ratio",
    "ignore_top",
    "ignore_bottom",
)
MOVED = {
    **{
        name: f"{section}.{name}"
        for section, names in (("network", NETWORK), ("optimizer", OPTIMIZER), ("speed", SPEED), ("data", DATA))
        for name in names
    },
    "segmenter_options": "network.options",
    "optimizer": "optimizer.name",
    "source_mean": "method.pixel_mean",
    "meta_split": "method.held_out",
    "weight_norm": "method.normalize",
    "weight_decay_weights": "method.weight_net_decay",
    "matched": "method.scope",
    "annotator_weight_decay": "method.annotator_decay",
    "ema_decay": "method.pseudo.ema_decay",
    "ema_buffers": "method.pseudo.ema_buffers",
    "threshold": "method.pseudo.threshold",
    "pseudo_weight": "method.pseudo.weight",
    "reference_classes": "method.night.classes",
    "reference_weight": "method.night.weight",
    "reference_threshold": "method.night.threshold",
    "class_balance": "method.night.class_balance",
    "test_class_balance": "method.night.test_class_balance",
    "class_frequencies": "method.night.frequencies",
    "regularizer_sign": "the sign of method.regularizer_weight",
}
"""By the name in the section that was called ``model`` in files and ``--method`` on the command line."""


def moved(option: str) -> str | None:
    """Where an option of ``--method.``, or of the former section ``model``, is now; None for one that is not known.

    Args:
        option: e.g. ``--method.encoder`` or ``model.encoder``.
    """
    section, _, name = option.lstrip("-").partition(".")
    return MOVED.get(name.partition(".")[0]) if section in ("method", "model") else None


def explain_section(content: Any) -> str:
    """The line for a file that has a section ``model``."""
    names = list(content) if isinstance(content, Mapping) else []
    if not names:
        places = "'network', 'optimizer', 'loss', 'speed', 'data' and 'method'"
        return f"the section 'model' is gone: its options are in {places} now"
    now = [f"'model.{name}' is '{MOVED.get(str(name), f'method.{name}')}' now" for name in names]
    return f"the section 'model' is gone: {', '.join(now)}"


def explain_unlabelled(splits: Sequence[Any]) -> str:
    """The line for a list in an option that names a folder now."""
    listed = ", ".join(map(str, splits))
    return f"expected a folder of photographs, found [{listed}]; 'splits_without_masks: [{listed}]' is for splits"
