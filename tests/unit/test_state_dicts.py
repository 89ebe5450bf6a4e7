"""What is said of the state dicts of others."""

import pytest
import torch

from segzoo.models.state_dicts import non_finite


def test_finite_numbers_and_other_types_pass() -> None:
    assert (
        non_finite({"weight": torch.ones(2), "count": torch.tensor(3), "name": "x", "state": {0: {"step": 1.0}}})
        is None
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_bad_tensor_is_named(bad: float) -> None:
    state = {"good": torch.ones(2), "state": {0: {"exp_avg": torch.tensor([1.0, bad])}}, "later": torch.tensor(bad)}
    assert non_finite(state) == "state.0.exp_avg"
