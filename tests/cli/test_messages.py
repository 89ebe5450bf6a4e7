"""Messages of the library name parameters; the command spells them as the options that are typed."""

import warnings
from pathlib import Path

import pytest

from segzoo.cli.errors import translate
from segzoo.runtime.quiet import be_quiet
from tests.cli.conftest import Segzoo


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`data.batch_size` 0: expected 1 or more", "--data.batch_size 0: expected 1 or more"),
        ("or `optimizer.schedule constant`", "or --optimizer.schedule constant"),
        ("`method.night.weight` and `network.options {a: 1}`", "--method.night.weight and --network.options {a: 1}"),
        ("see `segzoo methods`, `last.ckpt` and `data`", "see `segzoo methods`, `last.ckpt` and `data`"),
        ("`trainer.max_steps", "`trainer.max_steps"),
    ],
)
def test_a_parameter_is_spelled_as_its_option(text: str, expected: str) -> None:
    assert translate(text) == expected


def test_a_warning_names_the_option(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with warnings.catch_warnings():
        be_quiet(translate)
        warnings.simplefilter("always")
        warnings.showwarning = lambda *args, **_: print(warnings.formatwarning(*args), end="")
        warnings.warn("`method.target_start` 9 is not reached", stacklevel=1)
    assert capsys.readouterr().out == "warning: --method.target_start 9 is not reached\n"


def test_no_message_of_the_command_has_a_parameter_in_backticks(segzoo: Segzoo, toy: Path) -> None:
    for flags in (
        ["--optimizer.lr", "-1"],
        ["--network.encoder_weights", "imagnet"],
        ["--data.crop_scale", "1", "0.5"],
    ):
        result = segzoo("fit", "--method", "joint", "--data", toy, *flags)
        assert result.status == 2 and "`" not in result.err and f"{flags[0]}" in result.err
