"""Time and memory of a large photograph, whole, in windows and in several views, through `segzoo predict` and `segzoo test`.

    python -m tests.benchmarks.large_images --checkpoint runs/.../last.ckpt --size 3000 4096 --device cpu

Trains nothing: without --checkpoint it makes one of 19 classes with random weights, whose time and memory are those of any
other. Every row is a process of its own; its memory is the largest that the system counted, beside the memory of a process
that labels a small image, which is Python, torch and the network.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROWS = {
    "small image": [],
    "resized": ["--size", "512", "704"],
    "windows": ["--protocol.input", "native", "--protocol.window", "512", "512"],
    **{
        f"windows, {count} at once": [
            *("--protocol.input", "native", "--protocol.window", "512", "512"),
            *("--batch_size", str(count)),
        ]
        for count in (1, 4, 8)
    },
    "windows, mean": ["--protocol.input", "native", "--protocol.window", "512", "512", "--protocol.blend", "mean"],
    "windows of 1024": ["--protocol.input", "native", "--protocol.window", "1024", "1024", "--batch_size", "2"],
    "windows, confidence": [
        *("--protocol.input", "native", "--protocol.window", "512", "512"),
        *("--confidence", "--probabilities"),
    ],
    "windows, flips": ["--protocol.input", "native", "--protocol.window", "512", "512", "--protocol.flips", "true"],
    "windows, 3 scales": [
        *("--protocol.input", "native", "--protocol.window", "512", "512"),
        *("--protocol.scales", "0.75", "1", "1.25"),
    ],
    "whole": ["--protocol.input", "native"],
    "test, windows": ["--protocol.input", "native", "--protocol.window", "512", "512"],
    "test, windows, flips": [
        *("--protocol.input", "native", "--protocol.window", "512", "512"),
        *("--protocol.flips", "true"),
    ],
}
"""Options of `segzoo predict`, or of `segzoo test`, by the name of the row."""


def main() -> None:
    """Measures the rows that are asked for, and prints a line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="of `segzoo fit`; without it one with random weights")
    parser.add_argument("--size", type=int, nargs=2, default=(3000, 4096), metavar=("H", "W"), help="of the photograph")
    parser.add_argument("--device", default="cpu", help="of the network")
    parser.add_argument(
        "--rows", nargs="+", default=["small image", "resized", "windows"], choices=[*ROWS], help="which"
    )
    parser.add_argument("--command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.command:
        _measure(args.command)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        checkpoint = args.checkpoint or _untrained(root)
        for name, size in (("large", args.size), ("small", (64, 64))):
            (root / name).mkdir()
            # Noise of large grains: a photograph of noise would take its time to write, and that of one colour none.
            coarse = np.random.default_rng(0).integers(0, 256, (size[0] // 16, size[1] // 16, 3), np.uint8)
            Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC).save(root / name / "image.jpg")
        data = _labelled(root, (args.size[0], args.size[1]))
        for row in args.rows:
            photographs = root / ("small" if row == "small image" else "large")
            out = root / row.replace(" ", "-")
            call = ["--ckpt_path", checkpoint, "--out", out, *ROWS[row]]
            if row.startswith("test"):
                accelerator = "cpu" if args.device == "cpu" else "gpu"
                call = ["test", *call, "--data", data, "--trainer.accelerator", accelerator, "--data.num_workers", "0"]
            else:
                call = ["predict", *call, "--input", photographs, "--device", args.device]
            words = [sys.executable, "-m", "tests.benchmarks.large_images", "--command", *map(str, call)]
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                print(json.dumps({"row": row, "error": done.stderr.strip().splitlines()[-1]}), flush=True)
                continue
            print(json.dumps({"row": row} | json.loads(done.stdout.splitlines()[-1])), flush=True)


def _measure(command: list[str]) -> None:
    """One row, in this process."""
    import torch

    from segzoo.cli.main import main as segzoo
    from segzoo.inference import Predictor

    seconds = 0.0
    maps = Predictor.maps

    def timed(*args: object, **options: object) -> object:
        nonlocal seconds
        begun = time.perf_counter()
        found = maps(*args, **options)  # type: ignore[arg-type]
        seconds += time.perf_counter() - begun
        return found

    Predictor.maps = timed  # type: ignore[method-assign,assignment]
    begun = time.perf_counter()
    if status := segzoo(command):
        raise SystemExit(status)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    row = {"GB": round(peak, 2), "seconds": round(time.perf_counter() - begun, 1), "of them maps": round(seconds, 1)}
    if torch.cuda.is_available():
        row["GPU GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    print(json.dumps(row | {"threads": torch.get_num_threads(), "cores": os.cpu_count()}))


def _labelled(root: Path, size: tuple[int, int]) -> Path:
    """The data of a test on the large image, with a mask of 19 classes."""
    (root / "masks").mkdir()
    coarse = np.random.default_rng(0).integers(0, 19, (size[0] // 64, size[1] // 64), np.uint8)
    Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.NEAREST).save(root / "masks" / "image.png")
    options = {"images": "{split}", "masks": "masks-{split}", "label_space": "cityscapes"}
    for split in ("train", "test"):
        (root / split).symlink_to("large")
        (root / f"masks-{split}").symlink_to("masks")
    domain = {"class_path": "segzoo.data.PairedFolders", "init_args": options}
    data = {"name": "large", "root": str(root), "size": [512, 704], "source": domain, "target": domain}
    path = root / "large.yaml"
    path.write_text(json.dumps({"data": data}))
    return path


def _untrained(folder: Path) -> Path:
    """A checkpoint of 19 classes with the default network and random weights."""
    import lightning as L

    from segzoo.data import load_label_space
    from segzoo.methods import SourceOnly

    options = {"encoder_weights": None}
    method = SourceOnly(label_space=load_label_space("cityscapes"), network=options)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, max_steps=1, default_root_dir=folder
    )
    method.trainer = trainer
    trainer.strategy.connect(method)
    path = folder / "untrained.ckpt"
    trainer.save_checkpoint(path)
    return path


if __name__ == "__main__":
    main()
