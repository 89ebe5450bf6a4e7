"""``segzoo folds``: checkpoints of one run, chosen and scored by folds of the test images."""

import argparse
import filecmp
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np

from segzoo.checks import check_range
from segzoo.cli.errors import translate
from segzoo.cli.expand import expand
from segzoo.cli.parser import Parser
from segzoo.cli.rundir import VARIABLE
from segzoo.cli.train import read
from segzoo.errors import ConfigError
from segzoo.files import write_text
from segzoo.runtime.lock import FolderLock, release_all

DESCRIPTION = """\
Score a run as DatasetGAN's benchmarks do: of each fold of the test images the checkpoint with the best mIoU is scored on all
other images. Prints mean and standard deviation over the folds and writes them to RUN/folds-DATA.json.

The checkpoints are those that `segzoo fit --keep_steps N` left in RUN/checkpoints, in their order, and the last one. What
follows `--` goes to `segzoo test`."""
EXAMPLES = """\
examples:
  segzoo fit --method source-only --data made/data.yaml --trainer.max_steps 25000 --keep_steps 1250
  segzoo folds --run runs/source-only/minifaces-generated/default-s0
  segzoo folds --run runs/source-only/minifaces-generated/default-s0 --latest 20 -- --data.root /data"""


def folds(argv: list[str]) -> int:
    """Runs the command."""
    at = argv.index("--") if "--" in argv else len(argv)
    args = _parser().parse(argv[:at])
    check_range("--folds", args.folds, 2)
    check_range("--latest", args.latest, 1)
    checkpoints = kept_checkpoints(args.run)[-args.latest :]
    for checkpoint in checkpoints:  # all of them before the first is scored
        read(checkpoint)
    try:
        FolderLock(args.run, ".folds.lock")
        return _folds(args, checkpoints, argv[at + 1 :])
    finally:
        os.environ.pop(VARIABLE, None)
        release_all()


def _folds(args: argparse.Namespace, checkpoints: Sequence[Path], options: Sequence[str]) -> int:
    # The run's own scores and logs stay as they are; the system's temporary folder may be full.
    with tempfile.TemporaryDirectory(dir=args.run, prefix=".folds-") as scratch:
        own = ["--ckpt_path", str(checkpoints[-1]), "--out", scratch, "--data.eval_batch_size", "1"]
        run = _run([*options, *own])
        if not run.labels_images:
            raise ConfigError(f"the method '{run.method.slug}' labels no images: there is nothing to score")
        matrices = np.stack([_per_image(run, path) for path in checkpoints])
    from segzoo.evaluation.folds import score_folds

    space = run.method.label_space
    found = score_folds(matrices, space.classes, space.subsets, args.folds)
    columns = {"mIoU": [fold.scores.miou for fold in found]}
    columns |= {f"mIoU ({name})": [fold.scores.subset(name) for fold in found] for name in space.subsets}
    chosen = [checkpoints[fold.checkpoint].name for fold in found]
    _print(columns, chosen)
    print(f"{matrices.shape[1]} test images, {len(checkpoints)} checkpoints, of which each fold chose one")
    path = args.run / f"folds-{run.data.name}.json"
    content = {"images": matrices.shape[1], "checkpoints": [c.name for c in checkpoints], "chosen": chosen, **columns}
    write_text(path, json.dumps(content, indent=1) + "\n")
    print(f"written to {path}")
    return 0


def kept_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run by step, the last one at the end.

    Raises:
        ConfigError: there are none.
    """
    if run.name == "checkpoints" or run.is_file():
        raise ConfigError(
            f"--run {run}: expected the folder of a run: {run.parent if run.is_dir() else run.parent.parent}"
        )
    folder = run / "checkpoints"
    kept = sorted(folder.glob("step*.ckpt"))
    last = folder / "last.ckpt"
    # A run that ended at a multiple of --keep_steps has its last checkpoint twice.
    if last.is_file() and not (kept and filecmp.cmp(kept[-1], last, shallow=False)):
        kept.append(last)
    if not kept:
        raise ConfigError(f"--run {run}: no checkpoint in {folder}; expected the folder of a run of `segzoo fit`")
    return kept


def _parser() -> Parser:
    parser = Parser("segzoo folds", DESCRIPTION, EXAMPLES)
    parser.add_argument("--run", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="how many (default: 5)")
    parser.add_argument("--latest", type=int, default=20, metavar="N", help="checkpoints to choose from (default: 20)")
    return parser


def _run(argv: list[str]) -> Any:
    invocation = expand("test", argv, read)
    assert invocation is not None
    from segzoo.runtime.quiet import be_quiet

    be_quiet(translate)
    from segzoo.cli.run import Run

    return Run("test", invocation)


def _print(columns: Mapping[str, Sequence[float]], chosen: Sequence[str]) -> None:
    from segzoo.evaluation.score_tables import percent

    rows = [["", *columns, ""]]
    rows += [
        [f"fold {k + 1}", *(percent(values[k]) for values in columns.values()), name] for k, name in enumerate(chosen)
    ]
    rows.append(["mean ± std", *(f"{percent(fmean(v))} ± {percent(pstdev(v))}" for v in columns.values()), ""])
    for row in rows:
        print("  ".join(text.ljust(max(len(other[i]) for other in rows)) for i, text in enumerate(row)).rstrip())


def _per_image(run: Any, checkpoint: Path) -> Any:
    """(images, C, C) confusion matrices of one checkpoint."""
    from lightning.pytorch.callbacks import Callback

    from segzoo.callbacks import StepProgress

    class PerImage(Callback):
        def __init__(self) -> None:
            self.sums: list[Any] = []

        def on_test_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            self.sums.append(pl_module.confusion.confmat.cpu().numpy().copy())

    watch = PerImage()
    run.trainer.callbacks = [watch, *(c for c in run.trainer.callbacks if isinstance(c, StepProgress))]
    run.trainer.test(run.method, datamodule=run.data, ckpt_path=str(checkpoint), verbose=False, weights_only=True)
    return np.diff(np.stack(watch.sums), axis=0, prepend=0)
