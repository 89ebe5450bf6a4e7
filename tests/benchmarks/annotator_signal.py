"""Does gradient matching know which class a generated pixel shows? The slopes of training against the labels of an oracle.

    segzoo fit --method source-only --data minifaces --trainer.max_steps 800          # the oracle: 3000 labelled faces
    python -m tests.benchmarks.annotator_signal runs/source-only/minifaces/default-s0/checkpoints/last.ckpt
    python -m tests.benchmarks.annotator_signal ... --options '{scope: decoder, metric: cosine, whiten: false}'

A step moves the annotator's logit of class c at pixel i by y_ic (sum_k y_ik V_ik - V_ic), V = dD/dy. Printed per class is the
area under the ROC curve of the bracket: pixels that the oracle calls c against all others. 0.5 says nothing, 1 is the truth.
Beside it are the IoU of the annotator's labels with the oracle's, the mean of y_c, and the share of the class by the oracle.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from segzoo.configs import config_path
from segzoo.data import DomainDataModule, MiniFaces
from segzoo.evaluation import Scores
from segzoo.inference import read_checkpoint
from segzoo.methods.gradient_annotator import GradientAnnotator
from segzoo.methods.registry import load_method, method_defaults
from segzoo.methods.segmentation import SegmentationMethod
from segzoo.runtime.quiet import be_quiet
from tests import tiny


class Watched(GradientAnnotator):
    """Remembers what the slopes of a step say, and what they should."""

    oracle: SegmentationMethod

    def to_input(self, image: Tensor, size: Any) -> Tensor:
        self.image = super().to_input(image, size)
        return self.image

    def annotate(self, sample: Any, size: Any) -> Tensor:
        self.logits = super().annotate(sample, size)
        return self.logits

    def watch(self, real_loss: Tensor, loss: Tensor, distance: Tensor, slope: Tensor, *norms: Tensor) -> None:
        super().watch(real_loss, loss, distance, slope, *norms)
        y, truth = self.logits.detach().softmax(dim=1), self.oracle(self.image).argmax(dim=1)
        wish = (y * slope).sum(dim=1, keepdim=True) - slope
        classes = range(self.num_classes)
        area = [binary_auroc(wish[:, c].flatten(), (truth == c).flatten()) for c in classes if (truth == c).any()]
        matrix = torch.stack([((truth == a) & (y.argmax(1) == b)).sum() for a in classes for b in classes])
        self.seen.append(
            (torch.stack(area) if len(area) == len(classes) else None, matrix, y.mean((0, 2, 3)), real_loss)
        )

    seen: list[Any]


class Report(L.Callback):
    """A line per class, every some steps."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.areas: dict[str, float] = {}

    def on_train_batch_end(self, trainer: L.Trainer, method: Any, *_: Any) -> None:
        if trainer.global_step % self.every:
            return
        areas, matrices, means, losses = zip(*method.seen, strict=True)
        method.seen.clear()
        names, count = method.label_space.classes, method.num_classes
        matrix = torch.stack(matrices).sum(0).view(count, count)
        scores, shares = Scores(matrix.numpy(), names), matrix.sum(1).double() / matrix.sum()
        area, mean = torch.stack([a for a in areas if a is not None]).mean(0), torch.stack(means).mean(0)
        self.areas = {name: round(value, 4) for name, value in zip(names, area.tolist(), strict=True)}
        print(f"to step {trainer.global_step}: labelled loss {float(torch.stack(losses).mean()):.3f}", flush=True)
        for name, auc, iou, y, share in zip(
            names, area.tolist(), scores.iou, mean.tolist(), shares.tolist(), strict=True
        ):
            line = f"AUC {auc:.2f}   IoU {100 * iou:5.1f} %   mean y {100 * y:5.1f} %   oracle {100 * share:5.1f} %"
            print(f"    {name:12} {line}", flush=True)


def sections(slug: str, data: str) -> dict[str, dict[str, Any]]:
    """What a method's own YAML and that of a data set say of the method, network, optimiser and speed."""
    preset = yaml.safe_load(config_path("data", data).read_text())
    found: dict[str, dict[str, Any]] = {name: {} for name in ("method", "network", "optimizer", "speed")}
    for layer in (method_defaults(slug), preset, preset.get("methods", {}).get(slug, {})):
        for name, section in found.items():
            section |= layer.get(name, {})
    return found


def main() -> None:
    """Trains an annotator and watches it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("oracle", type=Path, help="checkpoint of a segmenter that knows the truth")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--options", type=yaml.safe_load, default={}, help="options of the method, as YAML")
    parser.add_argument("--json", type=Path, help="file to add the last areas to, by options")
    args = parser.parse_args()
    be_quiet()
    L.seed_everything(0, verbose=False)
    learner = load_method(str(read_checkpoint(args.oracle)["method"]))
    oracle = learner.load_from_checkpoint(args.oracle, map_location="cpu", weights_only=True)
    options = sections("gradient-annotator", "minifaces")
    method = Watched(label_space=oracle.label_space, **(options.pop("method") | args.options), **options)
    method.seen = []
    object.__setattr__(
        method, "oracle", oracle.eval().requires_grad_(False)
    )  # no part of the method: nothing trains it
    data = DomainDataModule(
        MiniFaces(seed=1, train=3000),
        MiniFaces(),
        size=(64, 64),
        batch_size=8,
        target_labels=10,
        num_workers=0,
        crop_scale=(0.8, 1.0),
    )
    report = Report(args.every)
    tiny.trainer(args.steps, callbacks=[report]).fit(method, datamodule=data)
    if args.json:
        kept = json.loads(args.json.read_text(encoding="utf-8")) if args.json.exists() else {}
        kept[yaml.safe_dump(args.options, default_flow_style=True, width=1000).strip()] = report.areas
        args.json.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
