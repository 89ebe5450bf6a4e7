"""Labels that cannot be right, from Python, on two processes: both end, and with the same line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import warnings
import numpy as np
from segzoo.data import MiniCity
from segzoo.data.domains import ImageSet
from segzoo.errors import DataError
from tests import tiny

class Void(MiniCity):
    def images(self, split, root):
        clean = super().images(split, root)
        class Labels(ImageSet):
            names = clean.names
            def image(self, index):
                return clean.image(index)
            def label(self, index):
                return np.full_like(clean.label(index), 255)
        return Labels()

warnings.simplefilter("ignore")
source = Void("source", train=8, val=2, test=3, size=tiny.SIZE)
try:
    tiny.trainer(1, devices=2, strategy="ddp").fit(tiny.method("joint"), datamodule=tiny.data(source=source))
except DataError as error:
    print(error, flush=True)
    raise SystemExit(3)
"""


@pytest.mark.fault("labels-checked-by-every-trainer")
def test_all_processes_end(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment)
    assert done.returncode != 0
    assert done.stdout.count("all of source/train: every pixel is ignored") == 2, done.stdout + done.stderr
