"""Do a run's weights know MiniCity's wrong source pixels? Weights of trained checkpoints against the mask of what is wrong.

    segzoo fit --method metapix
    python -m tests.benchmarks.wrong_pixels runs/metapix/minicity/default-s0/checkpoints/last.ckpt

One line per checkpoint, over the first 32 source images: the mean weight of wrong and of right pixels, and the area under
the ROC curve of "a right pixel weighs more than a wrong one" (0.5: the weights do not know), for region selection that of
every level's score as well.
"""

import argparse
from pathlib import Path

import torch
from torchmetrics.functional.classification import binary_auroc

from segzoo.data.minicity.sets import generate
from segzoo.data.streams import Batch, image_tensor
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
def report(path: Path, whole: Batch, wrong: torch.Tensor, batch_size: int = 4) -> str:
    """The line of one checkpoint, for source images and the mask of what is wrong with them."""
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
    areas = {"": weight} | {
        f" {name}": torch.cat(parts)[valid] for name, parts in maps.items() if name.endswith("score")
    }
    text = ", ".join(f"AUC{name} {binary_auroc(value, (~wrong).long()):.2f}" for name, value in areas.items())
    return f"{path}: wrong {weight[wrong].mean():.2f}, right {weight[~wrong].mean():.2f}, {text}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="last.ckpt of runs with weights")
    parser.add_argument("--count", type=int, default=32, help="source images (default: %(default)s)")
    arguments = parser.parse_args()
    be_quiet()
    images, mask = source(arguments.count)
    for checkpoint in arguments.checkpoints:
        print(report(checkpoint, images, mask), flush=True)
