"""Results of a study that nobody trained: runs with scores, curves, counts by image and pictures."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segzoo.evaluation import Protocol, Scores
from segzoo.study.results import orders
from segzoo.study.study_file import Comparison, Study

CLASSES = ("road", "house", "tree", "car")
PALETTE = np.array([[128, 64, 128], [70, 70, 70], [107, 142, 35], [0, 0, 142]], np.uint8)
IMAGES, SIZE = 12, (24, 40)


def truth(position: int) -> Any:
    """Labels (H, W) of an image."""
    rng = np.random.default_rng(position)
    labels = np.zeros(SIZE, np.uint8)
    labels[:10] = 1
    for number in (2, 3):
        top, left = rng.integers(2, 14), rng.integers(0, 30)
        labels[top : top + 8, left : left + 8] = number
    labels[-2:] = 255
    return labels


def write_run(one: Comparison, out: Path, row: Any, seed: int, skill: float) -> Path:
    """A complete run that labels a share of the pixels right, on the validation images as on the test images."""
    folder = one.folder(out)
    run = folder / row.name / row.method / "toy" / f"default-s{seed}"
    (run / "examples").mkdir(parents=True)
    rng = np.random.default_rng([seed, *row.name.encode()])
    matrices = []
    for position in range(IMAGES):
        labels = truth(position)
        said = np.where(rng.random(SIZE) < skill, labels, rng.integers(0, 4, SIZE)).astype(np.uint8)
        said[labels == 255] = 0
        counted = labels != 255
        matrices.append(np.bincount(labels[counted].astype(int) * 4 + said[counted], minlength=16).reshape(4, 4))
        if position % 2:
            Image.fromarray(PALETTE[np.minimum(labels, 3)]).save(run / f"examples/{position:05d}-image.jpg")
            for kind, ids in (("label", labels), ("prediction", said)):
                picture = Image.fromarray(ids)
                picture.putpalette(np.concatenate([PALETTE, np.zeros((252, 3), np.uint8)]).tobytes())
                picture.save(run / f"examples/{position:05d}-{kind}.png")
    found = np.stack(matrices)
    counts = np.stack([np.diagonal(found, axis1=1, axis2=2), found.sum(2), found.sum(1)], axis=1)
    np.savez_compressed(run / "images-test.npz", counts=counts)
    facts: dict[str, Any] = {"classes": "toy", "num_classes": 4, "split": "test", "images": IMAGES, "input_size": SIZE}
    labels = next((o for w, o in zip(row.options, row.options[1:], strict=False) if w == "--data.target_labels"), "16")
    number = 64 if labels == "null" else int(labels)
    resources = {"source-only": {"source": 40}, "target-only": {"labels": number}}.get(
        row.method, {"source": 40, "labels": number}
    )
    Scores(found.sum(0), CLASSES).save(run, "scores-test", Protocol(**facts), resources)
    Scores(found.sum(0), CLASSES).save(run / "val", "scores-val", Protocol(**facts | {"split": "val"}), resources)
    lines = ["step,val/miou", *(f"{step},{skill * (1 - 0.5 ** (step / 50)):.4f}" for step in range(24, 200, 25))]
    (run / "metrics.csv").write_text("\n".join(lines) + "\n")
    training = {
        "steps": 200,
        "seconds": 61.0,
        "steps_per_second": 2.0,
        "images_per_second": 9.5,
        "peak_memory_mib": {"process": 512.0},
    }
    manifest = {"status": "finished", "max_steps": 200, "training": training, "device": "cpu", "precision": "32-true"}
    manifest |= {"started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:01:01+00:00"}
    tested = datetime(2026, 1, 1, 0, 1, 11, tzinfo=UTC).timestamp()
    os.utime(run / "scores-test.json", (tested, tested))
    versions = {"segzoo": "0.1.0", "python": "3.11", "packages": {"torch": "2.14"}, "command": "segzoo fit <toy>"}
    data = {"name": "toy", "images": {"source/train": 40, "target/test": IMAGES}}
    (run / "manifest.json").write_text(json.dumps(manifest | versions | {"data": data}))
    (folder / f"{row.name}-s{seed}.json").write_text(json.dumps(orders(row, one.plan.common)))
    return run


def write_runs(study: Study, out: Path, skill: Any, without: Sequence[str] = ()) -> None:
    """All runs of a study.

    Args:
        study: what is compared.
        out: its folder.
        skill: of a row and a seed, from 0 to 1.
        without: names of rows that are left out.
    """
    for one in study.comparisons:
        for row in one.plan.rows:
            for seed in one.plan.seeds if row.name not in without else ():
                write_run(one, out, row, seed, skill(row, seed))
