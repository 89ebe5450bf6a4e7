"""The adapters compute what they are compared for."""

from collections.abc import Callable

import numpy as np
import pytest

from segzoo.bench.measure import measure
from segzoo.bench.peers import load_peers
from segzoo.bench.rows import REFERENCE, Task
from tests.benchmarks.conftest import PEERS


# Betty differentiates at another point, see its adapter: the direction is right, no more.
@pytest.mark.parametrize(("name", "least"), [("higher", 0.99), ("torchopt", 0.99), ("betty", 0.2)])
def test_peers_compute_the_hypergradient_and_train(name: str, least: float, task: Callable[..., Task]) -> None:
    if reason := load_peers(PEERS)[name].missing():
        pytest.skip(reason)
    measure(task(REFERENCE, precision="64"))
    truth = np.load(task(name).gradient)
    assert len(measure(task(name, steps=2))["seconds"]) == 2
    found = np.load(task(name).gradient)
    assert found @ truth / np.linalg.norm(found) / np.linalg.norm(truth) > least
