"""What the losses of labelled pixels cost: time of a training step as a multiple of the step with plain cross-entropy.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.losses [--classes 9 19] [--rounds 8] [--json FILE]

A step is the forward pass, the loss and the backward pass of the default network for photographs (FPN on EfficientNet-Lite0),
on random images with labels in patches. The losses take turns of one step, and time is processor time: other programs may run
beside it.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segzoo.losses import dice_loss, lovasz_loss, pixel_cross_entropy
from segzoo.models.network import Network

LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross-entropy": lambda logits, label, weight: pixel_cross_entropy(logits, label).mean(),
    "class weights": lambda logits, label, weight: pixel_cross_entropy(logits, label, class_weight=weight).mean(),
    "focal": lambda logits, label, weight: pixel_cross_entropy(logits, label, focal=2.0).mean(),
    "+ Dice": lambda logits, label, weight: pixel_cross_entropy(logits, label).mean() + dice_loss(logits, label),
    "+ Lovász": lambda logits, label, weight: pixel_cross_entropy(logits, label).mean() + lovasz_loss(logits, label),
}


def seconds(classes: int, rounds: int, batch: int, size: tuple[int, int]) -> dict[str, float]:
    """The median time of a step by loss."""
    torch.manual_seed(0)
    network = Network(architecture="fpn", encoder="tu-tf_efficientnet_lite0", encoder_weights=None).build(classes)
    image = torch.randn(batch, 3, *size)
    patches = torch.randint(0, classes, (batch, 1, size[0] // 16, size[1] // 16)).float()
    label = interpolate(patches, size).squeeze(1).long()
    weight = torch.rand(classes)
    found: dict[str, list[float]] = {name: [] for name in LOSSES}
    for turn in range(rounds + 1):
        for name, loss in LOSSES.items():
            begun = time.process_time()
            loss(network(image), label, weight).backward()
            if turn:  # the first turn warms up
                found[name].append(time.process_time() - begun)
    return {name: median(values) for name, values in found.items()}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[9, 19])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=[192, 256], metavar=("H", "W"))
    parser.add_argument("--json", type=Path, help="file to write the seconds to")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept: dict[str, object] = {"settings": vars(args) | {"json": None, "torch": torch.__version__}}
    for classes in args.classes:
        found = seconds(classes, args.rounds, args.batch, (args.size[0], args.size[1]))
        kept[f"{classes} classes"] = found
        base = found["cross-entropy"]
        print(f"{classes} classes, {base:.2f} s:", ", ".join(f"{name} {t / base:.2f}" for name, t in found.items()))
        if args.json:
            args.json.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
