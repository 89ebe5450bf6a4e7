"""However few images there are: two processes score as one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed import evaluation

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.fault("fewer-images-than-processes")
@pytest.mark.fault("limited-evaluation-on-several-processes")
def test_two_processes_score_as_one(tmp_path: Path) -> None:
    files = [tmp_path / f"{world}.json" for world in (1, 2)]
    evaluation.main(str(files[0]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*torchrun, "-m", "tests.distributed.evaluation", str(files[1])]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads(file.read_text()) for file in files)
    assert one == two
    assert one["one image"]["test"]["images"] == 1 and one["three images"]["fit"]["images"] == 3
    assert (
        one["windows"]["test"]["images"] == 3
        and one["windows"]["test"]["confusion"] != one["windows"]["fit"]["confusion"]
    )
    assert one["windows, limited"]["test"]["images"] == 2
    assert one["two batches"]["validate"]["images"] == 4 and one["half of the batches"]["test"]["images"] == 2
