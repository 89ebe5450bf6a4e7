"""The nearest known name, for error messages."""

import difflib
from collections.abc import Iterable
from pathlib import Path

SYNONYMS = {
    "accumulate": "accumulate_grad_batches",
    "amp": "precision",
    "arch": "architecture",
    "backbone": "encoder",
    "batch": "batch_size",
    "bs": "batch_size",
    "bsize": "batch_size",
    "checkpoint": "ckpt_path",
    "ckpt": "ckpt_path",
    "clip": "gradient_clip_val",
    "clip_grad": "gradient_clip_val",
    "conf": "config",
    "cfg": "config",
    "dataset": "data",
    "data_dir": "root",
    "data_root": "root",
    "decoder_options": "options",
    "default_root_dir": "runs",
    "device": "devices",
    "encoder_name": "encoder",
    "epoch": "max_steps",
    "epochs": "max_steps",
    "experiment": "name",
    "exp_name": "name",
    "fp16": "precision",
    "gpu": "devices",
    "gpus": "devices",
    "grad_clip": "gradient_clip_val",
    "image_size": "size",
    "img_size": "size",
    "imgsz": "size",
    "iterations": "max_steps",
    "iters": "max_steps",
    "labels": "target_labels",
    "learning_rate": "lr",
    "logging": "logger",
    "lr_rate": "lr",
    "max_epochs": "max_steps",
    "max_iter": "max_steps",
    "max_iters": "max_steps",
    "model": "method",
    "n_gpus": "devices",
    "num_epochs": "max_steps",
    "num_gpus": "devices",
    "num_iters": "max_steps",
    "num_steps": "max_steps",
    "out_dir": "out",
    "output": "out",
    "output_dir": "out",
    "pretrained": "encoder_weights",
    "resolution": "size",
    "resume": "ckpt_path",
    "resume_from": "ckpt_path",
    "run_name": "name",
    "save_every": "checkpoint_steps",
    "save_dir": "runs",
    "scheduler": "schedule",
    "step": "max_steps",
    "steps": "max_steps",
    "val_interval": "val_check_interval",
    "warmup": "warmup_steps",
    "wd": "weight_decay",
    "weights": "encoder_weights",
    "work_dir": "runs",
    "worker": "num_workers",
    "workers": "num_workers",
}
"""What other programs call an option: the last part of its name here. A name that exists here is never looked up."""
FIRST = ("", "method", "optimizer", "network", "loss", "data", "protocol", "trainer", "speed")
"""Sections in the order in which an option of that name is looked for."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence to append to "unknown ..." messages: the nearest known name, else all of them, or the first of many."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    shown = known if len(known) <= 40 else [*known[:20], f"... ({len(known)} in all)"]
    return f"; known: {', '.join(shown)}" if known else ""


def did_you_mean_folder(folder: Path, root: Path | None = None) -> str:
    """A sentence to append to "does not exist": the folder of the nearest name beside the missing one, if one is near.

    Args:
        folder: that does not exist, or one below that.
        root: that the sentence leaves out at the beginning of the folder.
    """
    above = next((parent for parent in folder.parents if parent.is_dir()), None)
    if above is None or folder.exists():
        return ""
    missing, *below = folder.relative_to(above).parts
    try:
        names = {path.name.lower(): path.name for path in above.iterdir() if path.is_dir() and path.name[0] != "."}
    except OSError:
        return ""
    near = difflib.get_close_matches(missing.lower(), names, n=1, cutoff=0.5)
    if not near:
        return ""
    meant = above / names[near[0]]
    if meant.joinpath(*below).is_dir():
        meant = meant.joinpath(*below)
    return f"; did you mean '{meant.relative_to(root) if root and meant.is_relative_to(root) else meant}'?"


def nearest_option(option: str, known: Iterable[str]) -> str | None:
    """The option that was probably meant: spelled with other dashes, of another section, under another name, or mistyped.

    Args:
        option: what was typed, e.g. ``--max-steps``.
        known: all options, e.g. ``--trainer.max_steps``.
    """
    names = {_plain(name): name for name in known}
    plain = _plain(option)
    section, _, leaf = plain.rpartition(".")
    if plain in names:
        return names[plain]
    meant = SYNONYMS.get(leaf, leaf)
    meant = "runs" if meant == "out" and "out" not in names else meant
    if meant != leaf and f"{section}.{meant}" in names:
        return names[f"{section}.{meant}"]
    longer = [name for name in names if name.startswith(plain)]
    if len(longer) == 1:
        return names[longer[0]]
    for wanted in (leaf, meant):
        there = [name for name in names if name.rpartition(".")[2] == wanted]
        if there:
            return names[min(there, key=_order)]
    # Options of the same section first: 'wieght' of a method is no option of the trainer.
    inside = [name for name in names if name.rpartition(".")[0] == section]
    leaves = {name.rpartition(".")[2]: name for name in sorted(names, key=_order, reverse=True)}
    for candidates, cutoff in ((inside, 0.8), (leaves, 0.8), (inside, 0.6), (list(names), 0.6)):
        typed = leaf if candidates is leaves else plain
        if near := difflib.get_close_matches(typed, candidates, n=1, cutoff=cutoff):
            return names[leaves[near[0]] if candidates is leaves else near[0]]
    return None


def _plain(option: str) -> str:
    return option.lstrip("-").replace("-", "_").lower()


def _order(name: str) -> tuple[int, int, str]:
    section = name.rpartition(".")[0]
    return (FIRST.index(section) if section in FIRST else len(FIRST), len(name), name)
