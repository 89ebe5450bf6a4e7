"""The order of things around a CUDA graph, with a pretended one; tests/gpu has the real ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from segzoo.bilevel import CaptureError, Graphed
from segzoo.bilevel.graphed import WARMUP
from segzoo.bilevel.passes import CapturedSeeds, seeded


class Generator:
    """A random-number state of a pretended device, which knows the states that it was given."""

    def __init__(self) -> None:
        self.seed: int | None = None
        self.now: Generator = self

    def clone_state(self) -> "Generator":
        return Generator()

    def graphsafe_get_state(self) -> "Generator":
        return self.now

    def graphsafe_set_state(self, state: "Generator") -> None:
        self.now = state

    def manual_seed(self, seed: int) -> None:
        self.seed = seed


class Graph:
    def __init__(self) -> None:
        self.states: list[Generator] = []
        self.replays: list[list[int | None]] = []

    def register_generator_state(self, state: Generator) -> None:
        self.states.append(state)

    def replay(self) -> None:
        self.replays.append([state.seed for state in self.states])


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Generator:
    """A pretended CUDA device: its generator. What is captured is computed at once."""

    @contextmanager
    def graph(graph: Graph, pool: Any, capture_error_mode: str) -> Iterator[None]:
        yield

    generator = Generator()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "default_generators", {None: generator})
    return generator


def draw() -> int:
    return int(torch.randint(2**31, ()))


@pytest.mark.usefixtures("device")
def test_a_capture_draws_the_seeds_that_a_usual_call_would_draw() -> None:
    seen: list[tuple[int, int]] = []

    def run(x: Tensor) -> Tensor:
        seen.append((draw(), draw()))
        return x

    torch.manual_seed(0)
    expected = [(draw(), draw()) for _ in range(WARMUP + 3)]
    torch.manual_seed(0)
    graphed = Graphed(run, draw, seeds=2)
    results = [graphed(torch.full((2,), float(i))) for i in range(WARMUP + 3)]
    graph: Any = graphed.graph
    assert seen[:WARMUP] == expected[:WARMUP] and len(seen) == WARMUP + 1
    assert graph.replays == [[a, a, b, b] for a, b in expected[WARMUP:]]
    # The captured tensor, which holds the last input.
    assert results[-1] is results[-2] and results[-1].tolist() == [WARMUP + 2.0] * 2


@pytest.mark.usefixtures("device")
def test_inputs_of_another_shape_are_computed_as_usual() -> None:
    graphed = Graphed(lambda x: x + 1, draw, seeds=0)
    for _ in range(WARMUP + 1):
        graphed(torch.zeros(2))
    graph: Any = graphed.graph
    assert graphed(torch.zeros(3)).tolist() == [1.0] * 3 and len(graph.replays) == 1


def test_what_cannot_be_captured_says_so(device: Generator) -> None:
    calls = []

    def run(x: Tensor) -> Tensor:
        calls.append(x)
        if len(calls) > WARMUP:
            raise RuntimeError("operation not permitted when stream is capturing")
        return x

    graphed = Graphed(run, draw, seeds=1)
    for _ in range(WARMUP):
        graphed(torch.zeros(2))
    with pytest.raises(CaptureError, match=r"not permitted when stream .*cuda_graph false"):
        graphed(torch.zeros(2))
    assert CapturedSeeds.active is None
    assert graphed.failed and device.now is not device  # which would wait for the end of the capture


@pytest.mark.usefixtures("device")
def test_numbers_that_the_host_draws_are_refused() -> None:
    graphed = Graphed(lambda x: x + draw() * 0 + torch.rand(()) * 0, draw, seeds=1)
    for _ in range(WARMUP):
        graphed(torch.zeros(2))
    with pytest.raises(CaptureError, match="random numbers on the host"):
        graphed(torch.zeros(2))


def test_a_pass_and_its_derivative_draw_from_states_of_one_seed(device: Generator) -> None:
    seeds = CapturedSeeds(Graph(), torch.device("cpu"), 2)  # type: ignore[arg-type]
    used = []
    with seeds:
        for seed in (7, 9, 7):
            with seeded(seed, torch.device("cpu")):
                used.append(device.now)
            assert device.now is device
        with pytest.raises(RuntimeError), seeded(7, torch.device("cpu")):  # a third pass has no state left
            pass
    seeds.renew(iter((1, 2)).__next__)
    assert [state.seed for state in used] == [1, 2, 1] and used[0] is not used[2]
    assert CapturedSeeds.active is None
