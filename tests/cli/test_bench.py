"""`segzoo bench`: arguments that cannot work are refused before anything is measured."""

import pytest

from segzoo.bench.runner import Runner
from tests.cli.conftest import Segzoo


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: {bilevel,annotator}"),
        (["bilvel"], "invalid choice: 'bilvel'"),
        (["bilevel", "--row", "joint"], "did you mean '--rows'"),
        (["bilevel", "--rows", "joint,metapix/sequental"], "did you mean 'metapix/sequential'"),
        (["bilevel", "--size", "16", "64"], "--size 16 64: expected at least 32 32"),
        (["bilevel", "--size", "wide", "64"], "invalid int value: 'wide'"),
        (["bilevel", "--steps", "0"], "--steps 0: expected at least 1"),
        (["bilevel", "--precision", "64"], "invalid choice: '64'"),
        (["bilevel", "--precision", "16"], "--precision 16 needs a CUDA device"),
        (["bilevel", "--peers", "absent.py"], "--peers absent.py is not a Python file"),
        (["bilevel", "--figure", "bars.docx"], "--figure bars.docx: expected a name that ends in .png"),
        (["bilevel", "--json", "."], "cannot write to ."),
    ],
)
def test_wrong_arguments_are_one_line(
    segzoo: Segzoo, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Runner, "run")  # what is not refused must not start a benchmark
    result = segzoo("bench", *arguments)
    assert (result.status, result.out) == (2, "")
    assert message in result.err and result.err.count("\n") == 1


def test_help_lists_the_rows(segzoo: Segzoo) -> None:
    out = segzoo("bench", "bilevel", "--help").out
    assert "metapix/double-backward" in out and "torchopt" in out and "annotator/forward" in out
