"""What is kept of every run, with its scores on both splits."""

from pathlib import Path
from typing import Any

from docs.photographs.job import scores_of
from docs.photographs.plan import Pair
from segzoo.study.entries import make_entry, os_path
from segzoo.study.plan import Row


def entry(pair: Pair, row: Row, seed: int, run: Path, out: Path) -> dict[str, Any]:
    """What is kept of one run, in plain types.

    Args:
        pair: the data.
        row: the row of the run.
        seed: of the run.
        run: its folder.
        out: folder of the study.
    """
    found = make_entry(pair, row, seed, run, {split: run / scores_of(split) for split in ("val", "test")})
    return found | {"run": os_path(run, out)}
