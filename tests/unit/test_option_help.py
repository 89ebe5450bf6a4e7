"""Every option is explained by a full sentence: what it does, in words that stand alone."""

import inspect
from typing import Any

import pytest
from docstring_parser import parse

from segzoo.adaptation import Night
from segzoo.data import DomainDataModule, Harmed, MiniCity, MiniFaces, PairedFolders, Views
from segzoo.methods.loss import Loss
from segzoo.methods.optimizer import Optimizer
from segzoo.methods.registry import load_method, methods
from segzoo.methods.speed import Speed
from segzoo.models.network import Network

CLASSES: dict[str, Any] = {
    **{slug: load_method(slug) for slug in methods()},
    **{cls.__name__: cls for cls in (Network, Optimizer, Loss, Speed, Night)},
    **{cls.__name__: cls for cls in (DomainDataModule, PairedFolders, Harmed, MiniCity, MiniFaces, Views)},
}
VERBS = """
    Adds Applies Averages Captures Chooses Compares Computes Crops Describes Divides Draws Gives Keeps Leaves Limits Lists Loads
    Looks Makes Mirrors Multiplies Names Passes Raises Replaces Runs Saves Says Sets Starts Trains Updates Weighs
    """
ELSEWHERE = ("see there", "see the module", "likewise", "the same for")


def entries(cls: Any) -> dict[str, str]:
    """What the class's docstring says of each argument, in one line."""
    return {p.arg_name: " ".join((p.description or "").split()) for p in parse(cls.__doc__ or "").params}


OPTIONS = [(name, option) for name, cls in CLASSES.items() for option in inspect.signature(cls).parameters]


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=[f"{name}.{option}" for name, option in OPTIONS])
def test_an_option_is_explained_by_a_sentence(name: str, option: str) -> None:
    text = entries(CLASSES[name]).get(option, "")
    assert text, "it has no entry under Args in the docstring of its class"
    assert text.split()[0] in VERBS.split(), f"it begins with no verb in the third person: {text}"
    assert len(text.split()) >= 5 and text.endswith("."), f"it is no sentence: {text}"
    assert not [words for words in ELSEWHERE if words in text.lower()], f"it sends the reader elsewhere: {text}"


@pytest.mark.parametrize("name", CLASSES)
def test_no_entry_explains_what_is_no_option(name: str) -> None:
    cls = CLASSES[name]
    assert list(entries(cls)) == list(inspect.signature(cls).parameters)


@pytest.mark.parametrize("name", CLASSES)
def test_lines_fit(name: str) -> None:
    assert max(map(len, inspect.getsource(CLASSES[name]).splitlines())) <= 128
