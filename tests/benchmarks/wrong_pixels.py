"""Do a run's weights know MiniCity's wrong source pixels? Weights of trained checkpoints against the mask of what is wrong.

    segzoo fit --method metapix
    python -m tests.benchmarks.wrong_pixels runs/metapix/minicity/default-s0/checkpoints/last.ckpt

One line per checkpoint, over the first 32 source images: the mean weight of wrong and of right pixels, and the area under
the ROC curve of "a right pixel weighs more than a wrong one" (0.5: the weights do not know), for region selection that of
every level's score as well. ``--json`` keeps them by row and seed of a study, with the last ``auc/...`` and ``score/...`` of
each run's ``metrics.csv``: how well the discriminators tell the domains apart, and what they think of the source.
"""

import argparse
import json
from pathlib import Path

import torch
from torchmetrics.functional.classification import binary_auroc

from segzoo.data.minicity.sets import generate
from segzoo.data.streams import Batch, image_tensor
from segzoo.evaluation.history import read_history
from segzoo.inference import load_checkpoint
from segzoo.methods.segmentation import valid_pixels
from segzoo.runtime.quiet import be_quiet


def source(count: int) -> tuple[Batch, torch.Tensor]:
    """The first source images, as a batch, and the mask (N, H, W) of what is wrong with them."""
    images = generate("source", 0, count)
    batch = {
        "image": torch.stack([image_tensor(images.image(i)) for i in range(count)]),
        "label": torch.stack([torch.from_numpy(images.label(i)).long() for i in range(count)]),
    }
    return batch, torch.stack([torch.from_numpy(images.wrong(i)) for i in range(count)])


@torch.no_grad()
def measure(path: Path, whole: Batch, wrong: torch.Tensor, batch_size: int = 4) -> dict[str, float]:
    """What a checkpoint's weights know, for source images and the mask of what is wrong with them.

    Returns:
        ``wrong`` and ``right``: mean weights; ``AUC`` of the weights, and ``AUC NAME`` of every map of scores.
    """
    method, _ = load_checkpoint(path, "cpu")
    maps: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(wrong), batch_size):
        batch = {name: value[start : start + batch_size] for name, value in whole.items()}
        for name, value in method.panel_maps(batch).items():
            maps.setdefault(name, []).append(value)
    if "weight" not in maps:
        raise SystemExit(f"{path}: '{method.slug}' has no weights")
    valid = valid_pixels(whole["label"])
    weight, wrong = torch.cat(maps.pop("weight"))[valid], wrong[valid]
    areas = {"AUC": weight} | {
        f"AUC {name}": torch.cat(parts)[valid] for name, parts in maps.items() if name.endswith("score")
    }
    found = {"wrong": weight[wrong].mean(), "right": weight[~wrong].mean()}
    found |= {name: binary_auroc(value, (~wrong).long()) for name, value in areas.items()}
    return {name: round(float(value), 4) for name, value in found.items()}


def run_of(path: Path) -> dict[str, object]:
    """Row and seed of a study's checkpoint (OUT/ROW/METHOD/DATA/NAME-sSEED/checkpoints/last.ckpt), and its last AUCs."""
    folder = path.resolve().parents[1]
    history = read_history(folder / "metrics.csv")
    last = {name: round(float(values[-1]), 4) for name, (_, values) in history.items()}
    domains = {name: value for name, value in last.items() if name.startswith(("auc/", "score/"))}
    return {"row": folder.parents[2].name, "seed": int(folder.name.rpartition("-s")[2]), "domains": domains}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="last.ckpt of runs with weights")
    parser.add_argument("--count", type=int, default=32, help="source images (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file to write what was measured to")
    arguments = parser.parse_args()
    be_quiet()
    images, mask = source(arguments.count)
    kept = []
    for checkpoint in arguments.checkpoints:
        found = measure(checkpoint, images, mask)
        print(f"{checkpoint}: {', '.join(f'{name} {value:.2f}' for name, value in found.items())}", flush=True)
        if arguments.json:
            kept.append(run_of(checkpoint) | {"weights": found})
            lines = ",\n".join(json.dumps(one) for one in kept)
            arguments.json.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
