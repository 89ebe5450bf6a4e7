"""Trains rows of the study on MiniCity, or on CARLA and CamVid, and writes a line of JSON per run.

    python -m docs.pixel_weights.study joint oracle metapix frozen --seeds 0-2 --out docs/pixel_weights/results.jsonl

Runs that the file has already are left out. Rows that use the weights of a finished `metapix` train it first.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch

from docs.pixel_weights.rows import (
    ClassMetaPix,
    ConfidentWeights,
    FixedWeights,
    WatchedMetaPix,
    learned,
    mean_one_by_class,
    mistaken,
    no_weights,
    oracle,
    threshold,
)
from docs.pixel_weights.sources import EXCHANGED, make_data, read_config
from segzoo.models.weighting import PixelWeightNet
from segzoo.runtime.quiet import be_quiet

POLE, PEDESTRIAN = 5, 8
LOW, HIGH = 0.6, 1.14
"""Mean weights of wrong and right pixels that MetaPix ends with."""
BY_CLASS = dict(enumerate((0.6, 1.36, 0.27, 3.4, 1.5, 1.6, 3.9, 3.5, 3.9)))
"""Mean weights by label of the MetaPix of seed 1, default size and steps, which knows nothing of wrong pixels (AUC 0.48)."""
FIXED: dict[str, Any] = {
    "joint": no_weights,
    "balanced": no_weights,
    "oracle": oracle(0, 1),
    "oracle-soft": oracle(LOW, HIGH),
    "oracle-square": oracle(LOW**2, HIGH**2),
    "oracle-mistaken": mistaken(0, 1, 0.2),
    "oracle-drift": oracle(LOW, HIGH, {PEDESTRIAN: 2.8, POLE: 0.3}),
    "class": oracle(1, 1, BY_CLASS),
    "oracle-class": oracle(0, 1, BY_CLASS),
}
CHANGES: dict[str, Callable[..., Any]] = {
    "frozen": lambda weights, label: weights,
    "frozen-hard": threshold(0.8),
    "frozen-class": mean_one_by_class,
}
LOSS = {"balanced": {"class_balance": 0.5}}
"""Options of the loss that a row has beside those of MiniCity."""
CONFIDENT = "confident"
METAPIX = {"metapix": WatchedMetaPix, "metapix-class": ClassMetaPix}
WINDOW = 50
"""Steps over which what was seen of the weights is averaged."""
CONDITION = ("data", "size", "steps", "labels", "flaws", "harm", "kind")
"""The options that a run is told apart by, beside its row and its seed."""


def parse_seeds(text: str) -> list[int]:
    """Of ``0-2`` or ``0,3``."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if last else [int(part) for part in text.split(",")]


def quiet_trainer(steps: int, *callbacks: L.Callback, precision: Any = "32-true") -> L.Trainer:
    """One that trains on a CPU, and neither validates, logs nor saves."""
    return L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        precision=precision,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )


