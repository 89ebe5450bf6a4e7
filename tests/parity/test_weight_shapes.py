"""Weights of another shape than the losses are refused: they would be spread over pixels that they were not made for."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segzoo.bilevel import Engine, SGDStep, hypergradient
from segzoo.bilevel.normalize import mean_one
from tests.parity.problems import Problem, toy

SHAPES = [
    (),
    (1,),
    (8,),
    (1, 1, 1),
    (2, 1, 1),
    (1, 8, 8),
    (2, 8, 1),
    (2, 1, 8),
    (8, 8),
    (3, 8, 8),
    (4, 8, 8),
    (2, 8, 8, 1),
]
"""All but the last three would broadcast to (2, 8, 8), or be cut to it."""

pytestmark = pytest.mark.fault("weights-of-another-shape")


def solve(p: Problem, weights: Tensor, engine: Engine, micro_batches: int = 1) -> Tensor:
    parts = zip(*(tensor.chunk(micro_batches) for tensor in p.source), strict=True)
    source = [Problem(p.net, part, p.target, weights).source_losses() for part in parts]
    return hypergradient(p.net, source, [p.target_loss()], p.params, weights, 128.0, SGDStep(0.1), engine).weights


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("engine", get_args(Engine))
def test_every_engine_refuses_other_shapes(engine: Engine, micro_batches: int) -> None:
    p = toy()
    before = {name: q.detach().clone() for name, q in p.params.items()}
    for shape in SHAPES:
        with pytest.raises(ValueError, match=r"weights of shape .* for per-pixel losses of shape"):
            solve(p, torch.rand(shape, dtype=torch.float64), engine, micro_batches)
    assert all(torch.equal(q, before[name]) for name, q in p.params.items())
    assert solve(p, p.weights, engine, micro_batches).shape == p.weights.shape


@settings(max_examples=25, deadline=None)
@given(shape=st.lists(st.integers(1, 4), max_size=4).map(tuple))
def test_any_shape_but_that_of_the_losses(shape: tuple[int, ...]) -> None:
    p = toy()
    weights = torch.rand(shape, dtype=torch.float64)
    for engine in get_args(Engine):
        with pytest.raises(ValueError, match="expected one per loss"):
            solve(p, weights, engine)


def test_a_mean_of_weights_is_over_their_own_pixels() -> None:
    valid = torch.ones(2, 4, 4, dtype=torch.bool)
    for shape in ((), (1,), (4,), (2, 1, 1), (2, 4, 1)):
        with pytest.raises(ValueError, match="expected the same"):
            mean_one(torch.rand(shape), valid, valid.sum(), lambda value: value)
    assert mean_one(torch.rand(2, 4, 4), valid, valid.sum(), lambda value: value)[0].shape == valid.shape
