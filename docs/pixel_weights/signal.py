"""What a pixel's slope knows, by how it is estimated: joint training on MiniCity, the slopes of fixed source images beside it.

    python -m docs.pixel_weights.signal --seeds 0-1 --out docs/pixel_weights/signal.jsonl

The slope of pixel i is -dL_T(theta')/dw_i = (alpha/N) <grad l_i(theta), grad L_T(theta')>: above zero where a step on it helps.
Estimates differ in the labelled target images behind L_T (four of those that are trained on, all of them, or as many that are
not) and in how often they were taken (in one step, or averaged over all steps so far). The areas are as in
`docs.pixel_weights.rows`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from docs.pixel_weights.marked import unmark
from docs.pixel_weights.rows import area, area_within
from docs.pixel_weights.sources import make_data, read_config
from docs.pixel_weights.study import parse_seeds, quiet_trainer
from segzoo.data.domains import ImageSet
from segzoo.data.streams import Batch, image_tensor
from segzoo.methods.metapix import MetaPix
from segzoo.runtime.quiet import be_quiet


def batch_of(images: ImageSet, indices: list[int]) -> Batch:
    """Images as they are, without augmentation."""
    labels = torch.stack([torch.from_numpy(images.label(i)).long() for i in indices])
    return {"image": torch.stack([image_tensor(images.image(i)) for i in indices]), "label": labels}


class Slopes(L.Callback):
    """Takes the slopes of the same source images every so many steps.

    Args:
        source: those images, with the mask of what is wrong.
        targets: the batches behind L_T, by name.
        every: steps from one time to the next.
    """

    def __init__(self, source: Batch, targets: dict[str, Batch], every: int) -> None:
        self.source, self.targets, self.every = source, targets, every
        self.sums: dict[str, Tensor] = {}
        self.found: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *arguments: Any) -> None:
        """Of the network after every step that counts."""
        if trainer.global_step % self.every:
            return
        tensors = self.source["image"], self.source["label"]
        for name, target in self.targets.items():
            with torch.random.fork_rng(devices=[]):
                found = pl_module._meta_gradient(*tensors, target["image"], target["label"])[0]
            slopes = -found.weights.detach()
            self.sums[name] = self.sums.get(name, torch.zeros_like(slopes)) + slopes
            for averaged, values in ((False, slopes), (True, self.sums[name])):
                self.found.append({
                    "step": trainer.global_step,
                    "target": name,
                    "averaged": averaged,
                    "auc": round(area(values, self.source), 4),
                    "auc_class": round(area_within(values, self.source, pl_module.num_classes), 4),
                    "target_loss": round(float(found.target_loss), 4),
                })  # fmt: skip


def run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One training."""
    config = read_config("minicity")
    L.seed_everything(seed, verbose=False)
    data = make_data(config, seed, arguments)
    sections = {name: config[name] for name in ("network", "optimizer", "loss")}
    # The weights stay those of an untrained network, which are 1: this is joint training.
    method = MetaPix(
        label_space=data.label_space,
        speed={"channels_last": True},
        weight_width=8,
        update="fused",
        meta_start=arguments.steps - 1,
        **sections,
    )
    made, real = data.images("source", "train"), data.images("target", "train")
    source = batch_of(made, list(range(arguments.count)))
    labelled = [int(i) for i in data._labelled_target()]
    unseen = [i for i in range(len(real)) if i not in labelled][: len(labelled)]
    targets = {"4 trained": labelled[:4], "all trained": labelled, "as many unseen": unseen}
    slopes = Slopes(
        source | unmark(source), {name: batch_of(real, those) for name, those in targets.items()}, arguments.every
    )
    quiet_trainer(arguments.steps, slopes).fit(method, data)
    return {"seed": seed, "size": list(arguments.size), "steps": arguments.steps, "slopes": slopes.found}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=parse_seeds, default=[0, 1])
    parser.add_argument("--size", type=int, nargs=2, default=[96, 160])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--count", type=int, default=16, help="source images (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.data = "minicity"
    arguments.flaws, arguments.harm, arguments.kind, arguments.labels = 1.0, 0.0, "shifted", 16
    be_quiet()
    for seed in arguments.seeds:
        with arguments.out.open("a") as file:
            file.write(json.dumps(run(seed, arguments)) + "\n")


if __name__ == "__main__":
    main()