def run(row: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains and scores one row; the weight network of a `metapix` row is kept beside the results."""
    config = read_config(arguments.data)
    options = config["methods"]["metapix"]["method"]
    L.seed_everything(seed, verbose=False)
    data = make_data(config, seed, arguments)
    common = {"label_space": data.label_space, **{k: config[k] for k in ("network", "optimizer", "loss")}}
    if arguments.encoder:
        common["network"] = common["network"] | {"encoder_checkpoint": str(arguments.encoder)}
    common["loss"] = common["loss"] | LOSS.get(row, {})
    common["speed"] = {"channels_last": True}
    start = time.perf_counter()
    method: Any
    if row in METAPIX:
        method = METAPIX[row](**common, **options)
    elif row == CONFIDENT:
        method = ConfidentWeights(**common)
    else:
        method = FixedWeights(**common)
        if row in FIXED:
            method.rule = FIXED[row]
        else:
            weighting = PixelWeightNet(data.label_space.num_classes, options["weight_width"])
            path = arguments.weights or kept(arguments, "metapix", seed)
            weighting.load_state_dict(torch.load(path, weights_only=True))
            method.rule = learned(weighting, CHANGES[row])
    method.found = {}
    trainer = quiet_trainer(arguments.steps, precision=arguments.precision)
    trainer.fit(method, data)
    trained = time.perf_counter() - start
    scores = {}
    trainer.limit_val_batches = 1.0
    for split, score in (("val", trainer.validate), ("test", trainer.test)):
        score(method, data, verbose=False)
        scores[split] = {
            "miou": round(100 * float(method.scores.miou), 3),
            "iou": [round(100 * float(value), 2) for value in method.scores.iou],
        }
    if row in METAPIX:
        torch.save(method.weighting.state_dict(), kept(arguments, row, seed))
    condition = {name: getattr(arguments, name) for name in CONDITION}
    return {
        "row": row,
        "seed": seed,
        **condition,
        **scores,
        "seconds": round(trained, 1),
        "seen": condense(method.found),
    }


def named(row: str, arguments: argparse.Namespace) -> str:
    """A row's name in the results; of given weights also which."""
    return f"{row}@{arguments.weights.stem}" if row in CHANGES and arguments.weights else row


def condense(found: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The means of what was seen over `WINDOW` steps each, of the classes over the last ones alone; without NaN."""
    result: dict[int, dict[str, Any]] = {}
    for start in range(0, max(found, default=-1) + 1, WINDOW):
        those = [one for step, one in found.items() if start <= step < start + WINDOW]
        result[start] = means(those)
    if result:
        classes = [one["classes"] for step, one in found.items() if step >= max(result)]
        result[max(result)]["classes"] = means(classes)
    return result


def means(those: list[dict[str, Any]]) -> dict[str, float]:
    """The mean of every number that some of them have."""
    values: dict[str, list[float]] = {}
    for one in those:
        for name, value in one.items():
            if isinstance(value, int | float) and not math.isnan(value):
                values.setdefault(name, []).append(value)
    return {name: round(sum(numbers) / len(numbers), 4) for name, numbers in values.items()}


def kept(arguments: argparse.Namespace, row: str, seed: int) -> Path:
    """Where the weight network of a run lies."""
    folder: Path = arguments.keep
    folder.mkdir(parents=True, exist_ok=True)
    condition = "-".join(str(getattr(arguments, name)) for name in CONDITION)
    return folder / f"{row}-{condition}-s{seed}.pt"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", choices=[*FIXED, *CHANGES, *METAPIX, CONFIDENT])
    parser.add_argument("--seeds", type=parse_seeds, default=[0, 1, 2])
    parser.add_argument("--data", choices=list(EXCHANGED), default="minicity")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder of carla and camvid")
    parser.add_argument("--encoder", type=Path, help="file of the encoder's ImageNet weights, for photographs")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--size", type=int, nargs=2, default=[96, 160], help="of the images; of photographs, the crops")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--labels", type=int, default=16)
    parser.add_argument("--flaws", type=float, default=1.0)
    parser.add_argument("--harm", type=float, default=0.0)
    parser.add_argument("--kind", choices=["shifted", "exchanged"], default="shifted")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="weight network of frozen rows (default: the same seed's)")
    parser.add_argument("--keep", type=Path, default=Path("runs/pixel_weights"))
    arguments = parser.parse_args()
    be_quiet()
    keys = ("row", "seed", *CONDITION)
    lines = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    done = [[json.loads(line)[key] for key in keys] for line in lines]
    for seed in arguments.seeds:
        for row in arguments.rows:
            if [named(row, arguments), seed, *(getattr(arguments, name) for name in CONDITION)] in done:
                continue
            found = run(row, seed, arguments)
            with arguments.out.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(row, seed, found["val"]["miou"], found["test"]["miou"], f"{found['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
