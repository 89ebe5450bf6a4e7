"""The script that says where a step's time goes."""

import re

import pytest

from tests.benchmarks.conftest import NETWORK
from tests.benchmarks.phases import PHASES, main

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a .validation_step. but have no"),  # a step alone is measured
    pytest.mark.filterwarnings("ignore:the packaged generator draws"),  # which is as good as any for its time
]


def test_the_phases_of_a_step_add_up_to_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["phases", *NETWORK, "--steps", "1", "--rows", "metapix/sequential"])
    main()
    whole, *parts = map(float, re.findall(r"([\d.]+) ms", capsys.readouterr().out))
    assert len(parts) == len(PHASES) + 1 and min(parts) > 0
    assert sum(parts) == pytest.approx(whole, abs=0.1 * len(parts))
