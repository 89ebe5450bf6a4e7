"""How fast training images are read, from large files and from their copy by `segzoo data prepare`.

    python -m tests.benchmarks.loading --images 64 --workers 0,2

Draws street-like images of 1920x1080, or of --shape (smooth areas, edges, noise), as PNG, as simulators write them, or as JPEG,
with masks of 19 classes, copies them, and reads both as a training does: decoding, crop, resizing, mirror, colours. With --step
a step of deeplabv3plus takes its turn, too, and the share of the time that it waits for data is printed.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from PIL import Image
from torch.utils.data import DataLoader

from segzoo.cli.data_options import build_data, read_invocation
from segzoo.cli.main import main as segzoo
from segzoo.data import DomainDataModule
from segzoo.data.streams import Stream, StreamDataset, collate
from segzoo.data.transforms import CropRule
from segzoo.data.workers import start_worker
from segzoo.models.network import Network

CLASSES, BATCH = 19, 2


def draw(folder: Path, count: int, suffix: str, shape: tuple[int, int] = (1080, 1920)) -> None:
    """Images and masks of polygons, blurred a little and noisy."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        rng = np.random.default_rng(i)
        mask = np.zeros(shape, np.uint8)
        for _ in range(60):
            centre, spread = rng.uniform(0, 1, 2) * shape[::-1], rng.uniform(30, 400)
            corners = (centre + rng.normal(0, spread, (6, 2))).astype(np.int32)
            cv2.fillPoly(mask, [corners], int(rng.integers(CLASSES)))
        colours = rng.integers(30, 220, (CLASSES, 3))[mask].astype(np.float32)
        image = cv2.GaussianBlur(colours, (0, 0), 1.0) + rng.normal(0, 4, (*shape, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{i:04}{suffix}", quality=92)
        Image.fromarray(mask).save(folder / "masks" / f"{i:04}.png")


def describe(root: Path, size: tuple[int, int]) -> Path:
    """The YAML of the large images."""
    colours = np.random.default_rng(0).permutation(200)[:CLASSES]
    space = {"name": "many", "classes": {f"c{i}": [int(colours[i]) + 1, 10 * i + 1, 99] for i in range(CLASSES)}}
    (root / "space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    part = {"images": "large/images", "masks": "large/masks", "label_space": "space.yaml"}
    domain = {"class_path": "segzoo.data.PairedFolders", "init_args": part}
    content = {
        "name": "large",
        "root": str(root),
        "size": list(size),
        "num_workers": 0,
        "source": domain,
        "target": domain,
    }
    (root / "large.yaml").write_text(yaml.safe_dump({"data": content}))
    return root / "large.yaml"


def loader(data: DomainDataModule, workers: int, draws: int) -> DataLoader[Any]:
    """The loader of a training's source stream, with an end."""
    images = data.images("source", "train")
    transform = data._train_transform(Stream("source"))
    dataset = StreamDataset(images, range(len(images)), transform, 0, "source", True, False, CropRule())
    keys = [(draw // len(images), draw % len(images)) for draw in range(draws)]
    batches = [keys[i : i + BATCH] for i in range(0, draws, BATCH)]
    return DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, collate_fn=collate, worker_init_fn=start_worker
    )


def images_per_second(data: DomainDataModule, workers: int, draws: int) -> float:
    """Without the first batch, before which processes start."""
    batches = iter(loader(data, workers, draws))
    next(batches)
    began = time.perf_counter()
    count = sum(len(batch["name"]) for batch in batches)
    return count / (time.perf_counter() - began)


def waiting(data: DomainDataModule, workers: int, draws: int) -> float:
    """The share of a training's time that it waits for data."""
    torch.manual_seed(0)
    network = Network(architecture="deeplabv3plus", encoder="resnet18", encoder_weights=None).build(CLASSES)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    batches: Iterator[Any] = iter(loader(data, workers, draws))
    next(batches)
    waited, began = 0.0, time.perf_counter()
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
        if batch is None:
            return waited / (time.perf_counter() - began)
        loss = torch.nn.functional.cross_entropy(network(batch["image"]), batch["label"], ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> None:
    """Draws, copies and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--draws", type=int, default=128)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512))
    parser.add_argument("--shape", type=int, nargs=2, default=(1080, 1920), help="height and width of the images")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--suffix", choices=[".png", ".jpg"], default=".png")
    parser.add_argument("--workers", default="0,1,2")
    parser.add_argument("--step", action="store_true")
    args = parser.parse_args()
    cv2.setNumThreads(0)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        draw(root / "large", args.images, args.suffix, tuple(args.shape))
        large = describe(root, tuple(args.size))
        began = time.perf_counter()
        assert segzoo(["data", "prepare", str(large), "--out", str(root / "copy")]) == 0
        print(f"copied in {time.perf_counter() - began:.1f} s")
        found: dict[str, Any] = {"settings": vars(args) | {"json": None}}
        for name, file in (("as they are", large), ("prepared", root / "copy" / "data.yaml")):
            data = build_data(read_invocation(str(file), []))
            for workers in map(int, args.workers.split(",")):
                speed = images_per_second(data, workers, args.draws)
                line, row = f"{name:12} {workers} workers: {speed:6.1f} images/s", {"images_per_second": speed}
                if args.step:
                    row["waiting"] = waiting(data, workers, args.draws)
                    line += f", {100 * row['waiting']:.0f} % of a training waits for data"
                print(line, flush=True)
                found[f"{name}, {workers} workers"] = row
                if args.json:
                    args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
